"""Texts that people mistype, paste, or make up to do harm: a filter or a FilterError, and soon."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.records import records
from flowvis.filters import FilterError, parse
from flowvis.filters.completion import complete
from flowvis.filters.mask import mask
from flowvis.filters.parser import MAX_CONDITIONS, MAX_VALUES
from flowvis.filters.predicates import TextIn, column_text, some
from flowvis.filters.sql import condition
from flowvis.filters.tokens import MAX_LENGTH
from flowvis.filters.vocabulary import NAMES

BATCH = records({"sourcePodName": "a" * 5000, "sourceIP": "10.0.0.1"}, {"sourceIP": "::1"})
PIECES = st.sampled_from(
    [
        *list(NAMES)[:30], "label.app", "src.label.a/b",
        *("and", "or", "not", "in", "is", "empty"),
        *("(", ")", ",", "=", "!=", "~", "!~", "<", ">=", "!", "&&", "||", "&"),
        *("a", "*", "a*", '"', "'", '"x"', "'y z'", "\\", "10.0.0.0/8", "::", "1-2", "1..", ".."),
        *("10MB", "1Gbit/s", "5m", "1e9", "٣", "²", "0x10", "2026-01-01", "k8s:", "/", "a/b:c"),
        *("\n", "\x00", "\u2028", "\ud800", "🙂", "\N{KELVIN SIGN}", "%", "-"),
    ]
)  # fmt: skip


def _nothing(_name: str, _written: str) -> tuple[()]:
    return ()


@given(st.lists(PIECES, max_size=12).map(" ".join) | st.lists(PIECES).map("".join) | st.text())
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    error = complete(text, 0, _nothing).error
    if error is not None:
        assert 0 <= error.position <= error.position + error.length <= max(len(text), MAX_LENGTH)
        assert str(error)
    else:
        found = parse(text)
        assert parse(str(found)) == found
        assert condition(found).text
        assert len(mask(found, BATCH)) == 2
    for position in (0, len(text) // 2, len(text)):
        completion = complete(text, position, _nothing)
        assert 0 <= completion.start <= completion.end <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * MAX_LENGTH,
        "not " * (MAX_LENGTH // 4),
        '"' + "\\" * (MAX_LENGTH - 1),
        "pod = " + "a*" * 4000,
        f"label.app in ({','.join(['a*'] * MAX_VALUES)})",
        f"policy in ({','.join(['k8s:*/*'] * MAX_VALUES)})",
        " or ".join([f"{number}.{number}.{number}." for number in range(MAX_CONDITIONS)]),
        "pod ~ '(a*)*b' or pod ~ '(a|aa)+$' or pod ~ '(.*)(.*)(.*)(.*)(.*)x'",
        f"pod ~ '{'(a?){50}' * 5}{'a{50}' * 5}'",
        "pod ~ '(x+x+)+y'",
        "bytes > " + "9" * 8000,
        "duration > " + "1h" * 4000,
        "ip in " + "1." * 4000,
        "proto = " + "²",
        "port = ٣",
        "port in ٣-٤",
        "sourcePodNam" * 600,
    ],
)
def test_what_is_made_to_take_long(text: str) -> None:
    """It ends well within the time limit of a test; what backtracks would take years."""
    try:
        found = parse(text)
    except FilterError:
        return
    assert len(mask(found, BATCH)) == 2
    assert len(condition(found).text) < 1 << 20


class _Counted(bytes):
    """A text that counts how often anybody looks for one."""

    looked = 0

    def __hash__(self) -> int:
        _Counted.looked += 1
        return super().__hash__()


def test_who_sees_many_namespaces_costs_no_more_for_each() -> None:
    """A list of values is one condition, which is made before anybody else is served."""
    names = [_Counted(b"namespace-%d" % number) for number in range(2000)]
    text = column_text("sourcePodNamespace")
    found = some(TextIn(text, (name,)) for name in [*names, *names])
    assert found == TextIn(text, tuple(names))
    assert _Counted.looked <= 5 * len(names)
