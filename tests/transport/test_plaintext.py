"""Both readers of TLS records, over a session in memory: one record or many, whole or cut."""

import _ssl
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.transport import plaintext
from flowvis.transport.plaintext import (
    Library,
    PlaintextReader,
    SessionReader,
    plaintext_reader,
)

from .conftest import Pki

MakeReader = Callable[[ssl.SSLObject], PlaintextReader]


def by_library(session: ssl.SSLObject) -> PlaintextReader:
    reader = Library().reader(session)
    assert reader is not None
    return reader


@pytest.fixture(params=[SessionReader, by_library], ids=["ssl", "library"])
def make_reader(request: pytest.FixtureRequest) -> MakeReader:
    made: MakeReader = request.param
    return made


class Pair:
    """A client and a server that have shaken hands."""

    def __init__(self, pki: Pki, version: ssl.TLSVersion) -> None:
        context = pki.client.client_context()
        context.maximum_version = context.minimum_version = version
        self.to_server, self.to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.to_client, self.to_server, server_hostname="localhost")
        self.server = pki.server.server_context().wrap_bio(
            self.to_server, self.to_client, server_side=True
        )
        waiting = [self.client, self.server]
        while waiting:
            side = waiting.pop(0)
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(side)
        self.incoming = bytearray()

    def sealed(self, *messages: bytes) -> bytes:
        """Each message as a TLS record."""
        for message in messages:
            self.client.write(message)
        return self.to_server.read()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(pki: Pki, request: pytest.FixtureRequest) -> Pair:
    return Pair(pki, request.param)


def test_the_fast_one_is_what_channels_get(pair: Pair) -> None:
    assert type(plaintext_reader(pair.server)).__module__ == "flowvis.native.tls"


def test_many_records_in_a_call(pair: Pair, make_reader: MakeReader) -> None:
    reader, into = make_reader(pair.server), memoryview(bytearray(4096))
    messages = [bytes([65 + at]) * (at + 1) for at in range(50)]
    pair.to_server.write(pair.sealed(*messages))
    into[:3] = b"old"
    filled = reader.read(into, 3)
    assert bytes(into[:filled]) == b"old" + b"".join(messages)
    assert (reader.ended, reader.fault) == (False, "")
    assert reader.read(into, 3) == 3


def test_no_more_than_there_is_room_for(pair: Pair, make_reader: MakeReader) -> None:
    reader, into = make_reader(pair.server), memoryview(bytearray(8))
    pair.to_server.write(pair.sealed(b"twelve bytes", b"", b"x"))
    assert (reader.read(into, 0), bytes(into)) == (8, b"twelve b")
    assert (reader.read(into, 8), reader.ended) == (8, False)
    assert (reader.read(into, 2), bytes(into[2:7])) == (7, b"ytesx")


def test_the_peer_says_that_it_has_finished(pair: Pair, make_reader: MakeReader) -> None:
    reader, into = make_reader(pair.server), memoryview(bytearray(64))
    last = pair.sealed(b"last")
    with pytest.raises(ssl.SSLError):  # wants the server's
        pair.client.unwrap()
    pair.to_server.write(last + pair.to_server.read())
    assert (reader.read(into, 0), bytes(into[:4])) == (4, b"last")
    assert (reader.ended, reader.fault) == (True, "")
    assert reader.read(into, 4) == 4


@pytest.mark.parametrize("good", [0, 1, 3])
def test_what_came_before_a_fault_is_good(pair: Pair, make_reader: MakeReader, good: int) -> None:
    reader, into = make_reader(pair.server), memoryview(bytearray(64))
    before, forged = pair.sealed(*[b"good"] * good), bytearray(pair.sealed(b"forged"))
    forged[-1] ^= 1
    pair.to_server.write(before + forged + pair.sealed(b"after"))
    filled = reader.read(into, 0)
    assert bytes(into[:filled]) == b"good" * good
    assert (reader.ended, reader.fault) == (True, "decryption failed or bad record mac")
    assert reader.read(into, filled) == filled


def test_a_fault_of_one_session_is_not_that_of_the_next(pki: Pki, make_reader: MakeReader) -> None:
    """OpenSSL's errors are a queue of the thread."""
    first, second = (Pair(pki, ssl.TLSVersion.TLSv1_3) for _ in range(2))
    readers = [make_reader(pair.server) for pair in (first, second)]
    into = memoryview(bytearray(64))
    first.to_server.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    second.to_server.write(second.sealed(b"fine"))
    assert [reader.read(into, 0) for reader in readers] == [0, 4]
    assert [bool(reader.fault) for reader in readers] == [True, False]
    assert second.client.version() == "TLSv1.3"
    second.client.write(b"still")  # ssl itself sees nothing of it
    second.to_server.write(second.to_server.read())
    assert second.server.read(64) == b"still"


@settings(max_examples=30, deadline=None)
@given(
    messages=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    cuts=st.lists(st.integers(1, 400), max_size=8),
)
def test_records_that_come_in_pieces(pki: Pki, messages: list[bytes], cuts: list[int]) -> None:
    for make in (SessionReader, by_library):
        pair = Pair(pki, ssl.TLSVersion.TLSv1_3)
        reader, into, filled = make(pair.server), memoryview(bytearray(4096)), 0
        stream = pair.sealed(*messages)
        for size in [*cuts, len(stream) + 1]:
            pair.to_server.write(stream[:size])
            stream = stream[size:]
            filled = reader.read(into, filled)
        assert bytes(into[:filled]) == b"".join(messages)
        assert not reader.ended


def test_a_session_that_is_not_where_it_is_expected(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values beside it tell, before it is touched."""
    with monkeypatch.context() as patched:
        for head in (plaintext._HEAD - 8, plaintext._HEAD + 8):
            patched.setattr(plaintext, "_HEAD", head)
            assert Library().reader(pair.server) is None
            assert isinstance(plaintext_reader(pair.server), SessionReader)


@pytest.mark.parametrize("change", ["no file", "no function", "another version"])
def test_an_openssl_that_is_out_of_reach(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    with monkeypatch.context() as patched:
        if change == "no file":
            patched.delattr(_ssl, "__file__")
        elif change == "no function":
            patched.setattr(plaintext, "_FUNCTIONS", (*plaintext._FUNCTIONS[:-1], "SSL_nothing"))
        else:
            patched.setattr(ssl, "OPENSSL_VERSION_NUMBER", 0x1000000F)
        assert plaintext._library() is None
