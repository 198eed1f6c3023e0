"""Names against pyroute2's copies of the kernel's headers."""

from pyroute2.netlink.nfnetlink.nfctsocket import IPSBIT_TO_NAME, TCP_CONNTRACK_TO_NAME

from flowvis.conntrack.names import TCP_STATES, ConntrackStatus


def test_tcp_states() -> None:
    assert TCP_STATES[0] == "NONE"
    assert list(TCP_STATES[1:9]) == [TCP_CONNTRACK_TO_NAME[state] for state in range(1, 9)]
    assert TCP_STATES[9] == "SYN_SENT2"


def test_status_bits() -> None:
    assert {bit: ConntrackStatus(bit).name for bit in IPSBIT_TO_NAME} == IPSBIT_TO_NAME
