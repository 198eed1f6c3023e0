"""The kernel's settings for connection tracking, per network namespace."""

from dataclasses import dataclass
from pathlib import Path

from flowvis.errors import SystemRefused

ROOT = Path("/proc/sys/net/netfilter")
"""Shows the network namespace of the thread that looks."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A setting that must not be 0, and what is lost while it is."""

    name: str
    without: str


ACCOUNTING = Switch("nf_conntrack_acct", "flows have no packets and bytes")
TIMESTAMPS = Switch("nf_conntrack_timestamp", "a flow starts when it is first seen")
EVENTS = Switch("nf_conntrack_events", "connections shorter than the poll interval are missed")


class Sysctls:
    """Reads and sets them below `root`."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def count(self) -> int:
        """How many connections the kernel tracks in this namespace."""
        return self._number("nf_conntrack_count")

    def maximum(self) -> int:
        """How many it would track; what comes after is dropped."""
        return self._number("nf_conntrack_max")

    def enable(self, switch: Switch) -> str | None:
        """Turn a switch on if it is off; what is lost and the remedy if that may not be.

        Only connections that begin afterwards are counted or stamped.
        """
        path = self._root / switch.name
        try:
            if path.read_text().strip() != "0":
                return None
            path.write_text("1\n")
        except FileNotFoundError:
            return f"{path} does not exist, so {switch.without}: run `modprobe nf_conntrack`"
        except OSError as error:
            return (
                f"net.netfilter.{switch.name} is 0 and may not be set ({error.strerror}), so "
                f"{switch.without}: run `sysctl -w net.netfilter.{switch.name}=1` on this node, "
                "or let flow-exporter write to /proc/sys (in Kubernetes: privileged)"
            )
        return None

    def _number(self, name: str) -> int:
        path = self._root / name
        try:
            return int(path.read_text())
        except OSError as error:
            raise SystemRefused(
                f"cannot read {path} ({error.strerror}): is nf_conntrack loaded?"
            ) from error
