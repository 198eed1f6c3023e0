"""External collectors by their documented options: over UDP, without names, and several at once."""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowvis.aggregator.destinations import flow_collector
from flowvis.aggregator.destinations.flow_collector import FlowCollector
from flowvis.aggregator.destinations.ipfix import IpfixDestination
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.fields import AGGREGATED
from flowvis.ipfix.buffer import RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.native import StringTable
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import load
from flowvis.transport import client as client_module
from namespaces import new_namespace, run
from waiting import block_until, until

from .harness import connection, deliver, exported, running
from .records import numbered, records
from .test_collectors import nfcapd, nfdump, unread


@pytest.fixture(autouse=True)
def no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's first messages are waited after for a moment only."""
    monkeypatch.setattr(client_module, "PROOF_S", 0.05)


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def chosen(port: int, protocol: str = "udp", **options: Any) -> FlowCollector:
    """What a configuration file makes of these options."""
    document = {"enable": True, "address": f"127.0.0.1:{port}:{protocol}"} | options
    text = yaml.safe_dump({"flowCollector": document})
    return load(AggregatorSettings, text.encode(), {}).flow_collector


def made(section: FlowCollector, stage: Stage | None = None) -> IpfixDestination:
    place = Place(stage or Stage("ipfix"), 1 << 24, Surroundings(1.0, 1 << 30, lambda: 7))
    sink = flow_collector.make(section, place, None)
    assert isinstance(sink, IpfixDestination)
    return sink


