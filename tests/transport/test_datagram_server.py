"""Our server over UDP: real sockets on loopback, senders of every kind."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest

from flowvis.errors import PeerError, SystemRefused
from flowvis.transport import datagram_server as module
from flowvis.transport import receiving
from flowvis.transport.datagram_server import DatagramLimits, DatagramServer
from flowvis.transport.session import Peer
from waiting import until


@dataclass
class Recorder:
    """A handler that keeps what it gets: b"r..." are records, b"t4" templates of 4 bytes."""

    peer: Peer
    got: list[bytes] = field(default_factory=list)
    template_bytes: int = 0
    pending: bool = False
    pause_s: float = 0.0
    fruitless: bool = False
    went_on: int = 0
    looks: int = 0
    ended: int = 0

    @property
    def proven(self) -> bool:
        return any(data[:1] == b"r" for data in self.got)

    def datagrams_received(self, datagrams: list[bytes]) -> float:
        self.got += datagrams
        for data in datagrams:
            if data[:1] == b"t":
                self.template_bytes += int(data[1:])
            if data == b"refuse":
                raise PeerError("refused-bytes", "what the test refuses")
            if data == b"defect":
                raise ZeroDivisionError
            if data == b"fruitless":
                self.pause_s, self.fruitless = 60.0, True
        self.pending = datagrams[-1] in {b"pending", b"fruitless"}
        return 0.0

    def go_on(self) -> float:
        self.pending = False
        self.went_on += 1
        return 0.0

    def look(self) -> None:
        self.looks += 1

    def closed(self) -> None:
        self.ended += 1


class Recorders(list[Recorder]):
    """A factory of handlers that remembers them."""

    def __call__(self, peer: Peer) -> Recorder:
        self.append(Recorder(peer))
        return self[-1]

    def of(self, port: int) -> Recorder:
        return next(each for each in reversed(self) if each.peer.port == port)


@asynccontextmanager
async def serving(
    handlers: Recorders, limits: DatagramLimits | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[DatagramServer]:
    server = DatagramServer(handlers, host=host, limits=limits)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextmanager
def sender(server: DatagramServer, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A socket of its own port at an address of loopback."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.connect(("::1" if ":" in address else "127.0.0.1", server.port))
        yield sock


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


async def test_each_address_and_port_is_a_session_in_which_order_is_kept() -> None:
    handlers = Recorders()
    async with serving(handlers, host="::") as server:
        sizes = [1, 1400, 9000, 65_507 - 20]
        with (
            sender(server) as one,
            sender(server, "127.0.0.9") as other,
            sender(server, "::1") as six,
        ):
            senders = {str(sock.getsockname()[:2]): sock for sock in (one, other, six)}
            sent = {
                who: [b"r%d" % at + bytes(sizes[at % 4]) for at in range(40)] for who in senders
            }
            for at in range(40):
                for who, sock in senders.items():
                    sock.send(sent[who][at])
                if not at:
                    await until(lambda: len(handlers) == 3)
                if at % 10 == 9:
                    await asyncio.sleep(0)
            await until(lambda: sum(len(handler.got) for handler in handlers) == 120)
            got = {str((each.peer.address, each.peer.port)): each.got for each in handlers}
            assert got == sent
            assert len(server.sessions) == 3
    assert [handler.ended for handler in handlers] == [1, 1, 1]
    assert server.stats.datagrams == 120
    assert not server.stats.dropped
    assert server.stats.octets == sum(len(each) for all_ in sent.values() for each in all_)


async def test_what_the_kernel_has_at_a_stop_is_taken() -> None:
    handlers = Recorders()
    server = DatagramServer(handlers, host="127.0.0.1")
    await server.start()
    with sender(server) as sock:
        for at in range(300):
            sock.send(b"r%d" % at)
        await server.stop()
    assert handlers[0].got == [b"r%d" % at for at in range(300)]
    assert handlers[0].ended == 1


async def test_what_one_sender_does_ends_no_other_session() -> None:
    handlers = Recorders()
    async with serving(handlers) as server:
        with sender(server) as good, sender(server) as bad, sender(server) as worse:
            good.send(b"r")
            bad.send(b"refuse")
            worse.send(b"defect")
            await until(
                lambda: server.stats.errors.get("refused-bytes") and handlers.of(port_of(good)).got
            )
            await until(lambda: server.stats.errors.get("internal"))
            assert len(server.sessions) == 1
            bad.send(b"r again")
            good.send(b"r2")
            await until(lambda: len(server.sessions) == 2)
            await until(lambda: handlers.of(port_of(good)).got == [b"r", b"r2"])
            await until(lambda: handlers.of(port_of(bad)).got == [b"r again"])


async def test_work_that_is_left_goes_on_before_what_comes_then() -> None:
    handlers = Recorders()
    async with serving(handlers) as server:
        with sender(server) as sock:
            sock.send(b"r")
            sock.send(b"pending")
            await until(lambda: handlers and not handlers[0].pending)
            sock.send(b"last")
            await until(lambda: handlers[0].got[-1] == b"last")


async def test_a_flood_of_one_address_is_dropped_by_its_rate() -> None:
    handlers = Recorders()
    async with serving(handlers, DatagramLimits(per_second=50)) as server:
        with sender(server) as loud, sender(server) as also, sender(server, "127.0.0.7") as quiet:
            for at in range(200):
                (loud if at % 2 else also).send(b"r")
            quiet.send(b"r")
            await until(lambda: server.stats.datagrams == 201)
            await until(lambda: [each for each in handlers if each.peer.address == "127.0.0.7"])
            taken = sum(len(each.got) for each in handlers if each.peer.address == "127.0.0.1")
            assert 50 <= taken <= 100  # of both ports together; some time has passed
            assert server.stats.dropped == {"rate": 200 - taken}


async def test_an_address_that_sends_faster_than_its_share_loses_its_own() -> None:
    handlers = Recorders()
    limits = DatagramLimits(waiting_bytes=1 << 20)
    async with serving(handlers, limits) as server:
        with sender(server) as loud, sender(server, "127.0.0.7") as quiet:
            for sock in (loud, quiet):
                sock.send(b"r")
            await until(lambda: sum(len(each.got) for each in handlers) == 2)
            slow = handlers.of(port_of(loud))
            slow.pause_s, slow.fruitless = 3600.0, True  # from its next turn on
            loud.send(b"r")
            await until(lambda: len(slow.got) == 2)
            for at in range(60):
                loud.send(bytes(60_000))
                if at % 2:
                    quiet.send(b"r%d" % at)
                await asyncio.sleep(0)
            await until(lambda: len(handlers.of(port_of(quiet)).got) == 31)
            await until(lambda: server.stats.datagrams == 93)
            waiting = next(s for s in server.sessions.values() if s.waiting)
            assert waiting.waiting_bytes <= 1 << 20
            assert set(server.stats.dropped) == {"waiting"}
            assert server.stats.dropped["waiting"] == 60 - waiting.waiting_bytes // 60_000


@pytest.mark.parametrize("proven", [False, True])
async def test_who_only_makes_work_does_not_delay_a_stop(
    proven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = Recorders()
    async with serving(handlers) as server:
        with sender(server) as good, sender(server, "127.0.0.7") as fruitless:
            for piece in [b"r"] * proven + [b"fruitless"]:
                fruitless.send(piece)
            await until(lambda: handlers and handlers[0].pause_s)
            fruitless.send(b"more")
            fruitless.send(b"and more")
            good.send(b"r")
            good.send(b"r2")
            with monkeypatch.context() as patch:
                patch.setattr(module, "LAST_S", 0.0)
                await server.stop()
    idle, busy = handlers
    assert busy.got == [b"r", b"r2"]
    assert (idle.went_on, idle.ended, busy.ended) == (0, 1, 1)
    assert server.stats.dropped == {"stopped": 2}


async def test_a_stop_waits_for_what_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = Recorders()
    async with serving(handlers) as server:
        with sender(server) as good:
            good.send(b"r")
            await until(lambda: handlers and handlers[0].got)
            handlers[0].pause_s = 0.01
            for piece in (b"pending", b"more"):
                good.send(piece)
            monkeypatch.setattr(module, "LAST_S", 0.0)
            await server.stop()
    assert handlers[0].got == [b"r", b"pending", b"more"]
    assert server.stats.dropped == {}


async def test_strangers_give_way_and_who_sent_records_does_not() -> None:
    handlers = Recorders()
    limits = DatagramLimits(sessions=8, sessions_per_address=4)
    async with serving(handlers, limits) as server:
        with sender(server) as known:
            known.send(b"r")
            await until(lambda: handlers and handlers[0].got)
            for at in range(60):  # each from an address of its own, as forged ones are
                address = str(ipaddress.IPv4Address("127.1.0.0") + at)
                with sender(server, address) as forged:
                    forged.send(b"x")
                await asyncio.sleep(0)
            await until(lambda: server.stats.datagrams == 61)
            assert len(server.sessions) == 8
            with sender(server, "127.0.0.8") as newcomer:
                newcomer.send(b"r")
                known.send(b"r2")
                await until(lambda: handlers[0].got == [b"r", b"r2"])
                await until(lambda: any(each.peer.address == "127.0.0.8" for each in handlers))
            assert not handlers[0].ended
            assert server.stats.errors["gave-way"] == 61 - 8 + 1


async def test_who_is_quiet_for_long_gives_way_when_all_have_sent_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = Recorders()
    limits = DatagramLimits(sessions=3, sessions_per_address=3)
    async with serving(handlers, limits) as server:
        with sender(server) as one, sender(server) as two, sender(server) as three:
            for at, sock in enumerate((one, two, three), 1):
                sock.send(b"r")
                await until(partial(lambda at: len(handlers) == at and handlers[-1].got, at))
            with sender(server, "127.0.0.7") as newcomer:
                newcomer.send(b"r")
                await until(lambda: server.stats.refused)
                assert server.stats.refused == {"sessions": 1}
                one.send(b"r2")
                await until(lambda: len(handlers.of(port_of(one)).got) == 2)
                with monkeypatch.context() as patch:
                    patch.setattr(module, "SILENT_S", 0.0)
                    newcomer.send(b"r")
                    await until(lambda: handlers[-1].peer.address == "127.0.0.7")
            assert [handler.ended for handler in handlers] == [0, 1, 0, 0]


async def test_templates_of_one_address_leave_room_for_those_of_others() -> None:
    handlers = Recorders()
    async with serving(handlers, DatagramLimits(template_bytes=100_000)) as server:
        with sender(server) as greedy, sender(server, "127.0.0.7") as modest:
            modest.send(b"t40000")
            greedy.send(b"t55000")
            await until(lambda: len(handlers) == 2)
            greedy.send(b"t10000")
            await until(lambda: server.stats.errors)
            assert server.stats.errors == {"template-memory": 1}
            modest.send(b"t40000")
            await until(lambda: handlers.of(port_of(modest)).template_bytes == 80_000)
            assert not handlers.of(port_of(modest)).ended


async def test_the_templates_of_an_exporter_always_have_room() -> None:
    handlers = Recorders()
    async with serving(handlers, DatagramLimits(template_bytes=40_000)) as server:
        with sender(server) as one, sender(server) as another, sender(server) as third:
            for sock in (one, another, third):
                sock.send(b"t32000")
            await until(lambda: len(handlers) == 3 and all(each.got for each in handlers))
            third.send(b"t1000")
            await until(lambda: server.stats.errors)
            assert server.stats.errors == {"template-memory": 1}
            assert [handler.ended for handler in handlers] == [0, 0, 1]


async def test_sessions_are_looked_at_and_end_when_they_are_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "LOOK_S", 0.01)
        handlers = Recorders()
        async with serving(handlers, DatagramLimits(idle_s=3600)) as server:
            with sender(server) as sock:
                sock.send(b"r")
                await until(lambda: handlers and handlers[0].looks > 2)
                assert not handlers[0].ended
                (session,) = server.sessions.values()
                session.last_observed -= 3601
                await until(lambda: handlers[0].ended)
                assert not server.sessions
                sock.send(b"r")
                await until(lambda: len(handlers) == 2)
        assert not server.stats.errors


async def test_what_the_kernel_drops_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Recorders()
    server = DatagramServer(handlers, host="127.0.0.1", limits=DatagramLimits(buffer_bytes=65_536))
    await server.start()
    try:
        with sender(server) as sock:
            for _ in range(400):  # while nobody reads: this is the loop's thread
                sock.send(bytes(1000))
            await until(lambda: server.stats.datagrams)
            sock.send(b"r")  # the kernel says it with the next that it takes
            await until(lambda: handlers and handlers[0].got and handlers[0].got[-1] == b"r")
        dropped = 401 - server.stats.datagrams
        assert dropped > 200
        assert server.stats.kernel_dropped == dropped
    finally:
        await server.stop()
    assert any("the kernel dropped" in record.getMessage() for record in caplog.records)


@pytest.fixture
def earned_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Who has sent records gets a socket of its own with the next look, in a moment."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "OWN_AFTER_S", 0.0)
        patch.setattr(module, "LOOK_S", 0.02)
        yield patch


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")]
)
async def test_a_flood_of_strangers_is_not_in_the_way_of_who_sent_records(
    host: str, address: str, earned_at_once: pytest.MonkeyPatch
) -> None:
    handlers, limits = Recorders(), DatagramLimits(buffer_bytes=64 << 10)
    async with serving(handlers, limits, host) as server:
        earned_at_once.setattr(module, "OWN_BUFFER", 1)
        with sender(server, address) as good, sender(server, address) as stranger:
            good.send(b"r0")
            await until(lambda: server.stats.own_queues == 1)
            for _ in range(400):  # while nobody reads: this is the loop's thread
                stranger.send(bytes(1000))
            sent = [b"r%d" % number for number in range(1, 21)]
            for data in sent:
                good.send(data)
            await until(lambda: handlers.of(port_of(good)).got[1:] == sent)
            assert server.stats.kernel_dropped == 0  # the next of the common queue says it
            stranger.send(b"s")
            await until(lambda: server.stats.kernel_dropped > 200)


async def test_own_queues_are_bounded_and_given_back(earned_at_once: pytest.MonkeyPatch) -> None:
    earned_at_once.setattr(module, "OWN_OF_ADDRESS", 2)
    handlers = Recorders()
    async with serving(handlers) as server:
        with sender(server) as one, sender(server) as two, sender(server) as three:
            senders = one, two, three
            for each in senders:
                each.send(b"r")
            await until(lambda: server.stats.own_queues == 2)
            looks = handlers[0].looks
            await until(lambda: handlers[0].looks > looks + 2)
            assert server.stats.own_queues == 2
            with pytest.raises(SystemRefused, match="Address already in use"):
                await DatagramServer(Recorders(), host="127.0.0.1", port=server.port).start()
            for number in range(40):
                for each in senders:
                    each.send(b"r%d" % number)
            expected = [b"r", *(b"r%d" % number for number in range(40))]
            for each in senders:
                await until(partial(lambda port: handlers.of(port).got == expected, port_of(each)))
            earned_at_once.setattr(module, "SILENT_S", -1.0)
            earned_at_once.setattr(module, "OWN", 0)
            await until(lambda: server.stats.own_queues == 0)
            for each in senders:
                each.send(b"r again")
                await until(
                    partial(lambda port: handlers.of(port).got[-1] == b"r again", port_of(each))
                )
    assert not server.stats.errors
    assert [handler.ended for handler in handlers] == [1, 1, 1]


async def test_who_sent_no_records_or_only_once_has_no_queue_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "LOOK_S", 0.02)
        handlers = Recorders()
        async with serving(handlers) as server:
            with sender(server) as once, sender(server) as nothing:
                once.send(b"r")
                nothing.send(b"n")
                await until(lambda: len(handlers) == 2)
                await until(lambda: min(each.looks for each in handlers) > 3)
                assert server.stats.own_queues == 0


async def test_what_own_queues_have_at_a_stop_is_taken(earned_at_once: pytest.MonkeyPatch) -> None:
    handlers = Recorders()
    async with serving(handlers) as server:
        with sender(server) as sock:
            sock.send(b"r")
            await until(lambda: server.stats.own_queues == 1)
            for number in range(100):
                sock.send(b"r%d" % number)
            await server.stop()
    assert len(handlers[0].got) == 101
    assert server.stats.own_queues == 0


async def test_a_port_that_is_taken_is_reported() -> None:
    async with serving(Recorders()) as server:
        with pytest.raises(SystemRefused, match="/udp: Address already in use"):
            await DatagramServer(Recorders(), host="127.0.0.1", port=server.port).start()
    with pytest.raises(SystemRefused, match=r"'a\.\.b': no name or address"):
        await DatagramServer(Recorders(), host="a..b").start()


def test_senders_by_their_addresses() -> None:
    assert receiving.sender_of(b"\x02\0\x12\x83\x0a\0\0\x07" + bytes(8)) == ("10.0.0.7", 4739)
    mapped = bytes(10) + b"\xff\xff\x0a\0\0\x07"
    assert receiving.sender_of(b"\x0a\0\x12\x83" + bytes(4) + mapped + bytes(4)) == (
        "10.0.0.7",
        4739,
    )
    local = b"\xfe\x80" + bytes(13) + b"\x05"
    scope = (3).to_bytes(4, "little")
    assert receiving.sender_of(b"\x0a\0\0\x50" + bytes(4) + local + scope) == ("fe80::5%3", 80)
