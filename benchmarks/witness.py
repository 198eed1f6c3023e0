"""What an honest cluster notices of an attack: one good exporter, a sink, and the probes.

The exporter sends a record every 20 ms, each a message of its own, by a schedule that does not
wait: what a peer makes it wait for counts as latency. The sink is an IPFIX collector that the
aggregator sends to; a record's latency is from when it was due to be sent until it is there. Some
times a second a newcomer opens a session, sends one record and ends it.
"""

import contextlib
import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.peer import Dial, Records
from flowvis.cli.client import ControlClient
from flowvis.errors import FlowvisError
from flowvis.fields import EXPORTED
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.native import StringTable

STEADY_S = 0.02
NEWCOMER_S = 0.23  # not in step with the aggregator's ticks, two a second
PROBE_S = 0.1
PROBE_PATIENCE_S = 1.0  # a kubelet's, unless told otherwise
AGAIN_S = 0.1
SAID_AGAIN_S = 2.0

STEADY, NEWCOMERS = b"\x0a\x63", b"\x0a\x62"
"""The first half of the clients' addresses: 10.99 and 10.98."""


@dataclass
class Seen:
    """Records of one network by number: when each was due, and when it was at the sink."""

    due: dict[int, float] = field(default_factory=dict)
    there: dict[int, float] = field(default_factory=dict)

    def latencies(
        self, began: float, ended: float, now: float, *, lossy: bool = False
    ) -> list[float]:
        """Of records due in this interval; what is not there yet has waited until now.

        `lossy`: it may never come, and does not count.
        """
        return [
            self.there.get(number, now) - due
            for number, due in list(self.due.items())
            if began <= due < ended and not (lossy and number not in self.there)
        ]

    def missing(self) -> int:
        """Records that are not there."""
        return len(set(self.due) - set(self.there))


@dataclass(frozen=True)
class Latency:
    """Seconds; of nothing it is 0."""

    median: float
    p95: float
    count: int

    @classmethod
    def of(cls, values: list[float]) -> "Latency":
        if not values:
            return cls(0.0, 0.0, 0)
        at = sorted(values)
        return cls(
            round(statistics.median(at), 4), round(at[int(0.95 * (len(at) - 1))], 4), len(at)
        )


class Sink:
    """Collects IPFIX over TCP and remembers when the good exporter's records came."""

    def __init__(self, networks: dict[bytes, Seen]) -> None:
        self.networks = networks
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        fields = [each for each in EXPORTED if each.name == "sourceIP"]
        self._buffer = RecordBuffer(fields, StringTable())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    self._read(connection)

    def _read(self, connection: socket.socket) -> None:
        session = CollectorSession("aggregator", self._buffer)
        while data := connection.recv(1 << 18):
            session.receive(data)
            now = time.monotonic()
            address = self._buffer.batch()["sourceIP"]
            for network, seen in self.networks.items():
                prefix = np.frombuffer(network, np.uint8)
                ours = address[(address[:, 12:14] == prefix).all(axis=1)]
                for number in ours[:, 14].astype(np.int64) * 256 + ours[:, 15]:
                    seen.there.setdefault(int(number), now)
            self._buffer.clear()


class Stream:
    """Follows the API's records, where the IPFIX collector is the attacker's."""

    def __init__(self, control: Path, networks: dict[bytes, Seen]) -> None:
        self._networks = networks
        self._control = ControlClient(control)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(FlowvisError, OSError, ValueError, http.client.HTTPException):
            for row in self._control.lines("flows", {"follow": "1", "namespace": "good"}):
                if "lost" in row:  # what came too fast for one who looks
                    continue
                packed = bytes(map(int, row["sourceIP"].split(".")))
                seen = self._networks.get(packed[:2])
                if seen is not None:
                    seen.there.setdefault(int.from_bytes(packed[2:]), time.monotonic())


