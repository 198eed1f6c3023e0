"""What the text of a filter may go on with at the cursor: names, operators, values, words."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from flowvis.clickhouse.schema.tables import FLOWS_COLUMNS
from flowvis.filters.errors import FilterError, Place, UnfinishedError
from flowvis.filters.parser import SIGNS, parse
from flowvis.filters.spending import Spend, freely
from flowvis.filters.tokens import quote
from flowvis.filters.tree import Operator
from flowvis.filters.vocabulary import LABEL_HELP, NAMES, SIDES, Name, lookup

MAX_OPTIONS = 100
"""Options of one answer."""
LABEL_KEYS = "label"
"""The name under which the keys of labels are asked for."""


@dataclass(frozen=True, slots=True)
class Known:
    """A value that is there."""

    text: str
    count: int | None = None
    """In how many records, where that is known."""


@dataclass(frozen=True, slots=True)
class Option:
    """Something that may stand at the cursor."""

    text: str
    """As it is written there."""
    kind: str
    """name, operator, value or word."""
    help: str = ""
    count: int | None = None
    """In how many records the value is, where that is known."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Options in place of a part of the text."""

    start: int
    end: int
    options: Sequence[Option]
    error: FilterError | None
    """What is wrong with the whole text as it is."""


Values = Callable[[str, str], Sequence[Known]]
"""Gives values of a name that contain a text, in any case, the most used first. The name is as the
vocabulary spells it; LABEL_KEYS, or that of a side, asks for the keys of labels."""

_UNFINISHED = re.compile(r"""[^\s\x00-\x1f\x7f()'",=<>~!&|]*\Z""")
_OPERATOR = re.compile(r"[=<>~!]+\Z")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*("|\Z)|\'(?:[^\'\\]|\\.)*(\'|\Z)', re.DOTALL)
_REST = re.compile(r"""[^\s\x00-\x1f\x7f()'",=<>~!&|]*""")
_KEYED = re.compile(
    r"((?:(?:src|dst|source|destination)\.)?label)\.(.*)", re.IGNORECASE | re.DOTALL
)


def complete(text: str, position: int, values: Values, spend: Spend = freely) -> Completion:
    """Return what may stand at a position of a text, and what is wrong with the text."""
    position = max(0, min(position, len(text)))
    start, end, written = _at_cursor(text, position)
    options = islice(_options(text[:start], written, values, spend), MAX_OPTIONS)
    return Completion(start, end, list(options), _error(text, spend))


def _error(text: str, spend: Spend) -> FilterError | None:
    try:
        parse(text, spend)
    except FilterError as error:
        return error
    return None


def _at_cursor(text: str, position: int) -> tuple[int, int, str]:
    """Return where the token at the cursor begins and ends, and what of it is before the cursor."""
    for quoted in _QUOTED.finditer(text):
        if quoted.start() < position and (position < quoted.end() or not (quoted[1] or quoted[2])):
            return quoted.start(), quoted.end(), text[quoted.start() + 1 : position]
    before = text[:position]
    if sign := _OPERATOR.search(before):
        start = len(before) if sign[0] in SIGNS else sign.start()
        return start, position, before[start:]
    word = _UNFINISHED.search(before)
    start = word.start() if word else position
    rest = _REST.match(text, position)
    return start, rest.end() if rest else position, before[start:]


def _options(before: str, written: str, values: Values, spend: Spend) -> Iterator[Option]:
    """Go through what may follow a text, of which the last token is written so far."""
    try:
        parse(before, spend)
    except UnfinishedError as error:
        if error.place is Place.CONDITION:
            yield from _conditions(written, values)
        elif error.place is Place.NAME:
            yield from _operators(lookup(error.name), written)
        elif error.place is Place.VALUE:
            yield from _values(lookup(error.name), written, values)
        else:
            yield from _words(error.expected, written)
    except FilterError:
        return
    else:
        if before.strip():
            yield from _words(("and", "or"), written)
        else:
            yield from _conditions(written, values)


def _words(words: Iterable[str], written: str) -> Iterator[Option]:
    for word in words:
        if word.startswith(written.lower()):
            yield Option(word, "word")


def _conditions(written: str, values: Values) -> Iterator[Option]:
    if keyed := _KEYED.fullmatch(written):
        name, key = keyed[1].lower(), keyed[2]
        for known in values(name, key):
            yield Option(f"{name}.{known.text}", "name", LABEL_HELP, known.count)
        return
    folded = written.lower()
    shown = [name for name in NAMES if written or name not in FLOWS_COLUMNS]
    if folded:
        shown = [name for name in shown if folded in name.lower()]
        shown.sort(key=lambda name: not name.lower().startswith(folded))
    for name in shown:
        yield Option(name, "name", NAMES[name].help)
    for side in ("", "src.", "dst."):
        if f"{side}label.".startswith(folded):
            yield Option(f"{side}label.", "name", LABEL_HELP)
    yield from _words(("not",), written)
    if len(folded) > 1:
        yield from _meant(folded)


def _meant(folded: str) -> Iterator[Option]:
    """Go through comparisons with values that have names, by what these begin with."""
    for name in NAMES.values():
        if name.known and not name.column and not name.name.startswith(tuple(SIDES)):
            for word in name.known:
                if word.lower().startswith(folded):
                    yield Option(f"{name.name} = {word}", "value", name.help)


def _operators(name: Name, written: str) -> Iterator[Option]:
    for operator in name.operators:
        if operator.value.startswith(written.lower()):
            yield Option(operator.value, "operator", _OPERATOR_HELP[operator])


_OPERATOR_HELP = {
    Operator.IS: "is this; * in a word stands for any characters",
    Operator.IS_NOT: "is not this, at neither end",
    Operator.LESS: "is less than",
    Operator.AT_MOST: "is at most",
    Operator.MORE: "is more than",
    Operator.AT_LEAST: "is at least",
    Operator.MATCHES: "has a part that the regular expression matches",
    Operator.MATCHES_NOT: "has no part that the regular expression matches",
    Operator.IN: "is one of (a, b), or in a network",
    Operator.NOT_IN: "is none of (a, b)",
    Operator.EMPTY: "is not known, or there is none",
    Operator.NOT_EMPTY: "is known",
}


def _values(name: Name, written: str, values: Values) -> Iterator[Option]:
    """Go through the values that there are, then through those that have names."""
    found = {known.text: known for known in values(name.name, written) if known.text}
    for known in found.values():
        yield Option(quote(known.text), "value", "", known.count)
    named = [word for word in name.known if written.lower() in word.lower() and word not in found]
    for word in sorted(named, key=lambda word: not word.lower().startswith(written.lower())):
        yield Option(word, "value")
