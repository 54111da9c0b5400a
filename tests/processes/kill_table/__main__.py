"""Prints the table of what is promised when a process is killed, as Markdown."""

from __future__ import annotations

import sys

from tests.processes.kill_table.rows import as_markdown

sys.stdout.write(as_markdown())
