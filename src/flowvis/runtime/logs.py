"""Logs on stderr, as key=value text or JSON lines; what peers can cause is rate-limited.

Fields beside the message are given as `extra={"peer": ...}`.
"""

import asyncio
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
from weakref import WeakSet

from flowvis.runtime.component import end, spawn
from flowvis.runtime.visible import visible, visible_json

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

MAX_LIMITED = 1000  # (peer, message) pairs remembered by each log: some 200 kB
ALL_PEERS = 30
"""Lines of a message that all peers together have in an interval, where nothing else is said."""

REPORT_S = 60.0

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
    """One line of key=value per record; a traceback follows on lines of its own, indented.

    No text of a peer's looks like a line of ours.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or lines of one record."""
        line = " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())
        trace = _trace(record)
        return f"{line}\n{_indented(trace)}" if trace else line


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

    A peer is an address, whatever its port: who connects anew is not somebody else. All peers
    together have `overall` lines of a message, as one may have many addresses. What is held back
    is counted, and reported with the next line of its kind (`suppressed=`) or, where none comes, by
    `report`.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        burst: int = 3,
        overall: int = ALL_PEERS,
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._burst = burst
        self._overall = overall
        self._interval_s = interval_s
        self._clock = clock
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()
        self._messages: dict[str, _Window] = {}
        """What all peers have had of each message; these are ours, so they are few."""
        _LIMITED.add(self)

    def log(
        self,
        level: int,
        peer: str,
        message: str,
        *args: object,
        error: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Log, or count as suppressed; `message` without its arguments is what is limited.

        An `error` is logged with its traceback.
        """
        if not self._logger.isEnabledFor(level):
            return
        suppressed = self._admit(_without_port(peer), message)
        if suppressed is None:
            return
        extra = {"peer": peer, **fields} | ({"suppressed": suppressed} if suppressed else {})
        self._logger.log(level, message, *args, exc_info=error, extra=extra, stacklevel=2)

    def report(self, *, everything: bool = False) -> None:
        """Log what was suppressed and has had no line since; `everything`, also of just now."""
        now = self._clock()
        for (_, message), window in list(self._windows.items()):
            if window.suppressed and (everything or self._is_over(window, now)):
                self._messages[message].suppressed += window.suppressed
                window.suppressed = 0
        for message, share in self._messages.items():
            if share.suppressed:
                extra = {"suppressed": share.suppressed}
                self._logger.warning("more of the same kind: %s", message, extra=extra)
                share.suppressed = 0

    def _admit(self, peer: str, message: str) -> int | None:
        """How many were suppressed before this one; None if it is to be suppressed itself."""
        now = self._clock()
        window = self._window(peer, message, now)
        share = self._messages.setdefault(message, _Window(now))
        if self._is_over(share, now):
            share.start, share.logged = now, 0
        suppressed = 0
        if self._is_over(window, now):
            suppressed = window.suppressed
            window.start, window.logged, window.suppressed = now, 0, 0
        if window.logged >= self._burst or share.logged >= self._overall:
            window.suppressed += suppressed + 1
            return None
        window.logged += 1
        share.logged += 1
        return suppressed

    def _window(self, peer: str, message: str, now: float) -> "_Window":
        window = self._windows.get((peer, message))
        if window is None:
            window = self._windows[peer, message] = _Window(now)
            if len(self._windows) > MAX_LIMITED:
                (_, forgotten), old = self._windows.popitem(last=False)
                self._messages[forgotten].suppressed += old.suppressed
        self._windows.move_to_end((peer, message))
        return window

    def _is_over(self, window: "_Window", now: float) -> bool:
        return now - window.start >= self._interval_s


@dataclass(slots=True)
class _Window:
    start: float
    logged: int = 0
    suppressed: int = 0


_LIMITED: WeakSet[LimitedLog] = WeakSet()


class SuppressedLines:
    """A component that has all limited logs report what they suppressed, once a minute."""

    name = "suppressed lines"

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = spawn(self.name, self._run())

    async def stop(self) -> None:
        """Report what is left."""
        await end(self._task)
        report_suppressed(everything=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            report_suppressed()


def report_suppressed(*, everything: bool = False) -> None:
    """Have all limited logs report."""
    for limited in list(_LIMITED):
        limited.report(everything=everything)


def _without_port(peer: str) -> str:
    head, _, port = peer.rpartition(":")
    host = head.rpartition("//")[2].rpartition("@")[2]
    whole = host and (":" not in host or host.endswith("]"))
    return head if whole and port.isdecimal() else peer


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
    if _BARE.fullmatch(text) and text.isprintable():
        return text
    return visible_json(text)


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1])).rstrip()


def _indented(trace: str) -> str:
    return "\n".join(f"  {visible(line)}" for line in trace.split("\n"))
