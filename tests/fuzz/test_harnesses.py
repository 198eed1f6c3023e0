"""A fixed number of damaged inputs for each harness; `python -m fuzz` goes on from there."""

import itertools

import pytest
from fuzz.harness import CORPUS
from fuzz.harnesses import HARNESSES

INPUTS = 200


@pytest.mark.parametrize("name", HARNESSES)
def test_the_corpus_is_read(name: str) -> None:
    inputs = HARNESSES[name].inputs()
    assert inputs
    for data in inputs:
        HARNESSES[name].one(data)


@pytest.mark.parametrize("name", HARNESSES)
def test_damaged_inputs_are_refused_in_order(name: str) -> None:
    harness = HARNESSES[name]
    for data in itertools.islice(harness.damaged(seed=1), INPUTS):
        try:
            harness.one(data)
        except BaseException as error:
            error.add_note(f"input: {data[:500].hex()}, {len(data)} bytes")
            raise


def test_no_corpus_is_without_a_harness() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(HARNESSES)
