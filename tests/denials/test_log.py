"""Real packets, denied by real rules."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from flowvis.batch import address_text
from flowvis.denials.packets import Packets
from flowvis.denials.prefixes import DenialVerdict, Prefixes
from flowvis.denials.sources.log import PacketLog
from flowvis.errors import SystemRefused
from flowvis.fields import RuleAction
from namespaces import run
from waiting import PATIENCE_S

GROUP = 5
RULES = f"""
table inet policies {{
    chain deny {{
        type filter hook output priority filter;
        udp dport 9 log group {GROUP} prefix "flowvis:drop:egress:shop/web:0" drop
        tcp dport 9 log group {GROUP} prefix "DPI0|knp/shop/knp.default.db" reject with tcp reset
        ip protocol icmp log group {GROUP} drop
        udp dport 10 log group {GROUP + 1} drop
    }}
}}
"""

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]


@pytest.fixture
def log(namespace: None) -> Iterator[PacketLog]:
    run("nft", RULES)
    opened = PacketLog(GROUP, Prefixes())
    opened.open()
    yield opened
    opened.close()


def send(host: str, count: int = 1, *, payload: int = 100) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            with suppress(PermissionError):  # dropped on the way out
                sender.sendto(bytes(payload), (host, 9))


def everything(log: PacketLog) -> list[Packets]:
    """What has been logged so far."""
    found = []
    while select.select([log], [], [], 0.3)[0]:
        found.append(log.read(time.time_ns() // 1_000_000))
    return found


def count(log: PacketLog) -> int:
    return sum(len(packets) for packets in everything(log))


def test_packets_of_both_families(log: PacketLog) -> None:
    send("127.0.0.1", 3)
    send("::1", 2)
    found = everything(log)  # the kernel tells of them together, where they were sent quickly
    destinations = [row for packets in found for row in packets.destination]
    assert [address_text(address.tobytes()) for address in destinations] == [
        *["127.0.0.1"] * 3,
        *["::1"] * 2,
    ]
    assert [n for each in found for n in each.octets.tolist()] == [128, 128, 128, 148, 148]
    assert {port for each in found for port in each.destination_port.tolist()} == {9}
    verdicts = {each.verdicts[place] for each in found for place in each.verdict.tolist()}
    assert verdicts == {DenialVerdict(egress=True, name="web", namespace="shop", rule="0")}
    times_ms = np.concatenate([each.time_ms for each in found]).astype(np.int64)
    ages = time.time_ns() // 1_000_000 - times_ms
    assert 0 <= ages.min() <= ages.max() < PATIENCE_S * 1000


def test_a_rejected_connection(log: PacketLog) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9), timeout=5)
    (packets,) = everything(log)
    assert (packets.protocol.tolist(), packets.octets.tolist()) == ([6], [60])
    verdict = packets.verdicts[packets.verdict[0]]
    assert verdict == DenialVerdict(RuleAction.DROP, name="db", namespace="shop", type=1, rule="0")


def test_pings(log: PacketLog) -> None:
    kind = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with socket.socket(*kind) as sender, suppress(PermissionError):
        sender.sendto(b"\x08\0\xf7\xff\0\0\0\0", ("127.0.0.1", 0))
    (packets,) = everything(log)
    assert (packets.protocol.tolist(), packets.destination_port.tolist()) == ([1], [0])


def test_large_packets_are_copied_in_part(log: PacketLog) -> None:
    send("127.0.0.1", 2, payload=60_000)
    assert [n for each in everything(log) for n in each.octets.tolist()] == [60_028] * 2


def test_many_packets(log: PacketLog) -> None:
    send("127.0.0.1", 3000)
    assert count(log) == 3000
    assert (log.stats.packets, log.stats.lost) == (3000, 0)


def test_batches_are_read_whole(log: PacketLog) -> None:
    """The kernel fills what it got, which may be twice of what was asked for."""
    prefix = "flowvis:drop:ingress:shop/" + 90 * "p" + ":0"
    run("nft", "flush chain inet policies deny")
    run("nft", f'add rule inet policies deny udp dport 9 log group {GROUP} prefix "{prefix}" drop')
    send("127.0.0.1", 2000, payload=1000)
    assert (count(log), log.stats.lost) == (2000, 0)


def test_what_the_kernel_could_not_deliver_is_counted_exactly(log: PacketLog) -> None:
    log.close()
    small = PacketLog(GROUP, Prefixes(), receive_bytes=64 << 10)
    small.open()
    send("127.0.0.1", 5000)
    delivered = count(small)
    send("127.0.0.1")
    delivered += count(small)
    small.close()
    assert small.stats.overruns > 0
    assert 0 < delivered < 5001
    assert delivered + small.stats.lost == small.stats.packets == 5001


def test_what_was_logged_before_the_end_is_read(log: PacketLog) -> None:
    send("127.0.0.1", 5)
    log.unbind()
    send("127.0.0.1", 3)
    assert count(log) == 5


def test_a_group_that_another_has(log: PacketLog) -> None:
    second = PacketLog(GROUP, Prefixes())
    with pytest.raises(
        SystemRefused, match=r"group 5 cannot be observed: .*: only one program can"
    ):
        second.open()
    log.close()
    second.open()
    send("127.0.0.1")
    assert count(second) == 1
    assert second.stats.lost == 0
    second.close()


def test_closed_there_is_nothing_to_read(log: PacketLog) -> None:
    log.close()
    log.close()
    with pytest.raises(ValueError, match="NFLOG group 5 is not open"):
        log.read(0)
