"""YAML documents that are small to write and large to walk through."""

import pytest
import yaml

from flowvis.errors import SettingsError
from flowvis.runtime.documents import check_aliases, parse


def laughs(levels: int, each: int = 9) -> str:
    """A mapping whose last value stands for each ** (levels + 1) others."""
    lines = [f"a0: &a0 [{', '.join(['x'] * each)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * each)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"z: *a{levels - 1}", ""])


@pytest.mark.parametrize(
    "text",
    [
        laughs(9),
        laughs(40, 2),
        "a: &a {b: 1}\nc: &c {<<: [" + ", ".join(["*a"] * 300) + "]}\n"
        "d: &d {<<: [" + ", ".join(["*c"] * 300) + "]}\n"
        "e: {<<: [" + ", ".join(["*d"] * 300) + "]}\n",
    ],
    ids=["lists", "doublings", "merges"],
)
def test_aliases_do_not_make_a_document_of_billions(text: str) -> None:
    with pytest.raises(SettingsError, match="aliases make more than 65536 values"):
        parse(text.encode())


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: {c: *a}}\n", "a: &a\n  <<: *a\n"])
def test_a_value_cannot_contain_itself(text: str) -> None:
    with pytest.raises(SettingsError, match=r"contains itself|found undefined alias"):
        parse(text.encode())


def test_people_may_write_something_once_and_mean_it_twice() -> None:
    text = "one: &common {limit: 3, names: [a, b]}\ntwo: *common\nthree: {<<: *common, limit: 4}\n"
    assert parse(text.encode()) == {
        "one": {"limit": 3, "names": ["a", "b"]},
        "two": {"limit": 3, "names": ["a", "b"]},
        "three": {"limit": 4, "names": ["a", "b"]},
    }


def test_what_only_looks_like_an_alias_is_none() -> None:
    check_aliases(b"a: '*x'\nb: \"*y\"\nc: |\n  *z\n")
    with pytest.raises(yaml.YAMLError, match="undefined alias"):
        check_aliases(b"a: *x\n")


@pytest.mark.parametrize(
    "text",
    [
        "one:\n  inner: &a {<<: {limit: 3}, limit: 4}\ntwo: {<<: *a}\n",
        "one: [[&a {<<: [{limit: 3}, {limit: 5}], limit: 4}]]\ntwo: {<<: [*a]}\n",
    ],
    ids=["mapping", "list"],
)
def test_what_merges_and_is_merged_gives_no_key_twice(text: str) -> None:
    assert parse(text.encode())["two"] == {"limit": 4}


def test_a_key_is_given_once_whatever_is_merged() -> None:
    with pytest.raises(SettingsError, match="line 1, column 20: limit is given twice"):
        parse(b"one: &a {limit: 4, limit: 5}\n")
    with pytest.raises(SettingsError, match="limit is given twice"):
        parse(b"one: {inner: &a {limit: 4, <<: {x: 1}, limit: 5}}\ntwo: {<<: *a}\n")


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0b" + "1" * 20_000, "9" * 5000])
@pytest.mark.parametrize("text", ["{}", "a: {}", "a: [{}]"])
def test_numbers_that_nobody_writes_out_are_none(text: str, number: str) -> None:
    with pytest.raises(SettingsError, match="this is no int: a text needs quotes"):
        parse(text.format(number).encode())
