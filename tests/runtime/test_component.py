"""Each case is a real process: signals, exit codes and what the log says."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flowvis.errors import SystemRefused
from flowvis.runtime import component
from flowvis.runtime.component import SAME_S, end, ended, let_end, spawn, supervisor
from flowvis.runtime.process import serve
from waiting import PATIENCE_S

PRELUDE = """
import asyncio, logging, sys, time
from flowvis.errors import SystemRefused
from flowvis.runtime.component import end, spawn
from flowvis.runtime.process import serve
import flowvis.runtime.component
import flowvis.runtime.process

logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)

def say(text):
    print(text, flush=True)

class Part:
    def __init__(self, name, stop_s=0.0, task=None):
        self.name, self.stop_s, self.task = name, stop_s, task
    async def start(self):
        say(f"start {self.name}")
        if self.task:
            self.root = spawn(f"{self.name} task", self.task())
    async def stop(self):
        say(f"stop {self.name}")
        await asyncio.sleep(self.stop_s)
        say(f"stopped {self.name}")

class Ready(Part):
    async def start(self):
        say("ready")

async def forever():
    await asyncio.Event().wait()
"""


@contextmanager
def daemon(script: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONUNBUFFERED="1"),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_until_ready(process: subprocess.Popen[str], mark: str = "ready") -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if lines[-1] == mark:
            return lines
    raise AssertionError(f"never {mark}: {lines}")


def rest(process: subprocess.Popen[str]) -> list[str]:
    return process.communicate(timeout=PATIENCE_S)[0].splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_starts_in_order_stops_in_reverse(number: signal.Signals) -> None:
    with daemon(
        "sys.exit(serve([Part('a', task=forever), Part('b'), Ready('c')], grace_s=5))"
    ) as process:
        assert lines_until_ready(process) == ["start a", "start b", "ready"]
        process.send_signal(number)
        assert rest(process) == [
            f"{number.name}: stopping",
            *("stop c", "stopped c", "stop b", "stopped b", "stop a", "stopped a"),
        ]
        assert process.returncode == 0


def test_second_signal_means_now() -> None:
    script = "sys.exit(serve([Part('a'), Part('b', 3600), Ready('c')], grace_s=3600))"
    with daemon(script) as process:
        lines_until_ready(process)
        process.terminate()
        lines_until_ready(process, "stop b")
        time.sleep(SAME_S)
        process.terminate()
        said = rest(process)
        assert said[0] == "SIGTERM: in a hurry"
        assert said[1].startswith("b has not stopped in ")
        assert said[2:] == ["stop a", "stopped a"]
        assert process.returncode == 1


def test_a_third_signal_means_now() -> None:
    parts = ", ".join(f"Part({name!r}, 60)" for name in "abcdef")
    with daemon(f"sys.exit(serve([{parts}, Ready('g')], grace_s=60))") as process:
        lines_until_ready(process)
        process.terminate()
        lines_until_ready(process, "stop f")
        time.sleep(SAME_S)
        process.terminate()
        lines_until_ready(process, "SIGTERM: in a hurry")
        time.sleep(SAME_S)
        process.terminate()
        assert process.stdout is not None
        said = list(process.stdout)
        assert said[-1].startswith("stopped at once by a third signal; not stopped: a, b")
        process.wait()
        assert process.returncode == 1


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGINT, signal.SIGINT),
        (*[signal.SIGHUP] * 50, signal.SIGTERM, *[signal.SIGHUP] * 50, signal.SIGTERM),
    ],
    ids=lambda numbers: "-".join(number.name for number in numbers[-4:]),
)
def test_signals_at_once_are_one(numbers: tuple[signal.Signals, ...]) -> None:
    """Also those that come when all has stopped, while the process ends."""
    script = """
        flowvis.runtime.component.SAME_S = 3600  # a busy machine takes its time to send so many
        sys.exit(serve([Part('a', 0.2), Part('b', 0.2), Ready('c')], grace_s=60))
        """
    with daemon(script) as process:
        lines_until_ready(process)
        for number in numbers:
            process.send_signal(number)
        said = lines_until_ready(process, "stopped a")
        while process.poll() is None:
            process.send_signal(numbers[0])
        assert process.returncode == 0
        assert said[0].endswith(": stopping")
        assert said[1:] == ["stop c", "stopped c", "stop b", "stopped b", "stop a", "stopped a"]
        assert rest(process) == []


def test_a_flood_of_signals_is_no_more_than_requests() -> None:
    """Several per step of the interpreter: handlers must not nest, and none may kill."""
    flood = "import os, sys\nwhile True: os.kill(int(sys.argv[1]), 15)"
    with daemon("sys.exit(serve([Part('a', 0.5), Ready('b')], grace_s=60))") as process:
        lines_until_ready(process)
        senders = [
            subprocess.Popen(
                [sys.executable, "-c", flood, str(process.pid)], stderr=subprocess.PIPE
            )
            for _ in range(4)
        ]
        said = rest(process)
        for sender in senders:
            sender.communicate()
    assert said[0] == "SIGTERM: stopping"
    assert not [line for line in said if "Traceback" in line or "Error" in line], said
    assert process.returncode == any("at once" in line or "not stopped" in line for line in said)


def test_stuck_component_is_named_and_the_others_still_stop() -> None:
    with daemon("sys.exit(serve([Part('a'), Part('b', 60), Ready('c')], grace_s=0.3))") as process:
        lines_until_ready(process)
        process.terminate()
        said = rest(process)
        assert any(
            re.match(r"b has not stopped in \d+\.\d s, stuck in Part.stop", line) for line in said
        ), said
        assert "stopped b" not in said
        assert said[-1] == "stopped a"
        assert process.returncode == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise SystemRefused('no such thing: make one')", "b task has failed: no such thing"),
        ("raise ValueError('wrong')", "b task has failed: wrong"),
        ("return", "b task has ended unexpectedly"),
    ],
)
def test_root_task_that_ends_stops_all(body: str, text: str) -> None:
    with daemon(
        f"""
        async def ends():
            await asyncio.sleep(0.5)
            {body}
        sys.exit(serve([Part('a'), Part('b', task=ends), Ready('c')], grace_s=5))
        """
    ) as process:
        lines_until_ready(process)
        said = rest(process)
        assert any(line.startswith(text) for line in said), said
        assert ("Traceback (most recent call last):" in said) == ("ValueError" in body)
        assert said[-1] == "stopped a"
        assert process.returncode == 1


def test_component_that_cannot_start_stops_those_before_it() -> None:
    with daemon(
        """
        class Broken(Part):
            async def start(self):
                raise SystemRefused("port 4739 is in use: stop the other")
        sys.exit(serve([Part('a'), Broken('b'), Part('c')], grace_s=5))
        """
    ) as process:
        assert rest(process) == [
            "start a",
            "b cannot start: port 4739 is in use: stop the other",
            "stop a",
            "stopped a",
        ]
        assert process.returncode == 1


def test_signal_while_starting() -> None:
    with daemon(
        """
        class Slow(Part):
            async def start(self):
                say("ready")
                await asyncio.sleep(60)
        sys.exit(serve([Part('a'), Slow('b'), Part('c')], grace_s=5))
        """
    ) as process:
        lines_until_ready(process)
        process.terminate()
        assert rest(process) == ["SIGTERM: stopping", "stop a", "stopped a"]
        assert process.returncode == 0


def test_failing_stop_is_reported_and_the_rest_stops() -> None:
    with daemon(
        """
        class Broken(Part):
            async def stop(self):
                raise RuntimeError("lost it")
        sys.exit(serve([Part('a'), Broken('b'), Ready('c')], grace_s=5))
        """
    ) as process:
        lines_until_ready(process)
        process.terminate()
        said = rest(process)
        assert "b did not stop cleanly: lost it" in said
        assert said[-1] == "stopped a"
        assert process.returncode == 1


def test_stop_and_task_that_will_not_be_cancelled() -> None:
    with daemon(
        """
        async def stubborn():
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass
        class Stubborn(Part):
            async def stop(self):
                await stubborn()
        flowvis.runtime.process.EXIT_S = 0.3
        flowvis.runtime.component.LAST_CHANCE_S = 0.2
        sys.exit(serve([Part('a', task=stubborn), Stubborn('b'), Ready('c')], grace_s=0.2))
        """
    ) as process:
        lines_until_ready(process)
        process.terminate()
        said = "\n".join(rest(process))
        assert re.search(r"b has not stopped in \d+\.\d s, stuck in Stubborn.stop:", said)
        assert " > stubborn:" in said
        assert "stopped a" in said
        assert "a task does not end, stuck in stubborn" in said
        assert process.returncode == 1


def test_stop_that_is_cancelled_from_within() -> None:
    with daemon(
        """
        class Careless(Part):
            async def stop(self):
                self.root = asyncio.create_task(forever())
                self.root.cancel()
                await self.root
        sys.exit(serve([Part('a'), Careless('b'), Ready('c')], grace_s=5))
        """
    ) as process:
        lines_until_ready(process)
        process.terminate()
        said = rest(process)
        assert "b did not stop cleanly: cancelled" in said
        assert said[-1] == "stopped a"
        assert process.returncode == 1


def test_root_tasks_left_over_are_ended_and_may_end_while_stopping() -> None:
    with daemon(
        """
        async def left():
            try:
                await asyncio.Event().wait()
            finally:
                say("left ended")
        class Ends(Part):
            async def start(self):
                self.go = asyncio.Event()
                self.root = spawn("ends", self.go.wait())
            async def stop(self):
                self.go.set()
                await self.root
        sys.exit(serve([Part('a', task=left), Ends('b'), Ready('c')], grace_s=5))
        """
    ) as process:
        lines_until_ready(process)
        process.terminate()
        assert rest(process)[-2:] == ["stopped a", "left ended"]
        assert process.returncode == 0


def test_stuck_worker_thread_does_not_keep_the_process() -> None:
    with daemon(
        """
        flowvis.runtime.process.EXIT_S = 0.3
        class Blocks(Part):
            async def start(self):
                self.call = asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
                say("ready")
        sys.exit(serve([Blocks('a')], grace_s=0.2))
        """
    ) as process:
        lines_until_ready(process)
        process.terminate()
        assert rest(process)[-1].startswith("exiting, although these do not end: uvloop_0")
        assert process.returncode == 1


def test_without_a_supervisor_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("wrong")

    async def main() -> None:
        assert supervisor() is None
        task = spawn("lonely", fails())
        await asyncio.wait((task,))
        await end(task)
        await end(spawn("fine", asyncio.sleep(60)))
        await end(None)

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == ["lonely has failed: wrong"]


class Part:
    """A component of this process, so that coverage sees what `run` does."""

    def __init__(self, name: str, said: list[str], *, stop_s: float = 0.0) -> None:
        self.name, self.said, self.stop_s = name, said, stop_s

    async def start(self) -> None:
        self.said.append(f"start {self.name}")

    async def stop(self) -> None:
        self.said.append(f"stop {self.name}")
        await asyncio.sleep(self.stop_s)


class Signals(Part):
    """Sends signals to this process as soon as everything runs."""

    signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    async def start(self) -> None:
        spawn("signals", self.kill())

    async def kill(self) -> None:
        for number in self.signals:
            await asyncio.sleep(0.02)  # apart: two at once may be one
            os.kill(os.getpid(), number)
        await asyncio.Event().wait()


def test_in_this_process() -> None:
    said: list[str] = []
    components = [Part("a", said), Part("b", said), Signals("c", said)]
    assert serve(components, grace_s=5) == 0
    assert said == ["start a", "start b", "stop c", "stop b", "stop a"]


def test_in_this_process_stuck_and_cut_short(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    assert serve([Part("a", said, stop_s=60), Signals("c", said)], grace_s=0.1) == 1
    assert "a has not stopped in" in caplog.text
    assert "stuck in Part.stop" in caplog.text
    monkeypatch.setattr(component, "SAME_S", 0.0)
    twice = Signals("c", said)
    twice.signals = (signal.SIGINT, signal.SIGTERM)
    assert serve([Part("a", said), Part("b", said, stop_s=60), twice], grace_s=60) == 1
    assert "b has not stopped in" in caplog.text
    assert said[-1] == "stop a"


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("wrong"), None])
def test_in_this_process_failures(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Part):
        async def start(self) -> None:
            spawn("root", self.root())

        async def root(self) -> None:
            if error is not None:
                raise error

    class CannotStart(Part):
        async def start(self) -> None:
            raise SystemRefused("no such thing: make one")

    said: list[str] = []
    assert serve([Part("a", said), Fails("b", said)], grace_s=5) == 1
    assert ("root has failed" if error else "root has ended unexpectedly") in caplog.text
    assert serve([Part("a", said), CannotStart("b", said)], grace_s=5) == 1
    assert "b cannot start: no such thing: make one" in caplog.text
    assert said == ["start a", "stop b", "stop a", "start a", "stop a"]


@pytest.mark.parametrize("error", [None, ValueError("wrong")])
def test_a_task_that_may_end_must_not_fail(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Ends(Part):
        async def start(self) -> None:
            self.task = spawn("errand", self.errand())
            let_end(self.task)

        async def errand(self) -> None:
            if error is not None:
                raise error

    said: list[str] = []
    assert serve([Ends("a", said), Signals("b", said)], grace_s=5) == int(error is not None)
    assert ("errand has failed" in caplog.text) is (error is not None)
    assert "ended unexpectedly" not in caplog.text


async def test_waiting_for_an_end() -> None:
    stop, never = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(stop.wait())
    await ended(task, 0.01, never)
    assert not task.done()
    hurry = asyncio.Event()
    hurry.set()
    await asyncio.wait_for(ended(task, 3600, hurry), PATIENCE_S)
    assert not task.done()
    stop.set()
    await asyncio.wait_for(ended(task, 3600, never), PATIENCE_S)
    assert task.done()
