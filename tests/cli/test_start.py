"""The first process of a container, asked to end while it is still being imported."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowvis.lab.isolation import environment, probe
from waiting import PATIENCE_S, block_until

pytestmark = pytest.mark.kernel

SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
    "scripts"
]
SLOW = """
import importlib, os, sys, time

class Slow:
    '''An import that takes its time, as all of them do on a busy node.'''
    def find_spec(name, path, target=None):
        if name in {"argparse", "flowvis.cli.daemon"} and what == "imports":
            os.write(1, b"begun")
            while True:
                time.sleep(0.01)

assert os.getpid() == 1
sys.meta_path.insert(0, Slow)
_, what, script, *sys.argv[1:] = sys.argv
module, _, function = script.partition(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""


@contextmanager
def first(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A script that is the first process of its namespace; with its number out here."""
    mapping = ["--user", "--map-root-user"] * probe()
    command = ["unshare", *mapping, "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-c", SLOW, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            yield process, int(block_until(lambda: children.read_text().split())[0])
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_ends_while_it_is_imported(script: str, number: signal.Signals) -> None:
    with first("imports", SCRIPTS[script]) as (process, pid):
        assert process.stdout is not None
        assert process.stdout.read(5) == b"begun"
        os.kill(pid, number)
        assert process.wait(PATIENCE_S) == 128 + number


@pytest.mark.parametrize("script", ["flow-exporter", "flow-aggregator"])
def test_ends_while_it_reads_its_file(tmp_path: Path, script: str) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    with (
        first("file", SCRIPTS[script], "--config", str(path)) as (process, pid),
        path.open("wb", buffering=0) as file,
    ):
        # Python runs no handler between a call's beginning and that of the system call in it: a
        # signal of that moment would wait for all of a file that never ends.
        file.write(b"#")
        block_until(lambda: waits_for_more(pid, file.fileno()))
        os.kill(pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def waits_for_more(pid: int, pipe: int) -> bool:
    """Whether a process that reads a pipe has taken all that is in it, and sleeps."""
    (unread,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]  # proc(5)
    return unread == 0 and state == "S"
