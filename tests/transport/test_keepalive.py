import errno
import selectors
import socket

import pytest

from flowvis.transport.keepalive import give_up, keep_alive
from waiting import PATIENCE_S

from .conftest import lose_power


@pytest.mark.parametrize("said", [b"", b"an acknowledgement that is on its way"])
def test_a_peer_that_is_gone_is_noticed_whatever_is_on_its_way_to_it(said: bytes) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as peer,
        selectors.DefaultSelector() as selector,
    ):
        ours, _ = listener.accept()
        with ours:
            keep_alive(ours, noticed_s=2)
            give_up(ours, 2)
            lose_power(peer)
            if said:
                ours.send(said)
            selector.register(ours, selectors.EVENT_READ)
            assert selector.select(PATIENCE_S)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT
