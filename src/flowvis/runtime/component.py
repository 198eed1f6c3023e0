"""Components and root tasks: start in order, stop in reverse, and nothing dies silently.

A component's constructor opens nothing, so that building a daemon is free of effects and checks its
configuration. Root tasks have names and must not end: one that does stops the daemon with its
name in the log.

The first SIGTERM or SIGINT stops gracefully. What comes within a second of it is the same request,
as a shell and a supervisor may both make it. A second request means hurry: each component has one
second to save what it has. A third one means now. When all has stopped, signals change nothing any
more: a process that is about to exit does so with its own exit code.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from flowvis.errors import FlowvisError
from flowvis.runtime.signals import handle, ignore

log = logging.getLogger(__name__)

LAST_CHANCE_S = 1.0  # what a component gets to stop in when those before it used up the grace
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_S = 1.0  # within this signals are one request


class Component(Protocol):
    """A part of a daemon that is started and stopped."""

    name: str

    async def start(self) -> None:
        """Open what it needs; it works when this returns."""

    async def stop(self) -> None:
        """Finish what it has and close; never called unless start returned."""


class Supervisor:
    """Runs components under one roof and knows their root tasks."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.leaving: set[asyncio.Task[Any]] = set()
        """Tasks that may end, but not fail."""
        self.stopping = False
        self.failed = False
        self._requests = [asyncio.Event() for _ in range(3)]
        """To stop: gracefully, in a hurry, now."""
        self._wake, self._hurry, self._now = self._requests

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Watch a root task: from now on its end is the daemon's."""
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def request_stop(self) -> str:
        """Stop gracefully; asked for again: in a hurry; and once more: now. Return which."""
        for event, how in zip(self._requests, ("stopping", "in a hurry", "now"), strict=True):
            if not event.is_set():
                event.set()
                return how
        return how

    def fail(self) -> None:
        """Stop gracefully, with a non-zero exit code."""
        self.failed = True
        self._wake.set()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        expected = self.stopping or task in self.leaving
        self.tasks.discard(task)
        self.leaving.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None and (expected or task.cancelled()):
            return
        report_end(task.get_name(), error)
        self.fail()

    async def run(self, components: Sequence[Component], grace_s: float) -> int:
        """Run until a signal or a failure; return the exit code."""
        started: list[Component] = []
        waits = [asyncio.ensure_future(event.wait()) for event in self._requests]
        wake, hurry, now = waits
        try:
            for component in components:
                if not await self._start(component, wake):
                    break
                started.append(component)
            await wake
            self.stopping = True
            await self._stop_all(started, grace_s, hurry, now)
        finally:
            for wait in waits:
                wait.cancel()
            await self._end_tasks()
        return int(self.failed)

    async def _start(self, component: Component, wake: "asyncio.Future[Any]") -> bool:
        """Start one component unless the daemon is to stop meanwhile."""
        starting = asyncio.create_task(component.start(), name=f"start {component.name}")
        await asyncio.wait((starting, wake), return_when=asyncio.FIRST_COMPLETED)
        if wake.done() and not starting.done():
            await end(starting)
            return False
        error = _outcome(starting)
        if error is not None:
            _report(f"{component.name} cannot start", error)
            self.fail()
        return error is None

    async def _stop_all(
        self,
        components: list[Component],
        grace_s: float,
        hurry: "asyncio.Future[Any]",
        now: "asyncio.Future[Any]",
    ) -> None:
        deadline = time.monotonic() + grace_s
        last_chance_s = min(LAST_CHANCE_S, grace_s)
        while components and not now.done():
            component = components.pop()
            began_s = time.monotonic()
            stopping = asyncio.create_task(component.stop(), name=f"stop {component.name}")
            left = max(deadline - began_s, last_chance_s)
            if not hurry.done():
                await _first((stopping, hurry), left)
            if hurry.done() and not stopping.done():
                await _first((stopping, now), last_chance_s)
            self._judge(component, stopping, time.monotonic() - began_s)
            await _cancel([stopping])
        if now.done():
            self.failed = True
            waiting = ", ".join(component.name for component in components)
            log.warning("stopped at once by a third signal; not stopped: %s", waiting or "none")

    def _judge(self, component: Component, stopping: asyncio.Task[Any], waited_s: float) -> None:
        """Say in the log how a component's stop went, if not well."""
        if stopping.done():
            error = _outcome(stopping)
            if error is None:
                return
            _report(f"{component.name} did not stop cleanly", error)
        else:
            where = _position(stopping)
            log.error("%s has not stopped in %.1f s, stuck in %s", component.name, waited_s, where)
        self.failed = True

    async def _end_tasks(self) -> None:
        for task in await _cancel(list(self.tasks)):
            log.error("%s does not end, stuck in %s", task.get_name(), _position(task))
            self.failed = True


