"""A network namespace of one's own that tracks connections."""

import ctypes
import os
import subprocess
from collections.abc import Iterator

import pytest

from flowvis.conntrack.tracking import RULE

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> None:
    if getattr(LIBC, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}; run the tests as root")


@pytest.fixture
def namespace() -> Iterator[None]:
    """For this thread and the processes that it starts."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("unshare", CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["nft", RULE], check=True)
        yield
    finally:
        call("setns", home, CLONE_NEWNET)
        os.close(home)
