"""A shell in a lab that is running: its namespaces are found through its first process."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from flowvis.errors import SystemRefused
from flowvis.lab.isolation import RUN, environment

MARK = ["-m", "flowvis.lab"]
"""What the command line of a lab's init has after the interpreter."""


def shell(host: str, pid: int | None = None) -> int:
    """Become a shell in the lab: beside the aggregator, or in a node's or Pod's network.

    `pid` says which, where several labs run.
    """
    pid = _running(pid)
    world = Path(f"/proc/{pid}")
    hosts = world / "root" / RUN.relative_to("/") / "netns"
    network = f"--net={hosts / host}" if host else "--net"
    if host and not (hosts / host).exists():
        known = ", ".join(sorted(path.name for path in hosts.iterdir()))
        raise SystemRefused(f"the lab has no {host!r}: choose from {known}")
    inner = [] if (world / "ns/user").samefile("/proc/self/ns/user") else ["--user"]
    inner += ["--preserve-credentials"] if inner else []
    command = ["nsenter", "--target", str(pid), "--mount", "--pid", *inner, network]
    os.execvpe("nsenter", [*command, "--", *login()], inner_environment())  # noqa: S606  a shell


def login() -> list[str]:
    """Return the command of the inner_environment's shell."""
    return [os.environ.get("SHELL", "/bin/sh")]


def inner_environment() -> dict[str, str]:
    """Return an environment in which flowctl is found, and finds the lab's aggregator."""
    kept = {name: value for name, value in environment().items() if name != "XDG_RUNTIME_DIR"}
    commands = os.pathsep.join((str(Path(sys.executable).parent), kept["PATH"]))
    return {**kept, "PATH": commands}


def _running(wanted: int | None) -> int:
    """Return the first process of the lab that runs, as the host numbers it."""
    found = sorted(_labs())
    if not found:
        raise SystemRefused("no lab is running: start one with `flowctl lab demo --keep`")
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted not in found:
        raise SystemRefused(
            f"labs are running: choose one with --pid {' or '.join(map(str, found))}"
        )
    return wanted


def _labs() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if words[1:3] == MARK and not (entry / "ns/pid").samefile("/proc/self/ns/pid"):
                yield int(entry.name)
        except OSError:  # it ended, or is not ours to look at
            continue
