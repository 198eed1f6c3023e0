"""Attempts that nobody answered are visible as such."""

import errno
import socket
import subprocess
import time

import pytest

from flowvis.conntrack.sources.source import Conntrack
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope

RULES = """
table inet silence {
    chain input { type filter hook input priority filter; tcp dport 81 drop; udp dport 81 drop; }
}
"""


@pytest.mark.kernel
@pytest.mark.usefixtures("tracked")
def test_a_client_that_nobody_answers() -> None:
    subprocess.run(["nft", RULES], check=True)
    kernel = Conntrack((0,), events=False)
    kernel.open()
    kernel.prepare()
    table = ConnectionTable(PlainHost(), Scope(loopback=True), events=False)
    with socket.socket() as client:  # which is gone before it would try again
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.1", 81)) == errno.EINPROGRESS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"anybody?", ("127.0.0.1", 81))
    now_ms = time.time_ns() // 1_000_000
    table.poll(kernel.poll(), now_ms)
    kernel.close()
    batch = table.due(now_ms + 20_000)
    batch = batch.take(batch["destinationTransportPort"] == 81)
    states = dict(zip(batch["protocolIdentifier"].tolist(), batch.texts("tcpState"), strict=True))
    assert states == {6: "SYN_SENT", 17: ""}
    assert set(batch["packetTotalCount"].tolist()) == {1}
    for name in ("reversePacketTotalCount", "reverseOctetTotalCount", "reversePacketDeltaCount"):
        assert batch[name].tolist() == [0, 0]
