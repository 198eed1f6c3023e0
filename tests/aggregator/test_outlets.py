"""The table of destinations: which there are, what holds the watermark, who has what memory."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from flowvis.aggregator.destinations.kind import Kind, Place, Surroundings
from flowvis.aggregator.destinations.outlets import Outlets
from flowvis.batch import SETTLED, Batch
from flowvis.delivery.destination import Destination
from flowvis.delivery.outlet import Outlet
from flowvis.delivery.queue import Queue, Unsettled
from flowvis.errors import SettingsError
from flowvis.runtime.dropped import OutgoingDropped
from flowvis.runtime.ledger import Ledger
from waiting import until

from .records import numbered


@dataclass(frozen=True)
class Section:
    """A destination's settings."""

    enable: bool = True
    required: bool = False
    name: str = ""
    where: str = "here"


@dataclass(frozen=True)
class Settings:
    """All of them."""

    first: Section = field(default_factory=Section)
    listed: tuple[Section, ...] = ()
    cluster: str = ""


class Box:
    """A destination that keeps what it gets until the test delivers it."""

    def __init__(self, section: Section, place: Place, before: Destination | None) -> None:
        self.name = section.where
        self.required = section.required
        self.waits_s = 0.0
        self.stats: Any = None
        self.problem = ""
        self.queue = Queue(place.stage, 1000, place.max_bytes)
        self.put, self.held, self.remainder = self.queue.put, self.queue.__len__, self.queue.release
        self.max_bytes = place.max_bytes
        self.before = before
        self.retired = self.started = self.stopping = False
        self.hold = asyncio.Event()

    @property
    def mark(self) -> int:
        return self.queue.mark

    @property
    def details(self) -> dict[str, int]:
        return {"taken": self.queue.taken}

    def held_bytes(self) -> int:
        return self.queue.bytes

    def bound(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None:
        self.stopping = True
        if not self.hold.is_set():
            await self.hold.wait()
        self.abandon()

    async def retire(self, hurry: asyncio.Event) -> None:  # noqa: ARG002
        self.queue.close()
        await self.hold.wait()
        self.retired = True

    def succeed(self, remainder: Unsettled) -> None:
        self.queue.take_over(remainder)

    def abandon(self) -> None:
        self.queue.abandon(OutgoingDropped.SHUTDOWN)

    def deliver(self) -> None:
        while (batch := self.queue.take()) is not None:
            self.queue.sent(len(batch))


KINDS: tuple[Kind[Any], ...] = (
    Kind("first", "first", Box, weight=2.0),
    Kind("listed", "listed", Box, several=True, beside=lambda _, settings: settings.cluster),
)


class Ways:
    """Outlets, the stage that they follow, and books that balance."""

    def __init__(self, settings: Settings, max_bytes: int = 1 << 20) -> None:
        self.ledger = Ledger()
        self.source = self.ledger.stage("source")
        surroundings = Surroundings(1.0, 1 << 30, lambda: 7)
        self.outlets = Outlets(KINDS, self.ledger, self.source, surroundings, max_bytes)
        self.outlets.begin(settings)

    def put(self, mark: int, count: int = 10) -> None:
        batch = numbered(mark, count)
        batch.mark = mark
        self.source.received += count
        for outlet in self.outlets:
            outlet.put(Batch(batch.columns, batch.strings, mark))
        self.source.sent += count
        assert self.ledger.imbalance() == {}, self.ledger.as_dict()

    def box(self, page: str) -> Box:
        found = self.outlets.current(page)
        assert isinstance(found, Box)
        return found


async def test_required_destinations_hold_the_watermark_and_others_do_not() -> None:
    ways = Ways(Settings(Section(required=True), (Section(name="a"), Section(name="b"))))
    assert ways.outlets.mark == SETTLED
    ways.put(3)
    ways.put(4)
    ways.box("listed-a").deliver()
    assert ways.outlets.mark == 3
    ways.box("first").deliver()
    assert ways.outlets.mark == SETTLED
    assert ways.box("listed-b").held() == 20


async def test_all_required_ones_hold_it() -> None:
    listed = (Section(name="a", required=True), Section(name="b", required=True))
    ways = Ways(Settings(Section(), listed))
    ways.put(3)
    ways.box("listed-a").deliver()
    ways.put(4)
    assert ways.outlets.mark == 3
    ways.box("listed-b").deliver()
    assert ways.outlets.mark == 4
    ways.box("listed-a").deliver()
    assert ways.outlets.mark == SETTLED


async def test_where_none_is_required_the_first_that_there_is_holds_it() -> None:
    ways = Ways(Settings(Section(enable=False), (Section(name="a"), Section(name="b"))))
    ways.put(3)
    ways.box("listed-b").deliver()
    assert ways.outlets.mark == 3
    ways.box("listed-a").deliver()
    assert ways.outlets.mark == SETTLED
    assert Ways(Settings(Section(enable=False))).outlets.mark == SETTLED


async def test_what_is_replaced_holds_it_until_it_has_handed_over() -> None:
    ways = Ways(Settings(Section(required=True)))
    await ways.outlets.start()
    old = ways.box("first")
    ways.put(3)
    await ways.outlets.apply(Settings(Section(required=True, where="there")))
    new = ways.box("first")
    assert new.before is old
    ways.put(4)
    assert ways.outlets.mark == 3
    new.deliver()
    assert ways.outlets.mark == 3
    old.hold.set()
    await until(lambda: new.started)
    assert (ways.outlets.mark, new.held()) == (3, 10)
    new.deliver()
    assert ways.outlets.mark == SETTLED
    assert ways.ledger.imbalance() == {}


async def test_only_what_is_set_otherwise_is_replaced() -> None:
    settings = Settings(listed=(Section(name="a"), Section(name="b"), Section(name="c")))
    ways = Ways(settings)
    await ways.outlets.start()
    first, a, b, c = (ways.box(page) for page in ("first", "listed-a", "listed-b", "listed-c"))
    for box in (a, b, c):
        box.hold.set()
    ways.put(1)
    moved = Settings(listed=(Section(name="c", where="there"), Section(name="a")))
    await ways.outlets.apply(moved)
    await until(lambda: b.retired and c.retired)
    await until(lambda: ways.box("listed-c").started)
    assert (ways.box("first"), ways.box("listed-a")) == (first, a)
    assert ways.outlets.current("listed-b") is None
    assert ways.outlets.has("listed")
    ways.put(2)
    assert ways.ledger.stages["listed-b"].dropped == {"shutdown": 10}
    assert ways.box("listed-c").held() == ways.box("listed-a").held() == 20
    await ways.outlets.apply(Settings(listed=moved.listed, cluster="other"))
    await until(lambda: a.retired)
    assert ways.box("first") is first
    assert ways.box("listed-a") is not a


async def test_books_balance_while_a_change_waits_for_the_one_before() -> None:
    """What is there takes records meanwhile, and what comes is not there yet."""
    ways = Ways(Settings())
    await ways.outlets.start()
    old = ways.box("first")
    ways.put(1)
    await ways.outlets.apply(Settings(Section(where="there")))
    second = ways.box("first")
    last = Settings(Section(where="elsewhere"), (Section(name="a"),))
    applying = asyncio.create_task(ways.outlets.apply(last))
    await asyncio.sleep(0)
    ways.put(2)
    assert (old.held(), second.held()) == (10, 10)
    assert ways.outlets.current("listed-a") is None
    old.hold.set()
    second.hold.set()
    await applying
    ways.put(3)
    await until(lambda: ways.box("first").started)
    assert (ways.box("first").held(), ways.box("listed-a").held()) == (30, 10)
    assert ways.ledger.imbalance() == {}


@pytest.mark.parametrize("added", [False, True])
async def test_where_one_cannot_be_made_nothing_changes_and_it_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, added: bool
) -> None:
    """What was replaced before it, and what comes after it, is as it was; books balance."""
    names = ["a", "b", "c"]
    there = tuple(Section(name=name) for name in names if not (added and name == "b"))
    ways = Ways(Settings(listed=there))
    await ways.outlets.start()
    boxes = {page: ways.outlets.current(f"listed-{page}") for page in names}
    wanted = Settings(listed=tuple(Section(name=name, where="there") for name in names))
    making = Box.__init__

    def fails(box: Box, section: Section, place: Place, before: Destination | None) -> None:
        if section.name == "b":
            raise SettingsError(["listed.b: nowhere to write"])
        making(box, section, place, before)

    with monkeypatch.context() as patch:
        patch.setattr(Box, "__init__", fails)
        with pytest.raises(SettingsError):
            await ways.outlets.apply(wanted)
    assert {page: ways.outlets.current(f"listed-{page}") for page in names} == boxes
    ways.put(1)
    for box in filter(None, boxes.values()):
        box.hold.set()  # type: ignore[attr-defined]
    await ways.outlets.apply(wanted)
    assert [ways.box(f"listed-{page}").name for page in names] == ["there"] * 3
    ways.put(2)
    await ways.outlets.apply(wanted)
    assert all(ways.box(f"listed-{page}").name == "there" for page in names)


