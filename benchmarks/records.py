"""Flow records as the exporters of a made-up cluster send them.

Half of the flows are inter-node, so two nodes report each of them; the rest are intra-node, to and
from outside. The columns are those of the exporter's template.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis.batch import V4_MAPPED, Batch
from flowvis.fields import EXPORTED, EndReason, Field, FlowType, RuleAction
from flowvis.native import StringTable
from flowvis.strings import Strings

NODES = 50
PODS = 5_000
SERVICES = 200
NAMESPACES = 40
POLICIES = 60
INTERVAL_MS = 60_000
EPOCH_MS = 1_790_000_000_000

Ints = NDArray[np.int64]
Codes = NDArray[np.uint32]


@dataclass
class Cluster:
    """Codes of the names; Pod `p` runs on node `p % NODES`."""

    strings: Strings
    pods: Codes
    namespaces: Codes  # of each Pod
    nodes: Codes
    services: Codes
    policies: Codes
    states: Codes


@dataclass
class Interval:
    """What all nodes report in one interval, in the order of arrival."""

    batch: Batch
    node: Ints
    """The number of the node that reports each record."""


class Traffic:
    """A fixed set of long-lived flows; `interval(k)` is what they are reported with k intervals on.

    `ipv6` is the share of the flows over IPv6.
    """

    def __init__(
        self, flows: int, *, seed: int = 1, ipv6: float = 0.0, strings: Strings | None = None
    ) -> None:
        rng = np.random.default_rng(seed)
        self._rng = rng
        self._cluster = _cluster(rng, StringTable() if strings is None else strings)
        draw = rng.random(flows)
        self._type = np.select(
            [draw < 0.5, draw < 0.75, draw < 0.9],
            [FlowType.INTER_NODE, FlowType.INTRA_NODE, FlowType.TO_EXTERNAL],
            FlowType.FROM_EXTERNAL,
        ).astype(np.uint8)
        self._source = rng.integers(0, PODS, flows)
        away = rng.integers(1, NODES, flows)  # another node than the source's
        away[self._type == FlowType.INTRA_NODE] = 0
        other = rng.integers(0, PODS // NODES, flows) * NODES
        self._destination = other + (self._source + away) % NODES
        self._ipv6 = rng.random(flows) < ipv6
        self._port = 1024 + np.arange(flows) % 64_000
        self._start = EPOCH_MS - rng.integers(1, INTERVAL_MS, flows)
        self._udp = rng.random(flows) < 0.2
        self._octets = rng.integers(1_000, 5_000_000, flows)
        halves = np.flatnonzero(self._type == FlowType.INTER_NODE)
        inbound = np.flatnonzero(self._type == FlowType.FROM_EXTERNAL)
        here = np.concatenate([np.setdiff1d(np.arange(flows), inbound), inbound, halves])
        self._of = here
        self._at_source = np.arange(len(here)) < flows - len(inbound)

    @property
    def strings(self) -> Strings:
        """The table that all batches share."""
        return self._cluster.strings

    def interval(self, number: int) -> Interval:
        """Return the records of interval `number`, from 0."""
        order = self._rng.permutation(len(self._of))
        of, at_source = self._of[order], self._at_source[order]
        batch = Batch(
            {f.name: np.zeros((len(of), *f.kind.shape), f.kind.dtype) for f in EXPORTED},
            self.strings,
        )
        self._connection(batch, of, number)
        self._counters(batch, of, number)
        self._names(batch, of, at_source)
        self._policies(batch, of, at_source)
        node = np.where(at_source, self._source[of], self._destination[of]) % NODES
        return Interval(batch, node)

    def _connection(self, batch: Batch, of: Ints, number: int) -> None:
        end = EPOCH_MS + number * INTERVAL_MS + self._rng.integers(0, 5_000, len(of))
        kind = self._type[of]
        _set(batch, "flowStartSeconds", self._start[of] // 1000)
        _set(batch, "flowStartMilliseconds", self._start[of])
        _set(batch, "flowEndSeconds", end // 1000)
        _set(batch, "flowEndMilliseconds", end)
        _set(batch, "flowEndReason", np.full(len(of), EndReason.ACTIVE))
        _set(batch, "sourceTransportPort", self._port[of])
        _set(batch, "destinationTransportPort", 8_000 + self._destination[of] % 20)
        _set(batch, "protocolIdentifier", np.where(self._udp[of], 17, 6))
        _set(batch, "flowType", kind)
        _set(batch, "tcpState", np.where(self._udp[of], 0, self._cluster.states[number % 2]))
        ipv6 = self._ipv6[of]
        flow_host = of % 60_000  # keeps the 5-tuples of flows with one source Pod apart
        source = np.where(kind == FlowType.FROM_EXTERNAL, 70_000 + flow_host, self._source[of])
        target = np.where(kind == FlowType.TO_EXTERNAL, 140_000 + flow_host, self._destination[of])
        batch["sourceIP"] = _addresses(source, ipv6)
        batch["destinationIP"] = _addresses(target, ipv6)

    def _counters(self, batch: Batch, of: Ints, number: int) -> None:
        delta = self._octets[of]
        for name, value in (
            ("octet", delta),
            ("packet", delta // 800 + 1),
            ("reverseOctet", delta // 3),
            ("reversePacket", delta // 1600 + 1),
        ):
            _set(batch, f"{name}TotalCount", value * (number + 1))
            _set(batch, f"{name}DeltaCount", value)

    def _names(self, batch: Batch, of: Ints, at_source: NDArray[np.bool_]) -> None:
        cluster, kind = self._cluster, self._type[of]
        intra = kind == FlowType.INTRA_NODE
        for side, pod, known in (
            ("source", self._source[of], at_source),
            ("destination", self._destination[of], ~at_source | intra),
        ):
            _set(batch, f"{side}PodName", np.where(known, cluster.pods[pod], 0))
            _set(batch, f"{side}PodNamespace", np.where(known, cluster.namespaces[pod], 0))
            _set(batch, f"{side}NodeName", np.where(known, cluster.nodes[pod % NODES], 0))
        service = self._destination[of] % SERVICES
        called = at_source & (kind != FlowType.TO_EXTERNAL) & (service % 4 != 0)
        _set(batch, "destinationServicePort", np.where(called, 80, 0))
        _set(batch, "destinationServicePortName", np.where(called, cluster.services[service], 0))
        address = _addresses(200_000 + service, self._ipv6[of]) * called[:, None].astype(np.uint8)
        batch["destinationClusterIP"] = batch["destinationServiceIP"] = address

    def _policies(self, batch: Batch, of: Ints, at_source: NDArray[np.bool_]) -> None:
        cluster = self._cluster
        intra = self._type[of] == FlowType.INTRA_NODE
        for direction, pod, known in (
            ("egress", self._source[of], at_source),
            ("ingress", self._destination[of], ~at_source | intra),
        ):
            applies = known & (pod % 3 == 0)
            stem = f"{direction}NetworkPolicy"
            _set(batch, f"{stem}Name", np.where(applies, cluster.policies[pod % POLICIES], 0))
            _set(batch, f"{stem}Namespace", np.where(applies, cluster.namespaces[pod], 0))
            _set(batch, f"{stem}RuleName", np.where(applies, cluster.policies[pod % 7], 0))
            _set(batch, f"{stem}Type", applies)
            _set(batch, f"{stem}RuleAction", applies * RuleAction.ALLOW)


def exported_by_antrea() -> tuple[Field, ...]:
    """The fields of Antrea's own exporter template, in order, without our two at its end."""
    return tuple(field for field in EXPORTED if (field.exported or 0) <= 43)


