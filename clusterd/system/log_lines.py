"""How our processes log: one line an event on stderr, as text for people or JSON for collectors.

Stderr is the log file when a daemon started the process, the journal under systemd, the terminal by hand.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

__all__ = ["JsonFormatter", "TextFormatter", "configure"]


def configure(log_format: str, level: str | None = None) -> None:
    """Set the root logger up: `text` or `json`; without a level CLUSTERD_LOG_LEVEL decides, else INFO."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel((level or os.environ.get("CLUSTERD_LOG_LEVEL", "INFO")).upper())


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123 INFO hub: registered: ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, if any, follows."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        line = f"{stamp}.{int(record.msecs):03d} {record.levelname} {record.name.rpartition('.')[2]}: {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The object: time, level, logger, message, and traceback where there is one."""
        content = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)