async def test_memory_is_shared_by_the_weights_of_what_is_enabled() -> None:
    ways = Ways(Settings(Section()), max_bytes=12_000)
    assert ways.box("first").max_bytes == 12_000
    await ways.outlets.start()
    await ways.outlets.apply(Settings(Section(), (Section(name="a"), Section(name="b"))))
    found = [ways.box(page).max_bytes for page in ("first", "listed-a", "listed-b")]
    assert found == [6000, 3000, 3000]
    ways.box("listed-a").hold.set()
    ways.box("listed-b").hold.set()
    await ways.outlets.apply(Settings(Section()))
    assert ways.box("first").max_bytes == 12_000


@pytest.mark.parametrize("page", ["first", "listed-a"])
async def test_the_status_names_what_there_is(page: str) -> None:
    ways = Ways(Settings(Section(where="store"), (Section(name="a", where="siem"),)))
    await ways.outlets.start()
    ways.box(page).problem = "away"
    names = {"first": "store", "listed-a": "siem"}
    found = {one["name"]: one["problem"] for one in ways.outlets.as_dicts()}
    assert found == {name: "away" if at == page else "" for at, name in names.items()}
    ways.put(1, 15)
    (shown,) = [one for one in ways.outlets.as_dicts() if one["page"] == page]
    assert shown["records"] == 15
    assert (shown["required"], shown["taken"]) == (False, 0)