def _set(batch: Batch, name: str, values: NDArray[np.generic]) -> None:
    batch[name] = values.astype(batch[name].dtype)


def _cluster(rng: np.random.Generator, strings: Strings) -> Cluster:
    letters = np.array(list("bcdfghjklmnpqrstvwxz2456789"))
    apps = rng.integers(0, 300, PODS)
    tails = ["".join(row) for row in rng.choice(letters, (PODS, 5))]
    sets = ["".join(row) for row in rng.choice(letters, (300, 9))]
    spaces = [f"team-{app % NAMESPACES:02d}" for app in range(300)]
    return Cluster(
        strings,
        strings.encode([f"app-{a:03d}-{sets[a]}-{t}" for a, t in zip(apps, tails, strict=True)]),
        strings.encode([spaces[app] for app in apps]),
        strings.encode([f"node-{n:02d}.example.internal" for n in range(NODES)]),
        strings.encode([f"{spaces[s]}/app-{s:03d}:http" for s in range(SERVICES)]),
        strings.encode([f"allow-from-{n:02d}" for n in range(POLICIES)]),
        strings.encode(["ESTABLISHED", "TIME_WAIT"]),
    )


def _addresses(host: Ints, ipv6: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return 10.x.y.z with x.y.z the host's number, or the same in the end of an IPv6 address."""
    address = np.zeros((len(host), 16), np.uint8)
    address[:, :12] = np.where(
        ipv6[:, None],
        np.frombuffer(bytes.fromhex("fd0000420000000000000000"), np.uint8),
        np.frombuffer(V4_MAPPED, np.uint8),
    )
    address[:, 12] = 10
    for place, shift in ((13, 16), (14, 8), (15, 0)):
        address[:, place] = host >> shift & 255
    return address
