"""What listens at the store's address may answer anything, and without end."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from flowvis.clickhouse import server as server_module
from flowvis.clickhouse.schema.checkpoints import Wanted
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import StoreError

MOST = 1 << 20
ENDLESS = b"\xff" * 8 + b"\x7f"  # a length of 2 ** 63 - 1
ASKED = Wanted(np.ones(1, dtype=np.uint64), 0)
EXCEPTION = b"\x02" + struct.pack("<i", 60)


@contextmanager
def listener(beginning: bytes) -> Iterator[tuple[int, list[int]]]:
    """Answers each connection so, and then sends until nobody reads; bytes sent, by connection."""
    sent: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listening.accept()
                    with peer, suppress(OSError):
                        peer.recv(1 << 12)
                        peer.sendall(beginning)
                        sent.append(len(beginning))
                        while True:
                            sent[-1] += peer.send(bytes(1 << 16))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], sent
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "beginning",
    [b"\x00" + ENDLESS, EXCEPTION + ENDLESS, EXCEPTION + b"\x01E" + ENDLESS],
    ids=["hello", "name of an exception", "text of an exception"],
)
def test_an_answer_without_end_is_an_error(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "ANSWER_BYTES", MOST)
    with listener(beginning) as (port, sent):
        store = open_store(StoreSettings(f"tcp://127.0.0.1:{port}"))
        with pytest.raises(StoreError, match=f"an answer of more than {MOST} bytes") as caught:
            store.migrate()
        assert caught.value.retryable
        store.close()
    assert max(sent) < 16 << 20  # what was read, and what the kernel held


HELLO = b"\x00" + b"\x0aClickHouse" + bytes([18, 16, 0])  # of a revision that brings nothing more


@pytest.mark.parametrize(
    ("beginning", "match"),
    [
        (b"\x00\x02\xc3(", "no answer of ClickHouse: UnicodeDecodeError"),
        (HELLO + b"\x01\x01\x01\x02\xc3(", "no answer of ClickHouse: UnicodeDecodeError"),
    ],
    ids=["hello", "name of a column"],
)
def test_an_answer_that_cannot_be_read_is_an_error_of_the_store(
    beginning: bytes, match: str
) -> None:
    """And none of ours: for that a batch would be given up."""
    with listener(beginning) as (port, _):
        store = open_store(StoreSettings(f"tcp://127.0.0.1:{port}", compress=False))
        for ask in (store.migrate, lambda: store.checkpoints(ASKED)):
            with pytest.raises(StoreError, match=match) as caught:
                ask()
            assert caught.value.retryable
        store.close()
