"""A process in a memory cgroup of its own, version 1 or 2, which is removed with it."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEBIBYTE = 1 << 20
REMOVAL_S = 10.0


@dataclass(frozen=True)
class Confinement:
    """One cgroup. `command` starts a program inside of it, with all its memory counted there."""

    path: Path
    version: int

    def command(self, program: list[str]) -> list[str]:
        """Return a command line that enters the cgroup and then is `program`, with its pid."""
        enter = f'echo $$ > "{self.path}/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, "sh", *program]

    def peak_mb(self) -> float:
        """The most that was in use at once: heap, stacks, sockets, page cache."""
        name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
        return round(int((self.path / name).read_text()) / MEBIBYTE, 1)


@contextlib.contextmanager
def confinement(limit_mb: int) -> Iterator[Confinement]:
    """Make a cgroup with a limit of memory; PermissionError says why there can be none."""
    made = _make(limit_mb)
    try:
        yield made
    finally:
        _remove(made.path)


def _make(limit_mb: int) -> Confinement:
    own = _own_paths()
    if "memory" in own:
        folder, version = ROOT / "memory" / own["memory"], 1
        limit = "memory.limit_in_bytes"
    elif "" in own:
        folder, version = _delegating(ROOT / own[""]), 2
        limit = "memory.max"
    else:
        raise PermissionError("no cgroups here: /proc/self/cgroup has no hierarchy for memory")
    path = folder / f"flowvis-{os.getpid()}-{time.monotonic_ns()}"
    try:
        path.mkdir()
    except OSError as error:
        raise PermissionError(
            f"cannot make a cgroup in {folder}: {error.strerror}; run as root, where cgroups may "
            "be written to (a container needs them delegated)"
        ) from error
    try:
        (path / limit).write_text(str(limit_mb * MEBIBYTE))
        with contextlib.suppress(OSError):  # no swap to go to, where it is accounted for
            name = "memory.memsw.limit_in_bytes" if version == 1 else "memory.swap.max"
            (path / name).write_text(str(limit_mb * MEBIBYTE if version == 1 else 0))
    except OSError as error:
        path.rmdir()
        raise PermissionError(f"{path / limit} cannot be set: {error.strerror}") from error
    return Confinement(path, version)


def _own_paths() -> dict[str, str]:
    """The cgroup of this process by controller; version 2 has the name ""."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path.lstrip("/")
    return found


def _delegating(own: Path) -> Path:
    """Return the nearest cgroup of version 2 whose children may have a limit of memory."""
    for folder in (own, *own.parents):
        with contextlib.suppress(OSError):
            control = folder / "cgroup.subtree_control"
            if "memory" in control.read_text().split():
                return folder
            control.write_text("+memory")
            return folder
        if folder == ROOT:
            break
    raise PermissionError(
        f"no cgroup above {own} gives its children the memory controller: run as root outside of "
        "a container, or delegate it (systemd-run --scope -p Delegate=yes)"
    )


def _remove(path: Path) -> None:
    """Remove a cgroup when the kernel has seen its last process go."""
    deadline = time.monotonic() + REMOVAL_S
    while True:
        try:
            path.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