_SUPERVISOR: ContextVar[Supervisor | None] = ContextVar("supervisor", default=None)


def supervisor() -> Supervisor | None:
    """The supervisor that the caller runs under, if any."""
    return _SUPERVISOR.get()


def spawn(name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a root task: it runs until it is cancelled (`end`) or the daemon stops.

    Outside of `run`, as in a test of one component, its unexpected end is only logged.
    """
    task = asyncio.get_running_loop().create_task(coro, name=name)
    roof = supervisor()
    if roof is not None:
        roof.adopt(task)
    else:
        task.add_done_callback(_log_failure)
    return task


def let_end(task: asyncio.Task[Any] | None) -> None:
    """Allow a root task to come to its end by itself; that it must not fail stays."""
    roof = supervisor()
    if roof is not None and task is not None and not task.done():
        roof.leaving.add(task)


async def ended(task: asyncio.Task[Any], within_s: float, unless: asyncio.Event) -> None:
    """Wait until a task has ended, for so long at most and while `unless` is not set."""
    other = asyncio.ensure_future(unless.wait())
    try:
        both = (task, other)
        await asyncio.wait(both, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        other.cancel()


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended; what it raises has been reported before."""
    if task is None:
        return
    task.cancel()
    if task is not asyncio.current_task():
        await asyncio.wait((task,))


async def run(components: Sequence[Component], *, grace_s: float) -> int:
    """Run components until a signal or a failure; return the process's exit code.

    0 after a graceful stop; 1 when something failed or was stuck past the grace period, or past its
    last chance after a second signal.
    """
    roof = Supervisor()
    token = _SUPERVISOR.set(roof)
    requests = _Requests(roof)
    try:
        return await roof.run(components, grace_s)
    finally:
        requests.close()
        _SUPERVISOR.reset(token)


class _Requests:
    """Signals as requests to stop."""

    def __init__(self, roof: Supervisor) -> None:
        self._roof = roof
        self._last_s = float("-inf")
        for number in SIGNALS:
            handle(number, self._request)

    def close(self) -> None:
        """Ignore signals from now on, until the process ends."""
        for number in SIGNALS:
            ignore(number)

    def _request(self, number: int, _: object) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < SAME_S:
            return
        self._last_s = now_s
        log.info("%s: %s", signal.Signals(number).name, self._roof.request_stop())


async def _first(waits: "Sequence[asyncio.Future[Any]]", timeout_s: float) -> None:
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def report_end(name: str, error: BaseException | None) -> None:
    """Say in the log that a root task ended that never should."""
    if error is None:
        log.error("%s has ended unexpectedly", name)
    else:
        _report(f"{name} has failed", error)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        report_end(task.get_name(), task.exception())


def _report(what: str, error: BaseException) -> None:
    """Log an expected error by its text, any other with its traceback."""
    if isinstance(error, FlowvisError | OSError):
        log.error("%s: %s", what, error)
    else:
        log.error("%s: %s", what, error, exc_info=error)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Cancel tasks; return those that go on nevertheless."""
    for task in tasks:
        task.cancel()
    return (await asyncio.wait(tasks, timeout=LAST_CHANCE_S))[1] if tasks else set()


def _outcome(task: asyncio.Task[Any]) -> BaseException | None:
    """What a finished task raised; it may have been cancelled from within."""
    return asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()


def _position(task: asyncio.Task[Any]) -> str:
    """Name what a task waits at: `outer:line > inner:line`."""
    calls = []
    inner: Any = task.get_coro()
    while frame := getattr(inner, "cr_frame", None):
        calls.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        inner = inner.cr_await
    return " > ".join(calls)
