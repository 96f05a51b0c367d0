"""Logging: one JSON line per request and per job, limited to an allow-list of keys.

Contact data cannot be logged by accident, because no listed key holds any. The id of a lead is enough to follow it.
"""

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

import msgspec
import structlog

ALLOWED: Final = frozenset({
    "event", "level", "timestamp", "process", "request_id", "method", "route", "status", "code", "ms", "key_id", "job",
    "id", "waited_ms", "error", "lead", "assignment", "endpoint", "state", "outcome", "reason", "attempt", "count",
    "version", "seconds", "address", "port", "pid", "name", "path",
})  # fmt: skip


LOG_MODE: Final = 0o640
"""Permissions of log files: readable by the operator and by log collectors in the same group, by nobody else."""


def _only_allowed(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Drop keys that are not in ALLOWED."""
    return {key: value for key, value in event.items() if key in ALLOWED}


def _dumps(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _NamesOnly(logging.Formatter):
    """Formatter for messages of libraries: level, logger and class of the error, because texts may hold values."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[0] if record.exc_info else None
        return f"{record.levelname} {record.name}" + (f" {error.__name__}" if error else "")


def configure(stream: TextIO | None = None) -> None:
    """Write all log lines of this process to `stream`, by default to standard error.

    Messages of libraries appear by level and logger name only: their texts may hold values.
    """
    out = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_allowed,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(_NamesOnly())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def open_log(path: Path) -> BinaryIO:
    """Open a log file for appending, with the permissions LOG_MODE."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, LOG_MODE)
    with contextlib.suppress(PermissionError):  # made by another account
        os.fchmod(descriptor, LOG_MODE)
    return os.fdopen(descriptor, "ab")


def logger(process: str) -> Any:
    """Return a logger whose lines name `process`."""
    return structlog.get_logger(process=process)
