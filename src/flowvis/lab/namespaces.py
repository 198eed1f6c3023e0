"""Network namespaces inside the lab: one for each node, Pod and outside host."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import netns

from flowvis.errors import SystemRefused


def create(name: str) -> None:
    """Make a named network namespace; it lives as long as the lab's own /run."""
    netns.create(name)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Be in a network namespace; "" is the lab's own.

    It holds for the calling thread, and sockets stay where they were made: nothing in the body may
    await.
    """
    if not name:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.setns(name, flags=0)
        try:
            yield
        finally:
            netns.setns(home)
    finally:
        os.close(home)


def set_sysctls(name: str, values: Mapping[str, object]) -> None:
    """Set sysctls (`net.ipv4.ip_forward`) in a network namespace."""
    with inside(name):
        for key, value in values.items():
            try:
                Path("/proc/sys", *key.split(".")).write_text(str(value))
            except OSError as error:
                raise SystemRefused(
                    f"sysctl {key}={value} in {name or 'the lab'}: {error.strerror}"
                ) from error


def nft(name: str, arguments: Sequence[str], rules: str = "") -> str:
    """Run nft in a network namespace with `rules` on its standard input; return what it prints."""
    with inside(name):
        done = subprocess.run(
            ["nft", *arguments], input=rules, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemRefused(f"nft in {name or 'the lab'}: {done.stderr.strip()}")
    return done.stdout
