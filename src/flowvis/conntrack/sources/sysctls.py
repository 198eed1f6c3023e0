"""The kernel's settings for connection tracking, per network namespace."""

from dataclasses import dataclass
from pathlib import Path

from flowvis.conntrack.names import CLOSED_S, UNANSWERED_S
from flowvis.errors import SystemRefused

ROOT = Path("/proc/sys/net/netfilter")
"""Shows the network namespace of the thread that looks."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A setting that should be 1 and must not be 0, and what is lost while it is."""

    name: str
    without: str


ACCOUNTING = Switch("nf_conntrack_acct", "flows have no packets and bytes")
TIMESTAMPS = Switch("nf_conntrack_timestamp", "a flow starts when it is first seen")
EVENTS = Switch("nf_conntrack_events", "connections shorter than the poll interval are missed")
"""2, the default since Linux 5.19, is 1 for connections that begin while somebody listens: those
that begin while we restart would end without a word."""


_UNANSWERED = {
    1: "nf_conntrack_icmp_timeout",
    6: "nf_conntrack_tcp_timeout_syn_sent",
    17: "nf_conntrack_udp_timeout",
    58: "nf_conntrack_icmpv6_timeout",
    132: "nf_conntrack_sctp_timeout_cookie_wait",
}
"""By protocol: the setting that says for how long what was never answered is kept."""


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

    def closed_s(self) -> dict[str, int]:
        """For how many seconds closed TCP connections are kept, by state: as CLOSED_S."""
        return {
            state: self._seconds(f"nf_conntrack_tcp_timeout_{state.lower()}", usual)
            for state, usual in CLOSED_S.items()
        }

    def unanswered_s(self) -> dict[int, int]:
        """For how many seconds connections without an answer are kept, by protocol."""
        return {
            protocol: self._seconds(name, UNANSWERED_S[protocol])
            for protocol, name in _UNANSWERED.items()
        }

    def _seconds(self, name: str, usual: int) -> int:
        try:
            return self._number(name)
        except (SystemRefused, ValueError):
            return usual

    def enable(self, switch: Switch) -> str | None:
        """Turn a switch on; what is lost and the remedy if it is off and may not be turned on.

        Only connections that begin afterwards are counted, stamped or reported.
        """
        path = self._root / switch.name
        value = "0"
        try:
            value = path.read_text().strip()
            if value != "1":
                path.write_text("1\n")
        except FileNotFoundError:
            return f"{path} does not exist, so {switch.without}: run `modprobe nf_conntrack`"
        except OSError as error:
            if value == "0":
                return (
                    f"net.netfilter.{switch.name} is 0 and may not be set ({error.strerror}), so "
                    f"{switch.without}: run `sysctl -w net.netfilter.{switch.name}=1` on this "
                    "node, or let flow-exporter write to /proc/sys (in Kubernetes: privileged)"
                )
        return None

    def is_off(self, switch: Switch) -> bool:
        """Whether a switch is there and off."""
        try:
            return (self._root / switch.name).read_text().strip() == "0"
        except OSError:
            return False

    def _number(self, name: str) -> int:
        path = self._root / name
        try:
            return int(path.read_text())
        except OSError as error:
            raise SystemRefused(
                f"cannot read {path} ({error.strerror}): is nf_conntrack loaded?"
            ) from error
