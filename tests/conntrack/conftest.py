"""A network namespace of one's own, and both variants of the decoder."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from types import ModuleType

import pytest

from flowvis.conntrack.source import Conntrack
from flowvis.conntrack.tracking import RULE
from flowvis.native import conntrack as compiled
from flowvis.native import conntrack_reference as reference

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


@pytest.fixture
def tracked(namespace: None) -> None:
    """A namespace that tracks connections."""
    run("nft", RULE)


@pytest.fixture
def kernel(tracked: None) -> Iterator[Conntrack]:
    """An open source in a namespace that tracks connections."""
    source = Conntrack()
    source.open()
    try:
        assert source.prepare() == []
        yield source
    finally:
        source.close()


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    return request.param
