"""When TCP connections of the real kernel ended."""

import socket
import time

import pytest

from flowvis.batch import Batch
from flowvis.conntrack.sources.source import Conntrack
from flowvis.conntrack.sources.sysctls import ROOT
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.enrich import PlainHost
from flowvis.exporter.tables.scope import Scope


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def observed(kernel: Conntrack, table: ConnectionTable) -> Batch:
    table.closed_after(kernel.closed_s())
    table.poll(kernel.poll(), now_ms())
    return table.due(now_ms())


@pytest.mark.kernel
@pytest.mark.usefixtures("tracked")
@pytest.mark.parametrize(("reset", "state"), [(False, "TIME_WAIT"), (True, "CLOSE")])
def test_the_end_is_known_to_the_second_however_late_the_poll(reset: bool, state: str) -> None:
    kernel = Conntrack((0,), events=False)
    kernel.open()
    kernel.prepare()
    (ROOT / "nf_conntrack_tcp_timeout_time_wait").write_text("45")
    table = ConnectionTable(PlainHost(), Scope(("tcp",), loopback=True), events=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = now_ms()
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        client.sendall(b"a question")
        peer.recv(100)
        if reset:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        closing = now_ms()
        peer.close()
        client.recv(100) if not reset else None
        client.close()
        closed = now_ms()
    time.sleep(3.2)  # the time between two polls
    asked = now_ms()
    batch = observed(kernel, table)
    took = now_ms() - asked
    kernel.close()
    assert batch.texts("tcpState") == [state]
    assert batch["flowEndReason"].tolist() == [3]
    (start,), (end,) = (batch[f"flow{name}Milliseconds"].tolist() for name in ("Start", "End"))
    assert began - 1 <= start <= end
    assert closing - 1000 <= end <= closed + took + 1000
