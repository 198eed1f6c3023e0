"""The table of denied connections: packets that policies denied become intervals of flows.

Does no I/O and has no clock. The kernel keeps nothing of a connection that it denies, so here the
packets of a 5-tuple are one connection until none has come for as long as the kernel of the
client's node remembers what nobody answers. What comes then is another connection there, so it is
one here: the two halves go together. Clients that try again ever less often (TCP after 1, 3, 7, ...
63 seconds) stay one. A TCP connection that is rejected is over with the RST, which that kernel
forgets it for; one that ICMP answers is counted by it once, so that each try may be one here.
A connection is exported while packets come at most once per active timeout
(flowEndReason 2), once none has come for the idle timeout (1), when another one follows it (3), and
when the table has no room for it (5).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import Column, any_of
from flowvis.conntrack.names import UNANSWERED_S
from flowvis.counts import count
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import DenialVerdict
from flowvis.exporter.rate import Rate
from flowvis.exporter.tables.enrich import Enricher
from flowvis.exporter.tables.reported import Reported
from flowvis.exporter.tables.rows import KEPT, row_bytes
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.tables.timed import ASIDE_BYTES, NEVER, Slots, TimedTable
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.fields import EndReason, RuleAction, Source, provides
from flowvis.native import FlowIndex, pack_keys
from flowvis.runtime.dropped import PacketDropped
from flowvis.runtime.ledger import Ledger
from flowvis.steady import SteadyTime
from flowvis.strings import Strings

OTHER_S = 600  # protocols without a timeout of their own: nf_conntrack_generic_timeout
REJECTED_MS = (
    100  # the RST is back, and kills the entry (nf_conntrack_tcp_packet); no try is sooner
)
MAX_DEPARTED = 8192  # records that wait to be taken; while there are so many, nothing is evicted
LONG_AGO = -(1 << 62)  # before anything that was logged, by any steady clock

TCP, REJECT = 6, RuleAction.REJECT

_KEY_SIZE = 45
_PROTOCOL = 36  # its place in a key
_PACKETS, _OCTETS = 0, 1  # columns of `Rows.totals`
_DIRECTIONS = ("ingress", "egress")
_POLICY = ("Name", "Namespace", "Type", "RuleName", "RuleAction")
POLICY_FIELDS = tuple(
    f"{direction}NetworkPolicy{what}" for direction in _DIRECTIONS for what in _POLICY
)
provides(Source.VERDICT, POLICY_FIELDS)


DENIED_BYTES = row_bytes((*KEPT, *POLICY_FIELDS)) + 2 * (_KEY_SIZE + ASIDE_BYTES)
"""What a denied connection can take at most, with what is remembered of one."""


@dataclass(slots=True)
class DeniedStats:
    """What the books do not tell."""

    evicted: int = count("Denied connections that left the table since it was full")
    forgotten: int = count("Denied connections reported before that may be reported as others")


class DeniedTable(TimedTable[DeniedStats]):
    """The denied connections of one node, at most `max_connections`.

    Its books: `denied packets` either are of a known connection (merged) or admit one, those that
    the kernel could not deliver are dropped; `denied connections` are held until they are reported
    for the last time.
    """

    def __init__(
        self,
        enricher: Enricher,
        scope: Scope,
        *,
        active_timeout_ms: int = 60_000,
        idle_timeout_ms: int = 15_000,
        max_connections: int = 65_536,
        max_packets_per_second: int = 20_000,
        ledger: Ledger | None = None,
        steady: SteadyTime | None = None,
    ) -> None:
        """Times that come in and go out are the wall clock's; what is due goes by steady time."""
        ledger = ledger or Ledger()
        self.packets = ledger.stage("denied packets")
        super().__init__(
            DeniedStats(),
            ledger.stage("denied connections", held=self.__len__, sources=(self.packets,)),
            key_size=_KEY_SIZE,
            capacity=max_connections,
            kept=(*KEPT, *POLICY_FIELDS),
            remembered=max_connections,
            active_timeout_ms=active_timeout_ms,
            idle_timeout_ms=idle_timeout_ms,
            steady=steady,
        )
        self.max_connections = max_connections
        self._enricher = enricher
        self._scope = scope
        self._kept_ms = np.full(256, 1000 * OTHER_S, dtype=np.int64)  # by protocol
        self.kept_for(UNANSWERED_S)
        self._rate = Rate(max_packets_per_second)
        self._logged_at = np.zeros(max_connections, dtype=np.int64)  # the last packet, steady

    def kept_for(self, unanswered_s: Mapping[int, int]) -> None:
        """Know for how many seconds the kernel keeps what nobody answers, by protocol."""
        for protocol, seconds in unanswered_s.items():
            self._kept_ms[protocol] = 1000 * max(seconds, 1)

    def limit(self, max_packets_per_second: int) -> None:
        """Look at another number of packets in a second."""
        self._rate.change(max_packets_per_second)

    def add(self, packets: Packets, now_ms: int) -> None:
        """Take in packets, in the order that they were logged."""
        at = self._at = self._steady.at(now_ms)
        self.packets.received += _total(packets)
        denied = np.array([verdict is not None for verdict in packets.verdicts], dtype=bool)
        packets = self._keep(packets, denied[packets.verdict], PacketDropped.NOT_DENIED)
        packets = self._keep(
            packets, self._scope.wants(packets.source, packets.protocol), PacketDropped.OUT_OF_SCOPE
        )
        packets = self._keep(packets, self._affordable(packets, at), PacketDropped.RATE_LIMIT)
        # When they were logged, by steady time: they may have waited.
        logged = at - (now_ms - packets.time_ms.astype(np.int64))
        kept = self._kept(packets)
        for part in _runs(logged, int(kept.min(initial=NEVER))):
            self._take(packets.take(part), logged[part], kept[part])

    def _take(self, packets: Packets, logged: NDArray[np.int64], kept: NDArray[np.int64]) -> None:
        """Take in packets among which no connection ends."""
        keys = pack_keys(
            packets.source,
            packets.destination,
            packets.source_port,
            packets.destination_port,
            packets.protocol,
            packets.flow_id,
        )
        slots = self._index.find(keys)
        over = self._followed(slots, logged, kept)
        if over.any():
            ended = np.unique(slots[over])
            self._depart(ended, self._rows.unreported(ended), EndReason.END)
            slots = self._index.find(keys)
        known, fresh = np.flatnonzero(slots >= 0), np.flatnonzero(slots < 0)
        if not len(fresh):
            self._count(slots, packets, logged)
            return
        self._count(slots[known], packets.take(known), logged[known])
        # Their rows may be those of connections that were known until now.
        packets, logged = packets.take(fresh), logged[fresh]
        slots = self._admit(keys.take(fresh, axis=0), packets)
        room = slots >= 0
        self._count(slots[room], packets.take(room), logged[room])

    def _followed(
        self, slots: Slots, logged: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which packets come after the end of the connection that is known."""
        over = (slots >= 0) & (logged - self._logged_at[slots] >= kept)
        if self._waiting >= MAX_DEPARTED:
            over &= ~self._rows.unreported(slots)  # nobody takes records: one stays one
        return over

    def _kept(self, packets: Packets) -> NDArray[np.int64]:
        """For how many ms the client's kernel keeps what packets are of, after them."""
        rejects = [verdict is not None and verdict.action == REJECT for verdict in packets.verdicts]
        rejected = np.array(rejects, dtype=bool)[packets.verdict] & (packets.protocol == TCP)
        return np.where(rejected, REJECTED_MS, self._kept_ms[packets.protocol])

    def settle(self) -> int:
        """Count packets that were received and of which nothing came, as their handling failed."""
        left = self.packets.imbalance
        self.packets.drop(PacketDropped.FAILED, left)
        return left

    def lost(self, count: int) -> None:
        """Note packets that were logged and did not reach us."""
        self.packets.received += count
        self.packets.drop(PacketDropped.LOST, count)

    def malformed(self, count: int) -> None:
        """Note packets that were logged and could not be read."""
        self.packets.received += count
        self.packets.drop(PacketDropped.MALFORMED, count)

    def _affordable(self, packets: Packets, at: int) -> NDArray[np.bool_]:
        """Which packets are within the rate; a row that goes beyond it costs later ones."""
        before = np.cumsum(packets.packets) - packets.packets
        passing = before < max(self._rate.left(at), 0)
        self._rate.spend(int(packets.packets[passing].sum()))
        return np.asarray(passing)

    def _keep(self, packets: Packets, which: NDArray[np.bool_], reason: PacketDropped) -> Packets:
        """Go on with some of the packets; the others are counted."""
        if which.all():
            return packets
        self.packets.drop(reason, _total(packets.take(~which)))
        return packets.take(which)

    def _admit(self, keys: NDArray[np.uint8], packets: Packets) -> Slots:
        """Open rows for connections that are wanted; return their slots, -1 where there is none."""
        tuples = _tuples(packets)
        description = self._enricher.describe(tuples, self._rows.strings)
        slots = np.full(len(packets), -1, dtype=np.int64)
        wanted = np.flatnonzero(description.wanted)
        others = ~description.wanted
        if description.failed is not None:
            self.packets.drop(PacketDropped.FAILED, _total(packets.take(description.failed)))
            others &= ~description.failed
        self.packets.drop(PacketDropped.NOT_LOCAL, _total(packets.take(others)))
        if not len(wanted):
            return slots
        _, first = FlowIndex(_KEY_SIZE, len(wanted)).upsert(keys[wanted])
        self._make_room(int(np.count_nonzero(first)))
        slots[wanted], new = self._index.upsert(keys[wanted])
        opened = wanted[new]
        self._open(slots[opened])
        self._logged_at[slots[opened]] = LONG_AGO
        fields = {**tuples.fields(), **description.columns}
        fields |= self._go_on(keys, packets, slots, opened)
        self._rows.write(slots[opened], {name: column[opened] for name, column in fields.items()})
        self.packets.sent += len(opened)
        self.packets.merged -= len(opened)  # a connection's first packet is not counted twice
        self.connections.received += len(opened)
        refused = wanted[slots[wanted] < 0]
        self.packets.drop(PacketDropped.TABLE_FULL, _total(packets.take(refused)))
        return slots

    def _go_on(
        self, keys: NDArray[np.uint8], packets: Packets, slots: Slots, opened: Slots
    ) -> dict[str, Column]:
        """Set counters of those that our predecessor reported; return from when to when all are."""
        if not len(self._memory):
            return {}
        reported = self._memory.look_up(keys)
        kept = self._kept(packets).astype(np.uint64)
        known = (reported.reasons > 0) & (reported.ends + kept > packets.time_ms)
        those = opened[known[opened]]
        self._rows.totals[slots[those]] = self._rows.exported[slots[those]] = reported.exported[
            those
        ]
        self._reported[slots[those]] = reported.reasons[those]
        self._memory.forget(keys[opened])
        return {
            "flowStartMilliseconds": np.where(known, reported.starts, packets.time_ms),
            "flowEndMilliseconds": np.where(known, reported.ends, packets.time_ms),
        }

    def _count(self, slots: Slots, packets: Packets, logged: NDArray[np.int64]) -> None:
        """Add packets to their connections, and set when these are due."""
        rows = self._rows
        self.packets.merged += _total(packets)
        np.add.at(rows.totals[:, _PACKETS], slots, packets.packets)
        np.add.at(rows.totals[:, _OCTETS], slots, packets.octets)
        np.maximum.at(rows.kept["flowEndMilliseconds"], slots, packets.time_ms)
        self._begin_earlier(slots, packets.time_ms)
        np.maximum.at(self._logged_at, slots, logged)
        self._blame(slots, packets)
        self._grow(slots)

    def _begin_earlier(self, slots: Slots, time_ms: NDArray[np.uint64]) -> None:
        """Let connections begin with their earliest packet: logs come one after the other.

        What has been exported keeps its start, which names it; a clock set back changes none.
        """
        starts = self._rows.kept["flowStartMilliseconds"]
        kept = self._kept_ms[self._rows.kept["protocolIdentifier"][slots]].astype(np.uint64)
        earlier = time_ms + kept > starts[slots]
        earlier &= ~any_of(self._rows.exported.take(slots, axis=0) != 0)
        np.minimum.at(starts, slots[earlier], time_ms[earlier])

    def _blame(self, slots: Slots, packets: Packets) -> None:
        """Write which policy denied the connections; the last one in each direction counts."""
        used = np.zeros(len(packets.verdicts), dtype=bool)
        used[packets.verdict] = True
        places, numbers = np.flatnonzero(used), np.cumsum(used) - 1
        inverse = numbers[packets.verdict]
        verdicts = [packets.verdicts[place] for place in places.tolist()]
        for egress, direction in enumerate(_DIRECTIONS):
            here = np.array(
                [verdict is not None and verdict.egress == egress for verdict in verdicts]
            )
            rows = np.flatnonzero(here[inverse])
            if len(rows):
                columns = _columns(direction, verdicts, self._rows.strings)
                which = inverse[rows]
                self._rows.write(
                    slots[rows], {name: codes[which] for name, codes in columns.items()}
                )

    def _make_room(self, wanted: int) -> None:
        """Evict what is idle longest until so many connections fit, as far as that may be."""
        over = wanted - (self.max_connections - len(self._index))
        if over <= 0:
            return
        slots = np.flatnonzero(self._live[: self._top])
        slots = slots[self._grown_at[slots] < self._at]
        if self._waiting >= MAX_DEPARTED:
            slots = slots[~self._rows.unreported(slots)]
        if len(slots) > over:
            slots = slots[np.argpartition(self._grown_at[slots], over)[:over]]
        self.stats.evicted += len(slots)
        self._depart(slots, self._rows.unreported(slots), EndReason.LACK_OF_RESOURCES)

    def _remember(self, slots: Slots) -> None:
        """A scan of ports would leave no room for what our predecessor left."""

    def _starts(self, slots: Slots) -> NDArray[np.uint64]:
        return self._rows.kept["flowStartMilliseconds"][slots]

    def reported(self) -> Reported:
        """What was reported of all that may go on: clients' kernels have forgotten the others."""
        reported = super().reported()
        kept = self._kept_ms[reported.keys[:, _PROTOCOL]].astype(np.uint64)
        return reported.take(reported.ends + kept > self._steady.wall(self._at))

    def _sleep_until(self, slots: Slots) -> Slots:
        protocols = self._rows.kept["protocolIdentifier"][slots]
        return np.asarray(self._grown_at[slots] + self._kept_ms[protocols])

    def _wake_up(self, slots: Slots) -> None:
        self._free(slots)


def _runs(logged: NDArray[np.int64], span_ms: int) -> Iterator[slice]:
    """Cut packets into runs in which all were logged within a span: mostly one."""
    start = 0
    while start < len(logged):
        rest = logged[start:]
        high, low = np.maximum.accumulate(rest), np.minimum.accumulate(rest)
        stop = start + int(np.searchsorted(high - low, span_ms, side="right"))
        yield slice(start, stop)
        start = stop


def _total(packets: Packets) -> int:
    return int(packets.packets.sum())


def _tuples(packets: Packets) -> ConnectionTuples:
    """The tuples of denied connections; SNAT comes after policies."""
    return ConnectionTuples(
        packets.source,
        packets.destination,
        packets.source_port,
        packets.destination_port,
        packets.protocol,
        np.zeros_like(packets.source),
        np.zeros_like(packets.source_port),
        packets.called,
        packets.called_port,
        packets.time_ms,
        packets.flow_id,
    )


def _columns(
    direction: str, verdicts: Sequence[DenialVerdict | None], strings: Strings
) -> Mapping[str, Column]:
    """The fields of policies, one value for each verdict."""
    given = [verdict or DenialVerdict() for verdict in verdicts]
    values: tuple[Column, ...] = (
        strings.encode(verdict.name for verdict in given),
        strings.encode(verdict.namespace for verdict in given),
        np.array([verdict.type for verdict in given], dtype=np.uint8),
        strings.encode(verdict.rule for verdict in given),
        np.array([verdict.action for verdict in given], dtype=np.uint8),
    )
    return {
        f"{direction}NetworkPolicy{what}": value
        for what, value in zip(_POLICY, values, strict=True)
    }
