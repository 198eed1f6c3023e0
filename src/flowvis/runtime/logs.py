"""Logs on stderr, as key=value text or JSON lines; what peers can cause is rate-limited.

Fields beside the message are given as `extra={"peer": ...}`.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

MAX_LIMITED = 10_000  # (peer, message) pairs remembered: some 2 MB

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f]+")


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logs to stderr (or `stream`) in one of FORMATS, from one of LEVELS on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


class Configured(Protocol):
    """Settings of a daemon, as far as its log goes."""

    @property
    def log(self) -> Any:
        """Has a `format` and a `level`."""


async def configure_as(settings: Configured) -> None:
    """Write logs as settings say that have changed."""
    configure(settings.log.format, settings.log.level)


class TextFormatter(logging.Formatter):
    """One line of key=value per record; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or lines of one record."""
        line = " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())
        trace = _trace(record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of one record."""
        fields = _fields(record)
        trace = _trace(record)
        if trace:
            fields["traceback"] = trace
        return json.dumps(fields, default=str)


class LimitedLog:
    """A logger for what peers cause: so much of each message for each peer and interval.

    What is held back is counted and reported with the next line of its kind (`suppressed=`).
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        burst: int = 3,
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()

    def log(
        self,
        level: int,
        peer: str,
        message: str,
        *args: object,
        exc_info: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Log, or count as suppressed; `message` without its arguments is what is limited."""
        suppressed = self._admit(peer, message)
        if suppressed is None:
            return
        extra = {"peer": peer, **fields} | ({"suppressed": suppressed} if suppressed else {})
        self._logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=2)

    def _admit(self, peer: str, message: str) -> int | None:
        """How many were suppressed before this one; None if it is to be suppressed itself."""
        now = self._clock()
        window = self._windows.get((peer, message))
        if window is None:
            window = self._windows[peer, message] = _Window(now)
            if len(self._windows) > MAX_LIMITED:
                self._windows.popitem(last=False)
        self._windows.move_to_end((peer, message))
        suppressed = 0
        if now - window.start >= self._interval_s:
            suppressed = window.suppressed
            window.start, window.logged, window.suppressed = now, 0, 0
        if window.logged >= self._burst:
            window.suppressed += 1
            return None
        window.logged += 1
        return suppressed


@dataclass(slots=True)
class _Window:
    start: float
    logged: int = 0
    suppressed: int = 0


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a line has: time, level, logger, message, then the extra fields."""
    moment = datetime.fromtimestamp(record.created, UTC)
    fields: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": record.getMessage(),
    }
    return fields | {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _quoted(value: object) -> str:
    """Write a value so that no text of a peer's can start a new line or field."""
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip()
