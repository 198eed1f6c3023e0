"""What is known of one endpoint makes its look-up fail: the others' connections go on."""

import pytest

from exporter.denied_packets import T0, packet, packets
from exporter.kernel_entries import Connection, entries
from flowvis.batch import address_bytes
from flowvis.conntrack.entries import DESTROY
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.denied import DeniedTable
from flowvis.exporter.tables.enrich import Careful, ClusterNode, Description
from flowvis.exporter.tables.scope import Scope
from flowvis.exporter.tables.tuples import ConnectionTuples
from flowvis.inventory.index import Inventory
from flowvis.native import StringTable
from flowvis.runtime.ledger import Ledger
from flowvis.strings import Strings
from inventory.kubernetes_objects import node, pod

NOW = 2_000_000_000
ODD = "10.0.1.13"


class Moody(ClusterNode):
    """Fails over one address while `odd`."""

    def __init__(self) -> None:
        inventory = Inventory()
        inventory.upsert(node("node-1", "192.0.2.1", "10.0.1.0/24"), 0)
        for last in range(30):
            inventory.upsert(pod(f"pod-{last}", f"10.0.1.{last}"), 0)
        super().__init__("node-1", inventory)
        self.odd = True
        self.calls = 0

    def describe(self, tuples: ConnectionTuples, strings: Strings) -> Description:
        self.calls += 1
        odd = list(address_bytes(ODD))
        if self.odd and odd in tuples.source.tolist():
            raise KeyError("a defect of a test")
        return super().describe(tuples, strings)


@pytest.fixture
def inner() -> Moody:
    return Moody()


@pytest.fixture
def reports() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def careful(inner: Moody, reports: list[tuple[str, int]]) -> Careful:
    return Careful(inner, lambda error, count: reports.append((type(error).__name__, count)))


def connections(count: int = 20) -> list[Connection]:
    return [
        Connection(f"10.0.1.{last}", "198.51.100.9", id=last, source_port=1000 + last)
        for last in range(count)
    ]


def test_what_does_not_fail_is_described_at_once_as_it_is(inner: Moody, careful: Careful) -> None:
    inner.odd = False
    strings = StringTable()
    tuples = ConnectionTuples.of(entries(*connections()), NOW)
    found = careful.describe(tuples, strings)
    assert inner.calls == 1
    assert found.failed is None
    assert strings.texts(found.columns["sourcePodName"])[7] == "pod-7"


def test_a_connection_over_which_it_fails_is_left_out_alone(
    careful: Careful, reports: list[tuple[str, int]]
) -> None:
    strings = StringTable()
    found = careful.describe(ConnectionTuples.of(entries(*connections()), NOW), strings)
    assert found.failed is not None
    assert found.failed.tolist() == [last == 13 for last in range(20)]
    assert found.wanted.tolist() == [last != 13 for last in range(20)]
    names = ["" if last == 13 else f"pod-{last}" for last in range(20)]
    assert strings.texts(found.columns["sourcePodName"]) == names
    assert found.columns["destinationServiceIP"].shape == (20, 16)
    assert reports == [("KeyError", 1)]


def test_where_all_fail_none_is_wanted(careful: Careful) -> None:
    alone = ConnectionTuples.of(entries(connections()[13]), NOW)
    found = careful.describe(alone, StringTable())
    assert not found.wanted.any()


def table(careful: Careful) -> tuple[Ledger, ConnectionTable]:
    ledger = Ledger()
    scope = Scope(None)
    return ledger, ConnectionTable(careful, scope, ledger=ledger, max_connections=100)


def test_the_connection_table_counts_it_and_takes_it_when_it_can(
    inner: Moody, careful: Careful
) -> None:
    ledger, made = table(careful)
    made.poll(entries(*connections()), NOW)
    assert made.entries.dropped == {"failed": 1}
    assert (len(made), made.entries.sent) == (19, 19)
    assert not ledger.imbalance()
    inner.odd = False
    made.poll(entries(*connections()), NOW + 5000)
    assert len(made) == 20
    assert not ledger.imbalance()


def test_what_was_known_of_a_connection_stays_when_it_ends(inner: Moody, careful: Careful) -> None:
    inner.odd = False
    ledger, made = table(careful)
    made.poll(entries(*connections()), NOW)
    inner.odd = True
    made.event(entries(*(one.at(1, 100, 1, 100, event=DESTROY) for one in connections())), NOW + 1)
    records = made.due(NOW + 2)
    assert sorted(records.texts("sourcePodName")) == sorted(f"pod-{n}" for n in range(20))
    assert not ledger.imbalance()


def test_denied_connections_as_well(careful: Careful) -> None:
    ledger = Ledger()
    denied = DeniedTable(careful, Scope(None), ledger=ledger)
    rows = [packet(source=f"10.0.1.{last}", destination="198.51.100.9") for last in range(20)]
    denied.add(packets(rows), T0)
    assert denied.packets.dropped == {"failed": 1}
    assert denied.packets.sent == 19
    assert not ledger.imbalance()
