from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.batch import address_text
from flowvis.denials.audit import AuditLog
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import DenialVerdict
from flowvis.fields import RuleAction

AT = datetime(2026, 9, 30, 2, 14, 3, 512_000, tzinfo=UTC)
NOW = int(AT.timestamp() * 1000) + 300
TIME = "2026/09/30 02:14:03.512873"
NEW = (
    f"{TIME} AntreaPolicyIngressRule AntreaNetworkPolicy:shop/web deny-rest Ingress Drop 44900 "
    "shop/web-7d9c4-q7m2n 10.0.1.23 48212 10.0.2.41 8443 TCP 60 my-label"
)
OLD = (
    f"{TIME} AntreaPolicyEgressRule AntreaClusterNetworkPolicy:isolate deny-out Reject 61800 "
    "10.0.1.23 48212 10.0.2.41 53 UDP 71"
)


def parse(*lines: str) -> Packets:
    log = AuditLog()
    packets = log.parse([line.encode() for line in lines], NOW)
    assert log.stats.malformed == 0
    return packets


def verdict(line: str) -> DenialVerdict:
    (found,) = parse(line).verdicts
    assert found is not None
    return found


def one(line: str) -> tuple[str, int, str, int, int, int, int]:
    packets = parse(line)
    assert len(packets) == 1
    return (
        address_text(packets.source[0].tobytes()),
        int(packets.source_port[0]),
        address_text(packets.destination[0].tobytes()),
        int(packets.destination_port[0]),
        int(packets.protocol[0]),
        int(packets.packets[0]),
        int(packets.octets[0]),
    )


def test_the_form_with_direction_and_pod() -> None:
    assert one(NEW) == ("10.0.1.23", 48212, "10.0.2.41", 8443, 6, 1, 60)
    packets = parse(NEW)
    assert packets.verdicts == [
        DenialVerdict(name="web", namespace="shop", type=2, rule="deny-rest")
    ]
    assert packets.time_ms.tolist() == [NOW - 300]


def test_the_form_of_13_fields() -> None:
    assert one(OLD) == ("10.0.1.23", 48212, "10.0.2.41", 53, 17, 1, 71)
    isolate = DenialVerdict(RuleAction.REJECT, egress=True, name="isolate", type=3, rule="deny-out")
    assert parse(OLD).verdicts == [isolate]


@pytest.mark.parametrize("line", [NEW, NEW.removesuffix(" my-label"), OLD, f"{OLD} 60"])
def test_repeated_packets(line: str) -> None:
    alone, repeated = one(line), one(f"{line} [7 packets in 1.011379442s]")
    assert repeated == (*alone[:5], 7, 7 * alone[6])


def test_what_there_is_not() -> None:
    ping = (
        f"{TIME} EgressDefaultRule K8sNetworkPolicy <nil> Egress Drop <nil> <nil> "
        "fd00::1 <nil> fd00::2 <nil> IPv6-ICMP 104 <nil>"
    )
    assert one(ping) == ("fd00::1", 0, "fd00::2", 0, 58, 1, 104)
    assert parse(ping).verdicts == [DenialVerdict(egress=True, type=1)]


def test_an_unnamed_rule_of_the_old_form() -> None:
    line = OLD.replace(" deny-out ", "  ")
    assert parse(line).verdicts[0] == DenialVerdict(
        RuleAction.REJECT, egress=True, name="isolate", type=3
    )


NAMES = (
    "deny all",
    "refuse 10.0.0.9 80",
    "to 10.1.1.1 5 from 10.2.2.2 6 TCP 60",
    "Ingress",
    "Drop Ingress",
    "no Egress Drop 14000 shop/db-0 10.9.9.9 1 10.8.8.8 2 UDP 99 <nil>",
    "no Egress Reject 14000 10.9.9.9 1 10.8.8.8 2 UDP 99",
    "443",
    "a  b   c",
    " padded ",
    "zurück! 拒否 \u2028 \x85",
    "[3 packets in 1s]",
    "<none>",
    "SRC: 10.0.0.1 DEST: 10.0.0.2",
)


