import pytest

from exporter.kernel_entries import Connection, entries
from flowvis.exporter.tables.scope import Scope

TCP, UDP = Connection(), Connection(protocol=17)
SCTP, PING = Connection(protocol=132), Connection(protocol=1)


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        (None, [True, True, True, True]),
        ((), [False, False, False, False]),
        (("tcp", "sctp"), [True, False, True, False]),
        (("icmp",), [False, False, False, True]),
    ],
)
def test_protocols(protocols: tuple[str, ...] | None, expected: list[bool]) -> None:
    covered = Scope(protocols).covers(entries(TCP, UDP, SCTP, PING))
    assert covered.tolist() == expected


def test_loopback() -> None:
    local = [Connection("127.0.0.1", "127.0.0.1"), Connection("::1", "::1")]
    rest = [Connection("10.127.0.1"), Connection("fd00::1", "fd00::2")]
    assert Scope().covers(entries(*local, *rest)).tolist() == [False, False, True, True]
    assert Scope(loopback=True).covers(entries(*local, *rest)).all()


def test_antrea_leaves_out_what_its_policies_did_not_pass() -> None:
    rows = entries(
        Connection(zone=65520, mark=0x13),
        Connection(zone=65520, mark=0x10),
        Connection(zone=65510, mark=0),
        Connection(zone=0, mark=0),
    )
    assert Scope(antrea=True).covers(rows).tolist() == [True, False, False, True]
    assert Scope().covers(rows).all()


def test_other_protocols() -> None:
    scope = Scope(("tcp",))
    scope.choose(("udp",))
    assert scope.covers(entries(TCP, UDP)).tolist() == [False, True]
    scope.choose(None)
    assert scope.covers(entries(TCP, UDP)).tolist() == [True, True]
