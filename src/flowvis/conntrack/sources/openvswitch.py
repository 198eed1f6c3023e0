"""Connections of Open vSwitch's userspace datapath, which the kernel knows nothing of.

ovs-vswitchd is asked as `ovs-appctl dpctl/dump-conntrack -m -s` asks it: by JSON-RPC over its
control socket (lib/unixctl.c), without a program between. It keeps neither counters nor start times
of connections, and reports no events.
"""

import contextlib
import json
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from flowvis.conntrack.entries import Entries
from flowvis.conntrack.sources.answer import Answer
from flowvis.conntrack.sources.protocol import ConntrackStats
from flowvis.errors import SystemRefused
from flowvis.native import LineDecoder

RUN = Path("/var/run/openvswitch")
"""Where ovs-vswitchd has its pid file and its control socket."""

DATAPATH = "netdev@"
"""What names of userspace datapaths begin with."""

TIMEOUT_S = 30.0  # without a byte of the answer: the switch works it out before it begins
MOST_BYTES = 512 << 20  # of an answer: two million connections
PIECE_BYTES = 1 << 20

CLOSED_S = {"TIME_WAIT": 30, "CLOSE": 30}
UNANSWERED_S = {1: 60, 6: 30, 17: 60, 58: 60, 132: 60}
"""As it keeps them by default: the timeouts of lib/conntrack.c and lib/ct-dpif.h."""

NO_COUNTERS = (
    "Open vSwitch's userspace datapath counts no packets and bytes of connections and keeps no "
    "start times: records have 0, and begin when a poll shows the connection first"
)