class Datagrams:
    """What came to a socket, decoded as IPFIX."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.buffer = RecordBuffer(AGGREGATED, StringTable())
        self.session = CollectorSession("collector", self.buffer)
        self.sizes: list[int] = []

    def read(self) -> int:
        """Read what has come; return how many records there are."""
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                return len(self.buffer)
            self.sizes.append(len(data))
            self.session.receive(data)

    def numbers(self) -> list[int]:
        numbers: list[int] = self.buffer.batch()["octetTotalCount"].tolist()
        return numbers


async def test_over_udp_each_message_is_a_datagram(receiver: socket.socket) -> None:
    sink = made(chosen(receiver.getsockname()[1], maxIPFIXMsgSize=1300))
    await sink.start()
    for first in range(0, 300, 100):
        sink.put(numbered(first, 100))
    got = Datagrams(receiver)
    await until(lambda: got.read() == 300)
    await sink.stop()
    assert got.numbers() == list(range(300))
    assert max(got.sizes) <= 1300
    assert len(got.sizes) > 2
    assert (got.session.stats.lost_records, got.session.stats.templates) == (0, 2)
    assert (sink.queue.stage.sent, sink.queue.stage.imbalance) == (300, 0)


async def test_over_udp_templates_go_out_anew(receiver: socket.socket) -> None:
    moment = [1_700_000_000.0]
    sink = made(chosen(receiver.getsockname()[1], templateRefreshTimeout="30s"))
    sink._clock = lambda: moment[0]
    await sink.start()
    got = Datagrams(receiver)
    for at in range(4):
        sink.put(numbered(at, 1))
        await until(lambda at=at: got.read() == at + 1)  # type: ignore[misc]  # bound now
        moment[0] += 15
    await sink.stop()
    assert (got.session.stats.templates, got.session.stats.templates_repeated) == (2, 2)
    assert got.numbers() == list(range(4))


@pytest.mark.kernel
async def test_a_path_that_becomes_narrow_gets_smaller_messages() -> None:
    with new_namespace():
        run("ip", "link", "set", "lo", "mtu", "1500")
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            sink = made(chosen(sock.getsockname()[1]))
            await sink.start()
            got = Datagrams(sock)
            sink.put(numbered(0, 50))
            await until(lambda: got.read() == 50)
            assert 900 < max(got.sizes) <= 1500 - 28
            await until(lambda: sink.queue.stage.sent == 50)
            run("ip", "link", "set", "lo", "mtu", "900")
            got.sizes.clear()
            again = Datagrams(sock)  # another session, with its own numbers
            sink.put(numbered(50, 50))
            await until(lambda: again.read() == 50)
            await sink.stop()
            assert max(again.sizes) <= 900 - 28
            assert again.numbers() == list(range(50, 100))
            assert sink.queue.stage.dropped == {}
            assert "emsgsize" in sink.client.stats.lost


def test_nfcapd_reads_what_comes_over_udp(tmp_path: Path) -> None:
    """From a real aggregator, with the next collector of the list on TCP beside it."""
    path = tmp_path / "flows"
    path.mkdir()
    with nfcapd(path) as port, socket.create_server(("127.0.0.1", 0)) as other:
        settings = {
            "flowCollectors": [
                {"name": "nfdump", "address": f"127.0.0.1:{port}:udp", "includeK8sNames": False},
                {"name": "siem", "address": f"127.0.0.1:{other.getsockname()[1]}:tcp"},
            ]
        }
        rows = [connection(n, source=side) for n in range(9) for side in (True, False)]
        with running(tmp_path / "aggregator", settings) as aggregator:
            deliver(aggregator, exported(*rows))
            aggregator.settled(18)
            aggregator.until("collector-nfdump", "sent", 9)
            aggregator.until("collector-siem", "sent", 9)
            metrics = aggregator.metrics()
            label = '{destination="collector-nfdump"}'
            assert metrics[f"flowvis_aggregator_flow_collectors_connected{label}"] == 1
            assert metrics[f"flowvis_aggregator_flow_collectors_messages_total{label}"] >= 3
            assert metrics[f"flowvis_aggregator_destination_healthy{label}"] == 1
            block_until(lambda: not unread(port))
            assert aggregator.stop() == 0
    expected = [f"10.0.0.{n},10.200.0.1,40000,80,6,10,1000".split(",") for n in range(9)]
    assert sorted(nfdump(path)) == sorted(expected)


NAMED = {
    "sourcePodName": "web-0", "sourcePodNamespace": "shop", "sourceNodeName": "node-1",
    "destinationPodName": "db-0", "destinationPodNamespace": "data",
    "destinationNodeName": "node-2", "destinationServicePortName": "data/db:sql",
    "ingressNetworkPolicyName": "in", "ingressNetworkPolicyNamespace": "data",
    "ingressNetworkPolicyRuleName": "rule", "egressNetworkPolicyName": "out",
    "egressNetworkPolicyNamespace": "shop", "egressNetworkPolicyRuleName": "rule",
    "egressName": "egress", "egressNodeName": "node-3",
}  # fmt: skip
KEPT = {"sourcePodLabels": "{}", "egressIP": "192.0.2.1", "tcpState": "CLOSE", "clusterId": "east"}


@pytest.mark.parametrize("names", [True, False])
async def test_names_are_left_out_where_they_are_not_wanted(
    receiver: socket.socket, names: bool
) -> None:
    sink = made(chosen(receiver.getsockname()[1], includeK8sNames=names))
    await sink.start()
    sink.put(records({"sourceIP": "10.0.0.1", "octetTotalCount": 5, **NAMED, **KEPT}))
    got = Datagrams(receiver)
    await until(lambda: got.read() == 1)
    await sink.stop()
    batch = got.buffer.batch()
    found: Mapping[str, list[str]] = {name: batch.texts(name) for name in {**NAMED, **KEPT}}
    assert {name: found[name] for name in KEPT} == {name: [text] for name, text in KEPT.items()}
    assert {name: found[name] for name in NAMED} == {
        name: [text if names else ""] for name, text in NAMED.items()
    }
    common = [field for field in sink._fields if field.name in NAMED]
    assert len(common) == (15 if names else 0)


async def test_a_collector_that_is_away_costs_the_others_nothing(receiver: socket.socket) -> None:
    here = made(chosen(receiver.getsockname()[1]), Stage("collector-here"))
    away = made(chosen(9, "tcp"), Stage("collector-away"))
    for sink in (here, away):
        await sink.start()
        sink.put(numbered(0, 20))
    got = Datagrams(receiver)
    await until(lambda: got.read() == 20)
    assert away.held() == 20
    assert away.problem == "not connected"
    away._grace_s = 0.05
    await asyncio.gather(here.stop(), away.stop())
    assert away.queue.stage.dropped == {"shutdown": 20}
