"""How answers look: plain text for people and pipes, JSON for programs, rich on a terminal for what moves."""
