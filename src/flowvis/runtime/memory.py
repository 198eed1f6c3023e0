"""What memory the process may take, and who of its parts has which share of it.

limit            the cgroup's (v2: memory.max and memory.high, v1: memory.limit_in_bytes, of it and
                 all above it), half of the machine's where there is none, or `memory.limit`, if
                 the cgroup lets it have so much
- the process    interpreter, code, certificates
- a fifth        what passes through: copies on their way, the allocator's slack
= given out      to the parts, each of which keeps to its share by itself
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowvis.runtime.settings import option

log = logging.getLogger(__name__)

GIVEN_OUT = 0.8
LEAST = 0.25  # of the limit that is given out, however much the process takes by itself
SMALLEST = 32 << 20

_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"([0-9]{1,18})(Ki|Mi|Gi|Ti|k|M|G|T|)")


class ByteSize(int):
    """A number of bytes, written as Kubernetes writes quantities: `512Mi`, `2G`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one; ValueError says what it takes."""
        match = _SIZE.fullmatch(text)
        if match is None or int(match[1]) == 0:
            raise ValueError("is not a size: write it as 512Mi or 2Gi")
        size = int(match[1]) * (_UNITS | _DECIMAL)[match[2]]
        if size < SMALLEST:
            raise ValueError(f"is too small: at least {cls(SMALLEST)}")
        return cls(size)

    def __str__(self) -> str:
        for unit in ("Ti", "Gi", "Mi", "Ki"):
            if self and self % _UNITS[unit] == 0:
                return f"{int(self) // _UNITS[unit]}{unit}"
        return str(int(self))


@dataclass(frozen=True)
class MemorySettings:
    """What the process may take; its parts have shares of it."""

    limit: ByteSize | None = option(
        None,
        doc="Memory that the process may take: tables, texts and queues have shares of it, which "
        "they keep to. By default the limit of its cgroup (the container's), which is the most, "
        "else half of what the machine has",
        parse=ByteSize.parse,
        takes="a size such as 512Mi or 2Gi",
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes that the process may take, and who says so."""

    bytes: int
    source: str


def limit_of(configured: int | None, root: Path = Path("/")) -> Limit:
    """Return the limit that applies; `root` is where the file systems of the machine are.

    Beyond the least memory.max of all its cgroups the kernel ends the process, whatever is
    configured.
    """
    if configured is not None:
        least = min(_cgroup_limits(root, ("memory.max",)), default=configured)
        if least >= configured:
            return Limit(configured, "memory.limit")
        text = "memory.limit is %d MiB, but the cgroup (the container) has %d MiB: these count"
        log.warning(text, configured >> 20, least >> 20)
        return Limit(least, "cgroup")
    machine = _machine(root)
    limits = _cgroup_limits(root, ("memory.max", "memory.high"))
    found = [size for size in limits if size < machine]
    return Limit(min(found), "cgroup") if found else Limit(machine // 2, "half of the machine's")


def _cgroup_limits(root: Path, names: tuple[str, ...]) -> Iterator[int]:
    """Go through limits of our cgroup and those above it; `names` are version 2's."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            yield from _limits(root / "sys/fs/cgroup", path, names)
        elif "memory" in controllers.split(","):
            yield from _limits(root / "sys/fs/cgroup/memory", path, ("memory.limit_in_bytes",))


def _limits(mount: Path, path: str, names: tuple[str, ...]) -> Iterator[int]:
    """Read what is set at a cgroup and above; in a container the mount itself may be the cgroup."""
    here = mount / path.strip("/")
    while here.is_relative_to(mount) and ".." not in here.parts:
        for name in names:
            text = _read(here / name).strip()
            if text.isdecimal():  # `max` is none
                yield int(text)
        here = here.parent


def _machine(root: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) << 10 if match else 2 << 30


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def resident() -> int:
    """Return what the process takes at the moment, in bytes; 0 where the system does not tell."""
    parts = _read(Path("/proc/self/statm")).split()
    return int(parts[1]) * os.sysconf("SC_PAGE_SIZE") if len(parts) > 1 else 0


def _nothing() -> int:
    return 0


@dataclass(slots=True)
class Share:
    """What one part may take, and what it takes."""

    name: str
    limit: int
    taken: Callable[[], int] = field(default=_nothing)


class Budget:
    """A process's memory, given out in shares of a whole that are fixed at its start."""

    def __init__(self, limit: Limit, process_bytes: int, parts: Mapping[str, float]) -> None:
        """Give `parts` of what is left after what the process takes by itself; they sum up to 1."""
        if abs(sum(parts.values()) - 1) > 1e-9:
            raise ValueError(f"shares of {sum(parts.values())} in all: need 1")
        self.limit = limit
        self.given = int(max((limit.bytes - process_bytes) * GIVEN_OUT, limit.bytes * LEAST))
        self.shares = {name: Share(name, int(self.given * part)) for name, part in parts.items()}

    def __getitem__(self, name: str) -> int:
        return self.shares[name].limit

    def rows(self, name: str, row_bytes: int, wanted: int) -> int:
        """Return how many rows a table may have: what is wanted, if the share has room for it."""
        return max(min(wanted, self[name] // row_bytes), 1)

    def measure(self, name: str, taken: Callable[[], int]) -> None:
        """Say how much of its share a part takes."""
        self.shares[name].taken = taken

    def as_dict(self) -> dict[str, Any]:
        """The budget as the API shows it."""
        return {
            "limitBytes": self.limit.bytes,
            "limitSource": self.limit.source,
            "residentBytes": resident(),
            "shares": [
                {"name": share.name, "limitBytes": share.limit, "bytes": share.taken()}
                for share in self.shares.values()
            ],
        }


class BudgetCollector(Collector):
    """The budget as metrics."""

    def __init__(self, prefix: str, budget: Budget) -> None:
        self._prefix, self._budget = prefix, budget

    def collect(self) -> Iterable[Metric]:
        """Yield the limit, and what each part may take and takes."""
        budget, prefix = self._budget, f"{self._prefix}_memory"
        yield GaugeMetricFamily(
            f"{prefix}_limit_bytes", "Memory that the process may take", value=budget.limit.bytes
        )
        limits = GaugeMetricFamily(
            f"{prefix}_share_limit_bytes", "Memory that a part may take", labels=["share"]
        )
        taken = GaugeMetricFamily(
            f"{prefix}_share_bytes", "Memory that a part takes, about", labels=["share"]
        )
        for share in budget.shares.values():
            limits.add_metric([share.name], share.limit)
            taken.add_metric([share.name], share.taken())
        yield from (limits, taken)
