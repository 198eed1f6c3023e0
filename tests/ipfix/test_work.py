"""What one call does for a peer is bounded, whatever the peer sends; the rest waits."""

import itertools
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from struct import pack

import pytest
from benchmarks.attacks import doors

from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorSession, RecordBuffer, plan
from flowvis.ipfix.collector import FRUITLESS_WORK
from flowvis.ipfix.events import Fruitless
from flowvis.native import StringTable

from . import wire

WORK = 500
PORT = (0, 7, 2)


def peer(buffer: RecordBuffer | None = None) -> CollectorSession:
    if buffer is None:
        buffer = RecordBuffer(EXPORTED, StringTable())
    return CollectorSession("peer", buffer)


def streams() -> dict[str, bytes]:
    """What peers send that cost more than they bring, as the attacks have it."""
    found: dict[str, bytes] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda *given: found.update({name: given[2]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doors, "STREAM_BYTES", 30_000)
        for attack in (
            doors.templates_redefined,
            doors.small_templates_redefined,
            doors.templates_withdrawn,
            doors.options_templates,
            doors.templates_too_long,
            doors.empty_messages,
            doors.many_sets,
            doors.malformed_sets,
        ):
            patch.setattr(doors, "_flood", keep(attack.__name__))
            attack(0, Path())
    return found


STREAMS = streams()


def made_work(session: CollectorSession) -> bool:
    return session.fruitless


def events_of(session: CollectorSession) -> int:
    stats = session.stats
    changes = stats.templates + stats.templates_changed + stats.templates_withdrawn
    return changes + stats.malformed.total() + stats.gaps


@pytest.mark.parametrize("name", STREAMS)
def test_a_call_does_a_bounded_part_of_what_came(name: str) -> None:
    session, whole = peer(), peer()
    whole.receive(STREAMS[name])
    session.receive(STREAMS[name], WORK)
    done = [events_of(session)]
    while session.pending:
        before = events_of(session)
        session.go_on(WORK)
        done.append(events_of(session) - before)
    assert max(done) <= WORK / 10 + 1
    assert session.stats == whole.stats
    assert sum(done) == events_of(whole) > 0


def test_a_session_that_only_makes_work_is_reported_once_until_records_come() -> None:
    session = peer()
    reported = []
    learned = wire.message(wire.templates(wire.template(256, PORT)))
    for number in itertools.count():
        other = wire.message(wire.templates(wire.template(256, (0, 1 + number % 2, 8))))
        reported += [each for each in session.receive(other) if isinstance(each, Fruitless)]
        if made_work(session):
            break
        assert number < FRUITLESS_WORK
    (event,) = reported
    assert event.templates == number + 1 > 256
    assert event.faults == 0
    session.receive(learned)
    assert made_work(session)
    session.receive(wire.message(wire.set_of(256, pack(">H", 80))))
    assert not made_work(session)
    assert session.stats.fruitless == 1


def test_templates_that_are_only_repeated_are_no_waste() -> None:
    session = peer()
    message = wire.message(wire.templates(wire.template(256, PORT)))
    for _ in range(20):
        session.receive(message * 2000)
    assert session.stats.templates_repeated > 39_000
    assert not made_work(session)


def test_a_buffer_that_is_full_makes_its_session_wait() -> None:
    buffer = RecordBuffer(EXPORTED, StringTable(), most=5000)
    session = peer(buffer)
    records = wire.set_of(256, *(pack(">H", number) for number in range(20_000)))
    session.receive(wire.message(wire.templates(wire.template(256, PORT)), records), WORK)
    ports: list[int] = []
    while True:
        assert len(buffer) <= 5000
        ports += buffer.batch()["sourceTransportPort"].tolist()
        buffer.clear()
        if not session.pending:
            break
        session.go_on(WORK)
    assert ports == list(range(20_000))
    assert session.stats.records == 20_000


def test_bytes_that_come_while_work_waits_are_after_it() -> None:
    session = peer()
    stream = STREAMS["small_templates_redefined"]
    tail = wire.message(
        wire.templates(wire.template(300, PORT)), wire.set_of(300, pack(">H", 443)), domain=9
    )
    session.receive(stream, WORK)
    session.receive(tail, WORK)
    while session.pending:
        session.go_on(WORK)
    assert session.stats.records == 1


def test_one_compiles_for_all_and_each_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = 0
    real = plan.decode_plan

    def counted(*arguments: object) -> plan.Plan:
        nonlocal compiled
        compiled += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(plan, "decode_plan", counted)
    buffer = RecordBuffer(EXPORTED, StringTable())
    for number in (5, 6, 7):
        session = CollectorSession("peer", buffer, exporter=partial(max, number))
        session.receive(
            wire.message(
                wire.templates(wire.template(256 + number, PORT)),
                wire.set_of(256 + number, pack(">H", number)),
                domain=1,
            )
        )
    assert compiled == 1
    assert buffer.batch()["observationDomainId"].tolist() == [5, 6, 7]
    options = wire.message(wire.options_template(256, 1, PORT), wire.set_of(256, pack(">H", 1)))
    session.receive(options)
    assert compiled == 2  # the same fields, but records of options are no flows
    assert session.stats.ignored_records == 1


def test_plans_are_bounded_and_the_used_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = RecordBuffer(EXPORTED, StringTable())
    ours = wire.message(wire.templates(wire.template(256, PORT)))
    session = peer(buffer)
    for number in range(1, 3000):
        other = wire.template(300, (0, 1 + number % 400, 8), (77, number, 4))
        session.receive(wire.message(wire.templates(other)))
        if number % 100 == 0:
            peer(buffer).receive(ours)
    assert len(buffer.plans) <= plan.MAX_PLANS
    with monkeypatch.context() as patch:
        patch.setattr(plan, "decode_plan", None)
        peer(buffer).receive(ours)
    for number in range(400):
        fields = [(77 + number, 1 + at, 4) for at in range(250)]
        session.receive(wire.message(wire.templates(wire.template(300, *fields))))
    assert len(buffer.plans) <= plan.MAX_PLANNED_FIELDS / 250


@pytest.mark.parametrize(("fields", "templates"), [(4, 250), (250, 40)])
def test_templates_take_no_more_than_is_counted(fields: int, templates: int) -> None:
    """A program is in memory for each template of each session: not as objects of Python's."""
    buffer = RecordBuffer(EXPORTED, StringTable())
    streams = [
        wire.message(
            wire.templates(
                wire.template(256 + n, PORT, *[(4242, 1 + at, 1) for at in range(fields)])
            )
        )
        for n in range(templates)
    ]
    peer(buffer).receive(b"".join(streams))  # what sessions share
    session = peer(buffer)
    tracemalloc.start()
    for stream in streams:
        session.receive(stream)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert session.stats.templates == templates
    assert taken < session.template_bytes