class OpenVSwitch:
    """A `Source`: the connections of one datapath."""

    def __init__(
        self, zones: Sequence[int] | None = None, *, run: Path = RUN, datapath: str = ""
    ) -> None:
        """List these zones, or all; `run` is the directory of the switch, or its control socket.

        Without a name, the datapath is the one in user space.
        """
        self.stats = ConntrackStats()
        self.needs_resync = False
        self.unread = False
        self.counts = False
        self._zones = None if zones is None else sorted(set(zones))
        self._run = run
        self._wanted = datapath
        self._datapath = ""
        self._asking: socket.socket | None = None  # a switch that was restarted has another one
        self._closed = False

    def open(self) -> None:
        """Find the datapath; SystemRefused says what is missing. Blocks while it is asked for."""
        self._closed = False
        self._datapath = self._wanted or self._userspace()

    def close(self) -> None:
        """Ask nothing more; what another thread waits for ends without an answer."""
        self._closed = True
        if (asking := self._asking) is not None:
            with contextlib.suppress(OSError):  # it has its answer
                asking.shutdown(socket.SHUT_RDWR)

    def prepare(self) -> list[str]:
        """Say what will be missing."""
        return [NO_COUNTERS]

    def turned_off(self) -> list[str]:
        """There is nothing to turn off."""
        return []

    def count(self) -> int:
        """How many connections it tracks, of all zones."""
        return self._number("dpctl/ct-get-nconns")

    def maximum(self) -> int:
        """How many it would track."""
        return self._number("dpctl/ct-get-maxconns")

    def closed_s(self) -> dict[str, int]:
        """For how many seconds it keeps closed TCP connections, by state."""
        return CLOSED_S

    def unanswered_s(self) -> dict[int, int]:
        """For how many seconds it keeps connections that nobody answers, by protocol."""
        return UNANSWERED_S

    def poll(self) -> Entries:
        """All connections of the zones; blocks while the switch lists them."""
        decoder = LineDecoder()
        options = ["-m", "-s", self._datapath]
        for zone in [None] if self._zones is None else self._zones:
            chosen = [] if zone is None else [f"zone={zone}"]
            self._hear(decoder.feed_lines, "dpctl/dump-conntrack", *options, *chosen)
        self.stats.polls += 1
        self.stats.entries += len(decoder)
        self.stats.malformed_entries += decoder.malformed
        return Entries.of(decoder.take())

    def event_fileno(self) -> int:
        """There is none."""
        raise ValueError("Open vSwitch reports no events of connections")

    def read_events(self) -> Entries:
        """There are none."""
        return Entries.none()

    def _userspace(self) -> str:
        found = self._ask("dpctl/dump-dps").split()
        names = [name for name in found if name.startswith(DATAPATH)]
        if len(names) == 1:
            return names[0]
        there = ", ".join(found) or "none"
        if names:
            raise SystemRefused(
                f"Open vSwitch has several userspace datapaths ({there}): name one in "
                "conntrack.ovs.datapath"
            )
        raise SystemRefused(
            f"Open vSwitch has no userspace datapath (datapaths: {there}): connections of its "
            "kernel datapath are the kernel's, set conntrack.source: kernel"
        )

    def _number(self, command: str) -> int:
        answer = self._ask(command, self._datapath).strip()
        if not (answer.isascii() and answer.isdigit()):
            raise SystemRefused(f"Open vSwitch answers {command} with {answer[:80]!r}, no number")
        return int(answer)

    def _ask(self, command: str, *parameters: str) -> str:
        """Return what a command prints; SystemRefused says why there is nothing."""
        printed: list[bytes] = []
        self._hear(printed.append, command, *parameters)
        return b"".join(printed).decode()

    def _hear(self, take: Callable[[bytes], object], command: str, *parameters: str) -> None:
        """Have what a command prints taken as it comes, in whole lines.

        SystemRefused says why there is nothing, or why what was taken is not all.
        """
        path = self._socket()
        try:
            answer = self._answer(
                path, {"id": 0, "method": command, "params": parameters}, Answer(take)
            )
        except OSError as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
            raise SystemRefused(
                f"Open vSwitch cannot be asked at {path}: {why}: does ovs-vswitchd run there, and "
                "may we (its directory mounted; root, and DAC_OVERRIDE where it is another user's)?"
            ) from error
        match answer:
            case {"error": str(refused)}:
                raise SystemRefused(f"Open vSwitch refuses {command}: {refused.strip()}")
            case {"result": str()}:
                return
        raise SystemRefused(f"{path}: what answers does not speak as ovs-vswitchd does")

    def _socket(self) -> Path:
        """Return where the switch listens now: the name has its process's number."""
        try:
            if stat.S_ISSOCK(self._run.stat().st_mode):
                return self._run
            pid = (self._run / "ovs-vswitchd.pid").read_text(errors="replace").strip()
        except OSError as error:
            raise SystemRefused(
                f"{error.filename}: {error.strerror}: does Open vSwitch run on this node, and is "
                "its directory here (conntrack.ovs.run)?"
            ) from error
        if not (pid.isascii() and pid.isdigit()):  # it begins just now
            raise SystemRefused(
                f"{self._run}/ovs-vswitchd.pid: {pid[:80]!r} is no process's number"
            )
        return self._run / f"ovs-vswitchd.{pid}.ctl"

    def _answer(self, path: Path, request: dict[str, object], answer: Answer) -> object:
        """Send a request; return the answer. OSError, also where it is too long or is none."""
        received = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(TIMEOUT_S)
            self._asking = sock
            sock.connect(str(path))
            if self._closed:  # before there was anything to end
                raise OSError(0, "it is not to be asked any more")
            sock.sendall(json.dumps(request).encode())
            while piece := sock.recv(PIECE_BYTES):
                received += len(piece)
                if received > MOST_BYTES:
                    raise OSError(0, f"an answer of more than {MOST_BYTES >> 20} MiB")
                try:
                    whole = answer.feed(piece)
                except ValueError as error:
                    raise OSError(0, f"an answer that is none: {error}") from error
                if whole is not None:  # the switch keeps the connection open
                    return whole
        raise OSError(0, "the answer ends before it is whole")
