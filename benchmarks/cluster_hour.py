"""An hour of aggregated flow records of a made-up cluster, for measuring storage honestly.

Varied where real traffic is: clients call a few services each (Zipf), most connections are short
and come out as one record, the rest report each minute with changing rates, the two nodes of a
connection read their counters at different moments, ports, sizes and times are random.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowvis import checkpoint
from flowvis.batch import Batch
from flowvis.fields import AGGREGATED, BY_NAME, EndReason, FlowType
from flowvis.native import StringTable
from flowvis.native.contract.merge import FlowState
from flowvis.strings import Strings

HOUR_MS = 3_600_000
EPOCH_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS
ACTIVE_MS = 60_000
NAMES = [
    *(field.name for field in AGGREGATED),
    "monitoringIntervalStartMilliSeconds",
    "originalFlowsPresent",
]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """How large a cluster is."""

    nodes: int = 50
    namespaces: int = 40
    pods: int = 2_000
    services: int = 150
    deployments: int = 400


LARGE = Scale(nodes=500, namespaces=200, pods=20_000, services=1_500, deployments=4_000)


@dataclass
class Cluster:
    """Pods, nodes and services as codes, one per Pod or service: what text columns are made of."""

    scale: Scale
    strings: Strings
    pods: NDArray[np.uint32]
    namespaces: NDArray[np.uint32]
    nodes: NDArray[np.uint32]
    labels: NDArray[np.uint32]
    workloads: NDArray[np.uint32]
    zones: NDArray[np.uint32]
    regions: NDArray[np.uint32]
    node_of: Ints
    service_of: Ints  # of each Pod, -1 without
    services: NDArray[np.uint32]
    backends: list[Ints]


def cluster(rng: np.random.Generator, scale: Scale = Scale()) -> Cluster:
    """Two thousand Pods in a few hundred Deployments; a tenth of them stand behind a service."""
    strings = StringTable()
    apps = np.sort(rng.integers(0, scale.deployments, scale.pods))
    app_names = [
        f"{rng.choice(['api', 'web', 'cache', 'worker', 'db'])}-{i:03d}"
        for i in range(scale.deployments)
    ]
    space_of_app = rng.integers(0, scale.namespaces, scale.deployments)
    alphabet = np.array(list("bcdfghjklmnpqrstvwxz2456789"))
    replica = ["".join(rng.choice(alphabet, 9)) for _ in range(scale.deployments)]
    names = [f"{app_names[app]}-{replica[app]}-{''.join(rng.choice(alphabet, 5))}" for app in apps]
    labels = [
        f'{{"app":"{app_names[app]}","pod-template-hash":"{replica[app]}","tier":"t{app % 7}"}}'
        for app in apps
    ]
    spaces = [f"team-{space_of_app[app]:02d}" for app in apps]
    node_of = rng.integers(0, scale.nodes, scale.pods)
    service_of = np.where(apps < scale.services, apps, -1)
    return Cluster(
        scale,
        strings,
        strings.encode(names),
        strings.encode(spaces),
        strings.encode([f"node-{n:02d}.example.internal" for n in node_of]),
        strings.encode(labels),
        strings.encode([app_names[app] for app in apps]),
        strings.encode([f"eu-central-1{'abc'[n % 3]}" for n in node_of]),
        strings.encode(["eu-central-1"] * scale.pods),
        node_of,
        service_of,
        strings.encode(
            [f"team-{space_of_app[s]:02d}/{app_names[s]}:http" for s in range(scale.services)]
        ),
        [np.flatnonzero(service_of == s) for s in range(scale.services)],
    )


def mapped(first: int, second: int, host: Ints) -> NDArray[np.uint8]:
    """IPv4-mapped addresses `first.second.x.y`, x.y being the host number."""
    address = np.zeros((len(host), 16), np.uint8)
    address[:, 10:12] = 0xFF
    address[:, 12], address[:, 13] = first, second
    address[:, 14], address[:, 15] = host >> 8, host & 255
    return address


def zipf(rng: np.random.Generator, size: int, choices: int) -> Ints:
    """Draw indexes below `choices`, the lower the more often."""
    weights = 1.0 / np.arange(1, choices + 1) ** 0.9
    return rng.choice(choices, size, p=weights / weights.sum())


def records(
    count: int, seed: int = 1, *, labels: bool = False, hour: int = 0, world: Cluster | None = None
) -> tuple[Batch, NDArray[np.uint32]]:
    """Return `count` records in the order in which they come out, and when each is inserted (s).

    Three in ten connections live longer than a minute and report several times. They are of the
    `hour`-th hour after EPOCH_MS, and of `world`, or of a cluster of their own.
    """
    rng = np.random.default_rng(seed)
    world = world or cluster(rng)
    long_lived = rng.random(count) < 0.3
    lives = np.where(
        long_lived, rng.exponential(420_000, count) + ACTIVE_MS, rng.lognormal(7.5, 1.8, count)
    )
    lives = np.clip(lives, 1, HOUR_MS).astype(np.int64)
    repeats = (lives + ACTIVE_MS - 1) // ACTIVE_MS
    connections = int(np.searchsorted(np.cumsum(repeats), count)) + 1
    epoch_ms = EPOCH_MS + hour * HOUR_MS
    flow = _Flows(rng, world, epoch_ms, lives[:connections])
    of = np.repeat(np.arange(connections), repeats[:connections])[:count]
    nth = (
        np.arange(count)
        - np.repeat(
            np.cumsum(repeats[:connections]) - repeats[:connections], repeats[:connections]
        )[:count]
    )
    batch, written = flow.expand(of, nth, labels=labels)
    order = np.argsort(written, kind="stable")
    return batch.take(order), (written[order] // 1000).astype(np.uint32)


class _Flows:
    """One row per connection, all drawn at random; `expand` makes the interval records."""

    def __init__(
        self, rng: np.random.Generator, world: Cluster, epoch_ms: int, lives: Ints
    ) -> None:
        count = len(lives)
        self.rng, self.world, self.count, self.lives = rng, world, count, lives
        self.start = epoch_ms + rng.integers(0, HOUR_MS, count) - np.minimum(lives, HOUR_MS // 2)
        self.source = zipf(rng, count, world.scale.pods)
        self.external = rng.random(count) < 0.2
        self.inbound = ~self.external & (rng.random(count) < 0.06)
        # Each client has a handful of services that it calls.
        choice = zipf(rng, count, 6)
        self.service = (self.source * 7919 + choice * 104_729) % world.scale.services
        self.pod = np.array(
            [
                world.backends[s][r % len(world.backends[s])] if len(world.backends[s]) else 0
                for s, r in zip(self.service, rng.integers(0, 1 << 20, count), strict=True)
            ]
        )
        self.udp = rng.random(count) < 0.15
        self.phase = rng.integers(0, 5000, count)
        self.older_is_source = rng.random(count) < 0.5
        self.source_port = rng.integers(32_768, 61_000, count)
        self.rate = rng.lognormal(8, 2.2, count) + 60  # octets a second
        self.reply = rng.lognormal(0.8, 1.2, count)
        self.packet = rng.uniform(60, 1400, count)
        self.reply_packet = rng.uniform(60, 1400, count)

    def expand(self, of: Ints, nth: Ints, *, labels: bool) -> tuple[Batch, Ints]:
        """Make record number `nth` of connection `of` for each pair."""
        columns = {
            name: np.zeros((len(of), *BY_NAME[name].kind.shape), BY_NAME[name].kind.dtype)
            for name in NAMES
        }
        batch = Batch(columns, self.world.strings)
        self._identity(batch, of, labels=labels)
        written = self._counters(batch, of, nth)
        return batch, written

    def _identity(self, batch: Batch, of: Ints, *, labels: bool) -> None:
        world, rng = self.world, self.rng
        source, pod = self.source[of], self.pod[of]
        external, inbound = self.external[of], self.inbound[of]
        both = ~external & ~inbound
        outside = mapped(203, 0, rng.integers(0, 3000, self.count))[of]
        v6 = (world.node_of[source] % 10 == 0)[:, None]
        inside = mapped(10, 42, source)
        inside6 = inside.copy()
        inside6[:, :12] = np.frombuffer(bytes.fromhex("20010db800420000000000ff"), np.uint8)
        batch["sourceIP"] = np.where(inbound[:, None], outside, np.where(v6, inside6, inside))
        target = mapped(10, 42, pod)
        target6 = target.copy()
        target6[:, :12] = inside6[0, :12]
        batch["destinationIP"] = np.where(external[:, None], outside, np.where(v6, target6, target))
        batch["sourceTransportPort"] = self.source_port[of].astype(np.uint16)
        service = self.service[of]
        port = np.where(external, 443, 8000 + service % 10)
        batch["destinationTransportPort"] = port.astype(np.uint16)
        batch["protocolIdentifier"] = np.where(self.udp[of], 17, 6).astype(np.uint8)
        has = {"source": ~inbound, "destination": ~external}
        for side, index in (("source", source), ("destination", pod)):
            for name, codes in (
                ("PodName", world.pods),
                ("PodNamespace", world.namespaces),
                ("NodeName", world.nodes),
                ("WorkloadName", world.workloads),
                ("Zone", world.zones),
                ("Region", world.regions),
                *([("PodLabels", world.labels)] if labels else []),
            ):
                batch[side + name] = np.where(has[side], codes[index], 0).astype(np.uint32)
            deployed = self.world.strings.intern(b"Deployment")
            batch[f"{side}WorkloadKind"] = np.where(has[side], deployed, 0).astype(np.uint32)
        called = both & (service % 8 != 0)
        batch["destinationServicePortName"] = np.where(called, world.services[service], 0).astype(
            np.uint32
        )
        batch["destinationServicePort"] = np.where(called, 80, 0).astype(np.uint16)
        cluster_ip = mapped(10, 96, service) * called[:, None].astype(np.uint8)
        cluster_ip[~called, 10:12] = 0
        batch["destinationClusterIP"] = batch["destinationServiceIP"] = cluster_ip
        same = world.node_of[source] == world.node_of[pod]
        kind = np.where(same, FlowType.INTRA_NODE, FlowType.INTER_NODE)
        kind = np.where(external, FlowType.TO_EXTERNAL, kind)
        batch["flowType"] = np.where(inbound, FlowType.FROM_EXTERNAL, kind).astype(np.uint8)
        self._policies(batch, pod, source, external)
        batch["clusterId"] = np.full(
            len(of),
            world.strings.intern(b"0f8b1c1e-5f7c-4a3e-9d6e-3d1f0f2f7a11"),
            np.uint32,
        )
        batch["originalFlowsPresent"] = np.where(
            batch["flowType"] == FlowType.INTER_NODE, 2, 1
        ).astype(np.uint8)

    def _policies(self, batch: Batch, pod: Ints, source: Ints, external: NDArray[np.bool_]) -> None:
        strings, spaces = self.world.strings, self.world.namespaces
        for direction, who, applies in (
            ("ingress", pod, (pod % 3 == 0) & ~external),
            ("egress", source, source % 4 == 0),
        ):
            names = strings.encode([f"{direction}-allow-{n:02d}" for n in range(60)])
            stem = f"{direction}NetworkPolicy"
            batch[stem + "Name"] = np.where(applies, names[who % 60], 0).astype(np.uint32)
            batch[stem + "Namespace"] = np.where(applies, spaces[who], 0).astype(np.uint32)
            rule = strings.intern(b"rule-0")
            batch[stem + "RuleName"] = np.where(applies, rule, 0).astype(np.uint32)
            batch[stem + "Type"] = applies.astype(np.uint8)
            batch[stem + "RuleAction"] = applies.astype(np.uint8)

    def _counters(self, batch: Batch, of: Ints, nth: Ints) -> Ints:
        rng, n = self.rng, len(of)
        lives, start = self.lives[of], self.start[of]
        polled = rng.integers(-2500, 2500, n)  # records come out at a poll
        begin = np.where(nth == 0, 0, nth * ACTIVE_MS + np.roll(polled, 1))
        last = (nth + 1) * ACTIVE_MS >= lives
        until = np.where(last, lives, np.maximum((nth + 1) * ACTIVE_MS + polled, begin + 1))
        begin = np.minimum(begin, until - 1)
        span = np.maximum(until - begin, 1)
        end = start + until
        batch["flowStartSeconds"] = (start // 1000).astype(np.uint32)
        batch["flowEndSeconds"] = (end // 1000).astype(np.uint32)
        batch["monitoringIntervalStartMilliSeconds"] = (start + begin).astype(np.uint64)
        batch["flowEndReason"] = np.where(last, EndReason.END, EndReason.ACTIVE).astype(np.uint8)
        tcp = np.where(last, *self.world.strings.encode(["TIME_WAIT", "ESTABLISHED"]))
        batch["tcpState"] = np.where(self.udp[of], 0, tcp).astype(np.uint32)
        # Two nodes poll every 5 s, out of step: one reads a connection's counters before the other.
        both = batch["flowType"] == FlowType.INTER_NODE
        jitter = rng.integers(-20, 20, n)
        lag = np.where(both & ~last, np.maximum(self.phase[of] + jitter, 0), 0)
        older = self.older_is_source[of]
        sides = (("Source", lag * older), ("Destination", lag * ~older))
        for name, side_lag in sides:
            batch[f"flowEndSecondsFrom{name}Node"] = ((end - side_lag) // 1000).astype(np.uint32)
        self._volumes(batch, of, nth, span, dict(sides))
        self._checkpoints(batch, of, nth, last, [end - side_lag for _, side_lag in sides])
        return end + np.where(both, rng.integers(0, 6000, n), 0) + rng.integers(0, 8000, n)

    def _checkpoints(
        self, batch: Batch, of: Ints, nth: Ints, last: NDArray[np.bool_], ends: list[Ints]
    ) -> None:
        """What an aggregator goes on from; the nodes' clocks differ by some milliseconds."""
        both = batch["flowType"] == FlowType.INTER_NODE
        rng = np.random.default_rng(self.count)
        later = rng.integers(0, 20, self.count)[of] * both
        exporters = rng.integers(1, 1 << 32, self.world.scale.nodes)
        nodes = [self.world.node_of[self.source[of]], self.world.node_of[self.pod[of]]]
        inbound = batch["flowType"] == FlowType.FROM_EXTERNAL
        for side in (0, 1):
            batch[checkpoint.STARTS[side]] = (self.start[of] + side * later).astype(np.uint64)
            batch[checkpoint.ENDS[side]] = ends[side].astype(np.uint64)
            node = np.where(both, nodes[side], np.where(inbound, nodes[1], nodes[0]))
            batch[checkpoint.EXPORTERS[side]] = exporters[node].astype(np.uint32)
        state = np.where(both, FlowState.CORRELATE, FlowState.SHARED)
        state |= FlowState.LIVE | FlowState.SOURCE | FlowState.DESTINATION
        state |= FlowState.WRITTEN | FlowState.COMPLETE
        ended = FlowState.SOURCE_ENDED | FlowState.DESTINATION_ENDED | FlowState.OVER
        state |= np.where(last, ended, 0)
        turned = self.source[of] > self.pod[of]
        batch[checkpoint.STATE] = (state | turned * FlowState.REVERSED).astype(np.uint32)
        batch[checkpoint.NUMBER] = (nth + 1).astype(np.uint32)
        batch[checkpoint.BASES] = np.zeros(len(of), np.uint32)
        batch["flowId"] = np.zeros(len(of), np.uint64)

    def _volumes(
        self, batch: Batch, of: Ints, nth: Ints, span: Ints, lags: dict[str, Ints]
    ) -> None:
        rng, n = self.rng, len(of)
        for prefix, packet, scale in (
            ("", self.packet, np.ones(self.count)),
            ("reverse", self.reply_packet, self.reply),
        ):
            rate = (self.rate * scale)[of] * rng.lognormal(0, 0.4, n)
            packets = np.maximum(rate * span / 1000 / packet[of], 1).astype(np.int64)
            octets = np.maximum((packets * packet[of]).astype(np.int64), 40)
            for what, delta in (("Octet", octets), ("Packet", packets)):
                total = np.cumsum(delta)
                firsts = np.flatnonzero(nth == 0)
                base = np.zeros(n, np.int64)
                base[firsts] = total[firsts] - delta[firsts]
                total -= np.maximum.accumulate(base)
                stem = f"{prefix}{what if prefix else what.lower()}"
                batch[f"{stem}DeltaCount"] = delta.astype(np.uint64)
                batch[f"{stem}TotalCount"] = total.astype(np.uint64)
                for side, lag in lags.items():
                    # What the last seconds brought, which the older reading lacks.
                    late = rng.lognormal(0, 0.4, n) * delta * lag // span
                    short = np.minimum(late.astype(np.int64), delta)
                    earlier = np.where(nth == 0, 0, np.roll(short, 1))
                    side_delta = delta - short + earlier
                    batch[f"{stem}DeltaCountFrom{side}Node"] = side_delta.astype(np.uint64)
                    batch[f"{stem}TotalCountFrom{side}Node"] = (total - short).astype(np.uint64)
            stem = f"{prefix}{'T' if prefix else 't'}hroughput"
            batch[stem] = (octets * 8000 // span).astype(np.uint64)
            for side, lag in lags.items():
                counted = batch[f"{prefix}{'O' if prefix else 'o'}ctetDeltaCountFrom{side}Node"]
                before = np.where(nth == 0, 0, np.roll(lag, 1))
                spanned = np.maximum(span - lag + before, 1).astype(np.uint64)
                batch[f"{stem}From{side}Node"] = counted * np.uint64(8000) // spanned