@pytest.mark.parametrize("count", ["", " [7 packets in 1.011379442s]"])
@pytest.mark.parametrize("name", NAMES)
def test_a_rule_has_any_name(name: str, count: str) -> None:
    line = NEW.replace("deny-rest", name) + count
    packets = 7 if count else 1
    assert one(line) == ("10.0.1.23", 48212, "10.0.2.41", 8443, 6, packets, packets * 60)
    assert parse(line).verdicts == [DenialVerdict(name="web", namespace="shop", type=2, rule=name)]


@pytest.mark.parametrize("label", ["", " 60", " Drop"])
@pytest.mark.parametrize("name", NAMES)
def test_a_rule_of_before_has_any_name(name: str, label: str) -> None:
    line = OLD.replace("deny-out", name) + label
    assert one(line) == ("10.0.1.23", 48212, "10.0.2.41", 53, 17, 1, 71)
    assert verdict(line).rule == name
    assert verdict(line).egress


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\n%", exclude_categories=["Cs"]), min_size=1),
    st.sampled_from((NEW, OLD)),
)
def test_any_name(name: str, line: str) -> None:
    line = line.replace("deny-rest", name).replace("deny-out", name)
    assert verdict(line).rule == ("" if name == "<nil>" else name)
    assert parse(line).packets.tolist() == [1]


@pytest.mark.parametrize(
    ("name", "logged"),
    [("100% sure", "100%!s(MISSING)ure"), ("deny 100%", "deny 100%!I(MISSING)ngress")],
)
def test_a_name_that_was_taken_for_a_format(name: str, logged: str) -> None:
    line = NEW.replace(f"deny-rest{' Ingress' * name.endswith('%')}", logged)
    assert parse(line).verdicts == [DenialVerdict(name="web", namespace="shop", type=2, rule=name)]


def test_lines_before_rules_had_names() -> None:
    line = OLD.replace(" deny-out", "")
    assert one(line) == one(OLD)
    assert parse(line).verdicts == [DenialVerdict(RuleAction.REJECT, True, "isolate", type=3)]


@pytest.mark.parametrize(
    "packet", ["SRC: 10.0.1.23 DEST: 10.0.2.41 71 UDP", "10.0.1.23 10.0.2.41 71 UDP"]
)
def test_lines_before_there_were_ports(packet: str) -> None:
    line = f"{TIME} AntreaPolicyEgressRule AntreaClusterNetworkPolicy:isolate Drop 61800 {packet}"
    assert one(f"{line} [3 packets in 1s]") == ("10.0.1.23", 0, "10.0.2.41", 0, 17, 3, 213)


def test_what_was_not_denied() -> None:
    log = AuditLog()
    lines = [NEW.replace(" Drop ", f" {action} ") for action in ("Allow", "Redirect", "Pass")]
    assert len(log.parse([line.encode() for line in lines], NOW)) == 0
    assert (log.stats.lines, log.stats.allowed, log.stats.malformed) == (3, 3, 0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        NEW[:70],
        NEW.replace("10.0.1.23", "10.0.1.230.4"),
        NEW.replace("48212", "70000"),
        NEW.replace("2026/09/30", "2026/19/30"),
        f"{NEW} [0 packets in 1s]",
        f"{NEW} [999999999999 packets in 1s]",
        NEW.replace("Drop", "Frown"),
    ],
)
def test_garbage_is_counted(line: str) -> None:
    log = AuditLog()
    assert len(log.parse([line.encode(), NEW.encode()], NOW)) == 1
    assert (log.stats.lines, log.stats.malformed) == (2, 1)


def test_a_clock_of_another_zone() -> None:
    assert parse(NEW.replace("02:14", "05:14")).time_ms.tolist() == [NOW]


def test_verdicts_are_shared() -> None:
    packets = parse(NEW, OLD, NEW)
    assert packets.verdict.tolist() == [0, 1, 0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=3), st.integers(0, 150), st.binary(max_size=9))
def test_any_bytes(noise: list[bytes], at: int, patch: bytes) -> None:
    log = AuditLog()
    packets = log.parse([*noise, NEW[:at].encode() + patch + NEW[at:].encode()], NOW)
    assert len(packets) + log.stats.malformed + log.stats.allowed == len(noise) + 1