async def test_how_far_behind_a_destination_is() -> None:
    now_s = [100.0]
    ledger = Ledger()
    source = ledger.stage("source")
    outlet: Outlet[Box] = Outlet("sink", ledger, source, clock_s=lambda: now_s[0])
    box = Box(Section(), Place(outlet.stage, 1 << 20, Surroundings(1, 1, lambda: 1)), None)
    outlet.begin(box)
    assert outlet.behind_s == 0
    for _ in range(8):
        source.received += 5
        source.sent += 5
        outlet.put(numbered(0, 5))
        now_s[0] += 0.5
    assert outlet.behind_s == 4
    box.queue.take()
    box.queue.sent(5)
    box.queue.take()
    box.queue.sent(5)
    assert outlet.behind_s == 3
    box.deliver()
    assert outlet.behind_s == 0
    now_s[0] += 50
    source.received += 5
    source.sent += 5
    outlet.put(numbered(0, 5))
    now_s[0] += 2
    assert outlet.behind_s == 2
    box.waits_s = 900.0  # as an upload that comes each quarter of an hour
    now_s[0] += 890
    assert outlet.behind_s == 0
    now_s[0] += 15
    assert outlet.behind_s == 7


async def test_those_that_are_away_take_no_longer_together_than_one() -> None:
    ways = Ways(Settings(listed=(Section(name="a"), Section(name="b"))))
    await ways.outlets.start()
    ways.put(1)
    boxes = [ways.box(page) for page in ("first", "listed-a", "listed-b")]
    stopping = asyncio.ensure_future(ways.outlets.stop())
    await until(lambda: all(box.stopping for box in boxes))
    for box in boxes:
        box.hold.set()
    await stopping
    assert ways.ledger.stages["listed-b"].dropped == {"shutdown": 10}