class Exporter:
    """Sends by schedule, over one session that it opens again whenever it is lost."""

    def __init__(self, seen: Seen, dial: Dial) -> None:
        self._seen, self._dial = seen, dial
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Send no more; return when what was sent is with the kernel."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        number = 0
        at = time.monotonic()
        while not self._over.is_set():
            try:
                with self._dial() as session:
                    records = Records(domain=1)
                    session.sendall(records.templates())
                    while not self._over.wait(max(at - time.monotonic(), 0)):
                        self._seen.due.setdefault(number, at)
                        session.sendall(b"".join(records.messages(STEADY, [number])))
                        number, at = number + 1, at + STEADY_S
            except OSError:  # its turn comes again: nothing of it is lost but what was on its way
                self._over.wait(AGAIN_S)


class Newcomers:
    """One session for each record; a session that is refused is tried again at once."""

    def __init__(self, seen: Seen, dial: Dial, *, hears: bool) -> None:
        """`hears`: whether one learns that its record was read; else it looks at the sink."""
        self.refused = 0
        self._seen, self._dial, self._hears = seen, dial, hears
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._run, daemon=True)
        self._clock.start()

    def end(self) -> None:
        self._over.set()
        self._clock.join(10)
        for thread in self._threads:
            thread.join(10)

    def _run(self) -> None:
        number = 0
        while not self._over.wait(NEWCOMER_S):
            self._seen.due[number] = time.monotonic()
            thread = threading.Thread(target=self._come, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)
            number += 1

    def _arrives(self, number: int) -> bool:
        """Whether its record comes to the sink; an exporter over UDP says the totals again."""
        deadline = time.monotonic() + SAID_AGAIN_S
        while time.monotonic() < deadline:
            if number in self._seen.there:
                return True
            time.sleep(AGAIN_S)
        return False

    def _come(self, number: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with self._dial() as session:
                    records = Records(domain=1000 + number)
                    session.sendall(records.templates())
                    session.sendall(b"".join(records.messages(NEWCOMERS, [number])))
                    session.unwrap()  # it says that all was read
                if not self._hears and not self._arrives(number):
                    self.refused += 1
                    continue
            except OSError:
                if number in self._seen.there:
                    return
                self.refused += 1
                time.sleep(AGAIN_S)
            else:
                return


class Probes:
    """Asks /healthz as a kubelet does, on a new connection each time."""

    def __init__(self, port: int) -> None:
        self.answers: list[tuple[float, float, bool]] = []
        """When it was asked, how long that took, and whether it was answered well in time."""
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join(10)

    def between(self, began: float, ended: float) -> tuple[int, float]:
        """How many were not answered in time, and the longest that one took, in s."""
        mine = [each for each in self.answers if began <= each[0] < ended]
        return sum(not well for _, _, well in mine), max((took for _, took, _ in mine), default=0.0)

    def _run(self) -> None:
        while not self._over.wait(PROBE_S):
            began = time.monotonic()
            client = http.client.HTTPConnection("127.0.0.1", self._port, PROBE_PATIENCE_S)
            try:
                client.request("GET", "/healthz")
                well = client.getresponse().status == http.client.OK
            except (OSError, http.client.HTTPException):
                well = False
            finally:
                client.close()
            took = time.monotonic() - began
            self.answers.append((began, took, well and took <= PROBE_PATIENCE_S))


class Witness:
    """All of them; `seen` by network."""

    def __init__(self, dial: Dial, status_port: int, seen: list[Seen], *, hears: bool) -> None:
        self.steady, self.new = seen
        self._exporter = Exporter(self.steady, dial)
        self.newcomers = Newcomers(self.new, dial, hears=hears)
        self.probes = Probes(status_port)

    def end(self) -> None:
        """Send nothing more."""
        self._exporter.end()
        self.newcomers.end()
        self.probes.end()

    def missing(self) -> int:
        """Good records that never came to the sink."""
        return self.steady.missing() + self.new.missing()


@contextlib.contextmanager
def sink() -> Iterator[tuple[Sink, list[Seen]]]:
    """A sink, and what it will have seen of the two networks."""
    seen = [Seen(), Seen()]
    made = Sink(dict(zip((STEADY, NEWCOMERS), seen, strict=True)))
    try:
        yield made, seen
    finally:
        made.close()
