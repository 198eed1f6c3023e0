"""What older releases of Antrea, which end sessions at unknown elements, are sent."""

import pytest

from flowvis.elements import ANTREA, REGISTRY
from flowvis.fields import AGGREGATED, ANTREA_EXPORTED, EXPORTED, Field
from flowvis.ipfix.receivers import parse_release, understood


def numbers(fields: tuple[Field, ...]) -> list[int]:
    elements = [REGISTRY.named(name) for field in fields for name in field.elements]
    return [element.id for element in elements if element.enterprise == ANTREA]


@pytest.mark.parametrize(
    ("release", "last"),
    [("v0.12.3", 135), ("1.1", 140), ("1.5", 144), ("1.13", 152), ("1.14.0", 154), ("2.2", 157)],
)
@pytest.mark.parametrize("fields", [EXPORTED, AGGREGATED], ids=["exporter", "aggregator"])
def test_an_old_release_is_sent_what_its_registry_has(
    release: str, last: int, fields: tuple[Field, ...]
) -> None:
    kept = understood(fields, parse_release(release))
    antreas = [field for field in fields if (field.exported or 0) <= ANTREA_EXPORTED]
    assert max(numbers(kept)) <= last
    assert [field for field in antreas if max(numbers((field,)), default=0) <= last] == list(kept)
    assert all((field.exported or 0) <= ANTREA_EXPORTED for field in kept)


@pytest.mark.parametrize("release", ["2.3", "v2.7.0", "10.0"])
def test_a_lenient_release_is_sent_all(release: str) -> None:
    for fields in (EXPORTED, AGGREGATED):
        assert understood(fields, parse_release(release)) == fields
        assert understood(fields, None) == fields


def test_the_whole_template_of_2_2() -> None:
    names = {field.name for field in understood(EXPORTED, parse_release("2.2"))}
    left_out = {field.name for field in EXPORTED} - names
    assert left_out >= {"proxySnatIP", "proxySnatPort", "destinationServiceIP"}
    assert left_out >= {"flowStartMilliseconds", "flowEndMilliseconds"}
    assert {"egressNodeName", "destinationClusterIP", "flowStartSeconds"} <= names


@pytest.mark.parametrize("text", ["two", "2", "2.2.1.0", "-1.0", "2.x", "0.11", "99999.1"])
def test_what_is_no_release(text: str) -> None:
    with pytest.raises(ValueError, match=r"release|older"):
        parse_release(text)
