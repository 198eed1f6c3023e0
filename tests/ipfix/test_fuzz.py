"""Any input parses or raises PeerError; both forms of the leaf agree on every input."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.errors import PeerError
from flowvis.fields import EXPORTED
from flowvis.ipfix import CollectorLimits, ExporterSession

from . import wire
from .conftest import LEAVES, Leaf, use
from .feeding import Fed
from .records import batch_of
from .test_streams import busy_stream


class Outcome:
    """All that can be seen of a session after a stream, in one comparable value."""

    def __init__(self, leaf: Leaf, pieces: list[bytes]) -> None:
        fed = Fed(leaf, limits=CollectorLimits(templates=4, template_fields=8, text_size=40))
        self.error = ""
        try:
            fed.feed(pieces)
            fed.session.eof()
        except PeerError as error:  # what a peer may cause; anything else is ours
            self.error = f"{type(error).__name__} {error}"
        self.records = fed.records
        self.events = [repr(event) for event in fed.events]
        self.stats = repr(fed.session.stats)


def compare(pieces: list[bytes]) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        outcomes = []
        for leaf in LEAVES.values():
            use(leaf, patch)
            outcomes.append(Outcome(leaf, pieces))
    assert vars(outcomes[0]) == vars(outcomes[1])
    return outcomes[1]


def mutated(stream: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, most near the front, where the structure is."""
    raw = bytearray(stream)
    for _ in range(rng.randint(1, 6)):
        at = min(int(rng.expovariate(1 / 120)), len(raw) - 1)
        match rng.randrange(4):
            case 0:
                raw[at] = rng.choice([0, 1, 2, 3, 4, 255, 254, 10, 16, 128, rng.randrange(256)])
            case 1:
                del raw[at : at + rng.randint(1, 4)]
            case 2:
                raw[at:at] = rng.randbytes(rng.randint(1, 4))
            case _:
                raw[at : at + 2] = rng.choice([b"\0\0", b"\xff\xff", b"\0\4", b"\1\0", b"\0\3"])
    return bytes(raw)


def seeds() -> list[bytes]:
    leaf = LEAVES["compiled"]
    batch = batch_of([{"sourceIP": "10.0.0.1", "sourcePodName": "a"}] * 3, leaf.table())
    session = ExporterSession(7, EXPORTED)
    fields = ((0, 7, 2), (56506, 101, wire.VARIABLE), (0, 8, 4), (0, 1, 3), (999, 5, wire.VARIABLE))
    data = bytes([0, 80]) + wire.text("pod") + bytes([10, 0, 0, 1, 1, 2, 3]) + wire.text("x")
    small = wire.message(
        wire.templates(wire.template(256, *fields)),
        wire.set_of(256, data, data),
        wire.options_template(257, 1, (0, 149, 4), (0, 82, wire.VARIABLE)),
        wire.set_of(257, b"\0\0\0\7" + wire.text("eth0")),
    )
    more = wire.message(wire.set_of(256, data), sequence=3)
    return [
        small + more + more,
        busy_stream(leaf),
        b"".join(session.templates(0) + session.encode(batch, 0)),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_streams(seed: int) -> None:
    rng = random.Random(seed)
    streams = seeds()
    errors = set()
    for round_ in range(250):
        stream = mutated(streams[round_ % len(streams)], rng)
        cut = rng.randrange(len(stream)) if stream else 0
        errors.add(compare([stream[:cut], stream[cut:]]).error.split(" ")[0])
    assert errors == {"", "MalformedMessage"}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=5))
def test_noise(pieces: list[bytes]) -> None:
    compare(pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([2, 3, 256, 257]), st.binary(max_size=40)), max_size=6))
def test_noise_in_sets(sets: list[tuple[int, bytes]]) -> None:
    compare([wire.message(*(wire.set_of(set_id, body) for set_id, body in sets))])


def test_memory_is_bounded(leaf: Leaf) -> None:
    """A peer that sends templates, domains and texts without end gets no memory for it."""
    rng = np.random.default_rng(1)
    fields = [(4242, number, 65535) for number in range(200)]
    bombs = [
        wire.message(wire.templates(wire.template(256 + n, *fields)), domain=n * 77, sequence=n)
        for n in range(600)
    ]
    fed = Fed(leaf, limits=CollectorLimits(templates=20))
    fed.feed(bombs[:100])
    tracemalloc.start()
    try:
        for bomb in bombs[100:]:
            fed.session.receive(bomb)
            fed.session.receive(wire.message(wire.set_of(5, rng.bytes(50)), domain=1))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 200_000
    assert fed.session.stats.templates == 20
    assert fed.session.stats.malformed["templates"] == 580
