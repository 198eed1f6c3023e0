"""Lines of the demo."""

import pytest
from rich.cells import cell_len

from flowvis.fields import FlowType
from flowvis.lab.live import LiveTable, quantity

RECORD = {
    "sourceIP": "10.10.1.11",
    "destinationIP": "2001:db8:2::9",
    "sourcePodName": "frontend-7d4b",
    "sourcePodNamespace": "shop",
    "destinationPodName": "",
    "destinationPodNamespace": "",
    "destinationTransportPort": 8080,
    "destinationServicePortName": "kube-system/kube-dns:dns",
    "protocolIdentifier": 6,
    "flowType": FlowType.TO_EXTERNAL,
    "ingressNetworkPolicyRuleAction": 0,
    "egressNetworkPolicyRuleAction": 1,
    "octetDeltaCount": 1_000,
    "reverseOctetDeltaCount": 234_500,
    "throughput": 1_000_000,
    "reverseThroughput": 2_000_000,
}


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_line_is_as_wide_as_its_heading(width: int) -> None:
    table = LiveTable(width)
    heading, line = table.heading().plain, table.line(RECORD).plain
    assert len(heading) == len(line)
    assert len(line) <= width
    for title in ("DESTINATION", "TYPE"):
        at = heading.index(title)
        assert line[at - 1] == " " != line[at]


def test_a_line_says_who_what_and_how_much() -> None:
    line = LiveTable(160).line(RECORD).plain
    for part in ("shop/frontend-7d4b", "[2001:db8:2::9]:8080", "kube-system/kube-dns:dns",
                 "tcp", "to external", "236 kB", "3 Mbit/s"):  # fmt: skip
        assert part in line


def test_a_line_says_what_policies_denied() -> None:
    for action, verdict in ((2, "dropped"), (3, "rejected")):
        line = LiveTable(160).line({**RECORD, "ingressNetworkPolicyRuleAction": action}).plain
        assert verdict in line


def test_a_narrow_terminal_still_tells_who() -> None:
    line = LiveTable(80).line(RECORD).plain
    for part in ("frontend-7d4b", "kube-dns:d", "to external", "236 kB", "3 Mbit/s"):
        assert part in line


@pytest.mark.parametrize("name", ["web-5f6c-a", "long-" * 9, "", "\u65e5\u672c" * 9])
def test_a_port_is_whole_or_another_would_be_called(name: str) -> None:
    line = LiveTable(80).line(RECORD | {"destinationPodName": name}).plain
    assert ":8080 " in line
    assert cell_len(line) <= 80


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (123_456, "123 kB"),
        (999_700, "1 MB"),
        (7e9, "7 GB"),
    ],
)
def test_quantities_have_three_digits(number: float, text: str) -> None:
    assert quantity(number, "B") == text
