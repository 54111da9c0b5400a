"""How processes come to run, one file per system. A launcher does what it is told, once, and says honestly what it knows."""
