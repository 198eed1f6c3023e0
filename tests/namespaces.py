"""Network namespaces for tests: one for the calling thread and the processes that it starts."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int) -> None:
    """Call a function of the C library that returns 0, or sets errno."""
    if getattr(LIBC, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}; run the tests as root")


def run(*command: str) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def new_namespace() -> Iterator[None]:
    """Enter a new network namespace with loopback up, and come back from it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("unshare", CLONE_NEWNET)
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        call("setns", home, CLONE_NEWNET)
        os.close(home)
