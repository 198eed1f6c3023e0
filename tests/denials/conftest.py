"""A network namespace of one's own, and both variants of the index of prefixes."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from types import ModuleType

import pytest

from flowvis.denials import nflog
from flowvis.native import flows as compiled
from flowvis.native import flows_reference as reference

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> None:
    if getattr(LIBC, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}; run the tests as root")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[None]:
    """A new network namespace with loopback up, for this thread and its children."""
    with open("/proc/thread-self/ns/net") as home:  # noqa: PTH123  setns wants a descriptor
        call("unshare", CLONE_NEWNET)
        try:
            run("ip", "link", "set", "lo", "up")
            yield
        finally:
            call("setns", home.fileno(), CLONE_NEWNET)


@pytest.fixture(params=[compiled, reference], ids=["compiled", "reference"])
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The decoder uses the compiled index, or its reference."""
    module: ModuleType = request.param
    monkeypatch.setattr(nflog, "FlowIndex", module.FlowIndex)
    return module
