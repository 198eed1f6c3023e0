"""Who is served when, with a clock that only work moves."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from flowvis.transport import turns as turns_module
from flowvis.transport.stats import ServerStats
from flowvis.transport.turns import TURN_S, FairQueue, Turns


class Clock:
    now = 0.0

    def thread_time(self) -> float:
        return self.now


@dataclass(eq=False)
class Busy:
    """A session that always has more to do, each piece at the same cost."""

    name: str
    clock: Clock
    served: list[str]
    cost_s: float = TURN_S / 4
    pieces: int = 1 << 30
    address: str = "10.0.0.1"
    known: bool = True
    open: bool = True
    waiting: bool = False
    resting: list[bool] = field(default_factory=list)

    def work(self) -> bool:
        self.served.append(self.name)
        self.clock.now += self.cost_s
        self.pieces -= 1
        return self.pieces > 0

    def listen(self) -> None:
        self.resting.append(False)

    def rest(self) -> None:
        self.resting.append(True)

    def paid(self, cost_s: float) -> float:
        return cost_s


class Stage:
    """Turns, and sessions that take them."""

    def __init__(self, known: str = "") -> None:
        self.clock = Clock()
        self.served: list[str] = []
        self.stats = ServerStats()
        self.turns = Turns(self.stats, lambda address: address == known)

    def session(self, name: str, **options: object) -> Busy:
        return Busy(name, self.clock, self.served, **options)  # type: ignore[arg-type]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(known="10.0.0.9")
    monkeypatch.setattr(turns_module, "time", made.clock)
    return made


def waits(session: Busy) -> bool:
    return session.waiting


async def turn_round() -> None:
    """Let the loop go round once."""
    await asyncio.sleep(0)


async def test_a_turn_ends_and_others_have_theirs(stage: Stage) -> None:
    for number in range(100):
        stage.turns.readable(stage.session(f"busy {number}"))
    for _ in range(10):
        before = stage.clock.now
        await turn_round()
        assert stage.clock.now - before <= 1.25 * TURN_S
    assert len(set(stage.served)) >= 40  # all in turn, none twice before


async def test_who_was_quiet_goes_first(stage: Stage) -> None:
    for number in range(50):
        stage.turns.readable(stage.session(f"busy {number}"))
    for _ in range(100):
        await turn_round()
    quiet = stage.session("quiet", pieces=1)
    stage.turns.readable(quiet)
    seen = len(stage.served)
    await turn_round()
    assert "quiet" in stage.served[seen : seen + 2]
    assert not waits(quiet)
    assert stage.stats.deferred > 0


async def test_each_pays_for_what_it_costs(stage: Stage) -> None:
    dear, cheap = stage.session("dear", cost_s=TURN_S), stage.session("cheap", cost_s=TURN_S / 8)
    stage.turns.readable(dear)
    stage.turns.readable(cheap)
    for _ in range(400):
        await turn_round()
    counts = Counter(stage.served)
    assert 6 < counts["cheap"] / counts["dear"] < 10


async def test_a_crowd_of_one_address_has_the_share_of_one(stage: Stage) -> None:
    for number in range(20):
        stage.turns.readable(stage.session(f"crowd {number}", address="10.0.0.66"))
    stage.turns.readable(stage.session("alone"))
    for _ in range(500):
        await turn_round()
    alone = Counter(stage.served)["alone"] / len(stage.served)
    assert 0.4 < alone < 0.6


async def test_sockets_of_those_who_wait_rest(stage: Stage) -> None:
    for number in range(10):
        stage.turns.readable(stage.session(f"busy {number}"))
    late = stage.session("late", pieces=1)
    stage.turns.readable(late)
    assert waits(late)
    stage.turns.readable(late)  # the loop goes on telling that there is something
    assert late.resting == [True]
    while waits(late):
        await turn_round()
    assert late.resting == [True, False]
    assert stage.served.count("late") == 1


async def test_handshakes_get_what_is_left_but_never_nothing(stage: Stage) -> None:
    for number in range(4):
        stage.turns.readable(stage.session(f"records {number}"))
    strangers = {"address": "10.0.0.66", "known": False, "pieces": 1}
    for number in range(100):
        stage.turns.readable(stage.session(f"stranger {number}", **strangers))
    other = stage.session("other", address="10.0.0.77", known=False, pieces=1)
    stage.turns.readable(other)
    back = stage.session("back", address="10.0.0.9", known=False, pieces=1)
    stage.turns.readable(back)
    for _ in range(5):
        seen = len(stage.served)
        await turn_round()
        done = [name for name in stage.served[seen:] if not name.startswith("records")]
        assert len(done) == 1
    handshakes = [name for name in stage.served if not name.startswith("records")]
    assert "back" in handshakes[:2]  # records came from its address
    assert "other" in handshakes[:4]  # an address pays, not each of its sessions


async def test_who_closed_meanwhile_is_not_served(stage: Stage) -> None:
    for number in range(8):
        stage.turns.readable(stage.session(f"busy {number}", pieces=3))
    gone = stage.session("gone")
    stage.turns.readable(gone)
    gone.open = False
    for _ in range(20):
        await turn_round()
    assert "gone" not in stage.served
    assert len(stage.served) == 24


def test_a_queue_keeps_few_virtual_times() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(100_000):
        queue.push(number, number)
        assert queue.pop() == (number, number)
        queue.charge(number, 0.001)
    assert len(queue._tags) < 3000


def test_what_was_not_used_is_not_saved_up() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push("busy", "busy")
        queue.pop()
        queue.charge("busy", 1.0)
    for _ in range(3):  # one that was away has no hundred pieces to catch up with
        queue.push("back", "back")
        queue.push("busy", "busy")
        for _ in range(2):
            key, _ = queue.pop()
            queue.charge(key, 1.0)
    assert abs(queue.start("back") - queue.start("busy")) <= 1.0
