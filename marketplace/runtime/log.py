"""One canonical line per request and per job, as JSON, by allow-list: a key not listed here never reaches the log.

Contact data cannot be logged by accident, because no listed key holds any. What is needed to follow a lead is its id.
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
"""Ids and times of leads are nobody's business but the operator's, and of those who collect logs in the same group."""


def _only_allowed(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {key: value for key, value in event.items() if key in ALLOWED}


def _dumps(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _NamesOnly(logging.Formatter):
    """A library's message as its level, its logger and the class of its error: a traceback ends in the error's text."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[0] if record.exc_info else None
        return f"{record.levelname} {record.name}" + (f" {error.__name__}" if error else "")


def configure(stream: TextIO | None = None) -> None:
    """Sends every line of this process to `stream`, standard error unless said otherwise.

    Libraries' own messages appear by level and logger name only: their texts may hold values.
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
    """A log file to append to: its owner writes, its group reads, and nobody else (0640)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, LOG_MODE)
    with contextlib.suppress(PermissionError):  # made by another account
        os.fchmod(descriptor, LOG_MODE)
    return os.fdopen(descriptor, "ab")


def logger(process: str) -> Any:
    """A logger whose lines name `process`."""
    return structlog.get_logger(process=process)
