"""Both daemons as processes, and signals that come at once: an orderly end, with all books."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from waiting import PATIENCE_S, block_until

AGGREGATOR = """
aggregatorTransportProtocol: tcp
listen: {address: 127.0.0.1, port: 0}
status: {address: 127.0.0.1, port: 0}
inventory: {kubernetes: {enable: false}}
controlSocket: PATH/control.sock
"""
EXPORTER = """
flowExporter: {flowCollectorAddr: "127.0.0.1:1:tcp"}
status: {address: 127.0.0.1, port: 0}
inventory: {kubernetes: {enable: false}}
state: {directory: PATH/state}
"""
AT_ONCE = [
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
    (*[signal.SIGHUP] * 20, signal.SIGINT, signal.SIGINT, *[signal.SIGHUP] * 20, signal.SIGTERM),
]
RUN = """
import runpy
import flowvis.runtime.component
flowvis.runtime.component.SAME_S = 3600  # a busy machine takes its time to send so many
runpy.run_module("MODULE", run_name="__main__", alter_sys=True)
"""
"""A daemon for which all of a test's signals come at once."""


@contextmanager
def daemon(
    module: str, text: str, path: Path, run: str = RUN
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A daemon that has started everything, and its log."""
    (path / "daemon.conf").write_text(text.replace("PATH", str(path)))
    log = path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                run.replace("MODULE", module),
                "--config",
                str(path / "daemon.conf"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "NODE_NAME": "node"},
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def check_an_orderly_end(
    process: subprocess.Popen[bytes], log: Path, ready: str, signals: tuple[signal.Signals, ...]
) -> str:
    block_until(lambda: ready in log.read_text(), log.read_text)
    for number in signals:
        process.send_signal(number)
    process.wait(PATIENCE_S)
    said = log.read_text()
    assert process.returncode == 0, said
    assert said.count(": stopping") == 1, said
    assert "Traceback" not in said, said
    assert "hurry" not in said, said
    return said


@pytest.mark.parametrize("signals", AT_ONCE, ids=["twice", "both", "storm"])
def test_signals_to_the_aggregator(tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    with daemon("flowvis.cli.aggregator", AGGREGATOR, tmp_path) as (process, log):
        block_until((tmp_path / "control.sock").exists, log.read_text)
        said = check_an_orderly_end(process, log, "collector listens", signals)
    assert said.count('msg="books of') == 2
    assert not (tmp_path / "control.sock").exists()


STUCK = """
import concurrent.futures, sys, time
import flowvis.runtime.process
from dataclasses import replace
from flowvis.cli.aggregator import COMMAND

flowvis.runtime.process.EXIT_S = 0.5

def build(settings):
    thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="disk")
    thread.submit(time.sleep, 3600)
    return COMMAND.build(settings)

sys.exit(replace(COMMAND, build=build).main())
"""


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    """One of an executor of a destination's own, as the flow log's whose disk hangs."""
    with daemon("", AGGREGATOR, tmp_path, STUCK) as (process, log):
        block_until(lambda: "collector listens" in log.read_text(), log.read_text)
        process.terminate()
        process.wait(PATIENCE_S)
        said = log.read_text()
    assert process.returncode == 1, said
    assert said.count('msg="books of') == 2
    assert "exiting, although these do not end: disk_0" in said


@pytest.mark.kernel
@pytest.mark.parametrize("signals", AT_ONCE, ids=["twice", "both", "storm"])
def test_signals_to_the_exporter(
    tracked: None, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    with daemon("flowvis.cli.exporter", EXPORTER, tmp_path) as (process, log):
        said = check_an_orderly_end(process, log, "no session", signals)
    assert said.count('msg="books of') >= 3
    assert any((tmp_path / "state").iterdir())


@pytest.mark.parametrize("name", ["exporter", "aggregator"])
def test_a_request_to_look_at_the_file_before_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    command = [sys.executable, "-m", f"flowvis.cli.{name}", "--config", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with path.open("w") as file:  # once it is about to read
            process.send_signal(signal.SIGHUP)
            file.write("nothing: known\n")
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "nothing: unknown key" in said


@pytest.mark.parametrize("name", ["exporter", "aggregator"])
def test_what_is_checked_goes_where_it_can(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", f"flowvis.cli.{name}", "check", "--config"]
    command.append(str(tmp_path / "file"))
    readable, unread = os.pipe()
    os.close(readable)
    full = os.open("/dev/full", os.O_WRONLY)
    said = [
        subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
        for output in (unread, full)
    ]
    os.close(unread)
    os.close(full)
    assert [(one.returncode, one.stderr) for one in said] == [
        (0, ""),
        (1, f"flow-{name}: [Errno 28] No space left on device\n"),
    ]
