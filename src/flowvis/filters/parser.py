"""Texts to trees, by precedence: `or`, `and`, `not`, then comparisons, searches and parentheses."""

from collections.abc import Callable, Sequence

from flowvis.filters.errors import FilterError, Place, UnfinishedError, nearest
from flowvis.filters.spending import Spend, freely
from flowvis.filters.tokens import KEYWORDS, Kind, Token, tokens
from flowvis.filters.tree import (
    EVERYTHING,
    Comparison,
    Filter,
    Not,
    Operator,
    Search,
    Value,
    all_of,
    any_of,
)
from flowvis.filters.vocabulary import Name, is_name, lookup

MAX_DEPTH = 50
"""Of parentheses and `not` within each other."""
MAX_CONDITIONS = 100
"""Comparisons and searches of one filter."""
MAX_VALUES = 1000
"""Values of one filter."""

SIGNS = {each.value: each for each in Operator if not each.value[0].isalpha()}
"""Operators that are signs."""
_JOINTS = ("and", "or")
_BEGINNINGS = ("a name", "a word to search for", "not", "(")


def parse(text: str, spend: Spend = freely) -> Filter:
    """Parse a text; an empty one is the filter of everything. FilterError says what is wrong."""
    return _Parser(list(tokens(text)), spend).whole()


class _Parser:
    """Goes through the tokens once."""

    def __init__(self, found: Sequence[Token], spend: Spend) -> None:
        self._tokens = found
        self._spend = spend
        self._at = 0
        self._conditions = 0
        self._values = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind is not Kind.END
        return token

    def whole(self) -> Filter:
        if len(self._tokens) == 1:
            return EVERYTHING
        found = self._either(0)
        if self._at < len(self._tokens) - 1:
            raise self._unjoined(_JOINTS)
        return found

    def _either(self, depth: int) -> Filter:
        return any_of(self._joined("or", self._both, depth))

    def _both(self, depth: int) -> Filter:
        return all_of(self._joined("and", self._one, depth))

    def _joined(self, word: str, part: Callable[[int], Filter], depth: int) -> list[Filter]:
        parts = [part(depth)]
        while self._next.is_keyword(word):
            self._take()
            parts.append(part(depth))
        return parts

    def _one(self, depth: int) -> Filter:
        token = self._take()
        if depth > MAX_DEPTH:
            raise _wrong(token, f"more than {MAX_DEPTH} levels of parentheses and `not`")
        if token.is_keyword("not"):
            return Not(self._one(depth + 1))
        if token.is_sign("("):
            found = self._either(depth + 1)
            if not self._next.is_sign(")"):
                raise self._unjoined((*_JOINTS, ")"))
            self._take()
            return found
        if token.kind in {Kind.SIGN, Kind.END} or token.is_keyword(*KEYWORDS):
            raise _wrong(token, "a condition is missing", _BEGINNINGS, place=Place.CONDITION)
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise _wrong(token, f"more than {MAX_CONDITIONS} conditions")
        if token.kind is Kind.WORD and self._compares():
            return self._comparison(token)
        return self._search(token)

    def _compares(self) -> bool:
        """Whether an operator comes next."""
        token = self._next
        return token.is_sign(*SIGNS) or token.is_keyword("in", "is", "not")

    def _comparison(self, first: Token) -> Filter:
        try:
            name = lookup(first.text)
        except FilterError as error:
            raise _at(error, first) from None
        begun = self._next
        operator = self._operator()
        if operator not in name.operators:
            ended = self._tokens[self._at - 1].end
            raise name.refuses(operator).at(begun.start, ended - begun.start)
        return Comparison(name.name, operator, self._compared(name, operator))

    def _operator(self) -> Operator:
        token = self._take()
        if operator := SIGNS.get(token.text):
            return operator
        if token.is_keyword("in"):
            return Operator.IN
        if token.is_keyword("is"):
            denied = self._next.is_keyword("not")
            if denied:
                self._take()
            if not self._next.is_keyword("empty"):
                expected = ["empty"] if denied else ["empty", "not empty"]
                raise _wrong(self._next, f"`{token.text}` is followed by `empty`", expected)
            self._take()
            return Operator.NOT_EMPTY if denied else Operator.EMPTY
        if not self._next.is_keyword("in"):
            raise _wrong(self._next, f"`{token.text}` after a name is followed by `in`", ["in"])
        self._take()
        return Operator.NOT_IN

    def _compared(self, name: Name, operator: Operator) -> tuple[Value, ...]:
        if operator in {Operator.EMPTY, Operator.NOT_EMPTY}:
            return ()
        listed = operator in {Operator.IN, Operator.NOT_IN}
        if not listed or not self._next.is_sign("("):
            return (self._value(name, operator),)
        self._take()
        values = [self._value(name, operator)]
        while self._next.is_sign(","):
            self._take()
            values.append(self._value(name, operator))
        if not self._next.is_sign(")"):
            raise _wrong(self._next, "the list does not end", [",", ")"])
        self._take()
        return tuple(values)

    def _value(self, name: Name, operator: Operator) -> Value:
        token = self._take()
        if token.kind in {Kind.SIGN, Kind.END} or token.is_keyword(*KEYWORDS):
            hint = f'"{token.text}"' if token.kind is Kind.WORD else None
            message = f"{name.name} is compared with nothing"
            expected = [name.kind.value]
            raise _wrong(token, message, expected, hint, place=Place.VALUE, name=name.name)
        self._values += 1
        if self._values > MAX_VALUES:
            raise _wrong(token, f"more than {MAX_VALUES} values")
        matched = operator.positive is Operator.MATCHES
        value = Value(token.text, token.kind is Kind.WORD and "*" in token.text and not matched)
        self._spend()  # a regular expression takes milliseconds to compile
        try:
            name.predicate(operator, (value,))
        except FilterError as error:
            raise _at(error, token) from None
        return value

    def _search(self, token: Token) -> Filter:
        if not token.text.strip():
            raise _wrong(token, "nothing to search for")
        if token.kind is Kind.WORD:
            if is_name(token.text):
                raise self._uncompared(token)
            if "*" in token.text:
                plain = token.text.strip("*")
                raise _wrong(
                    token,
                    "a search finds parts of names, without *",
                    suggestion=plain if plain and "*" not in plain else None,
                )
        return Search(token.text)

    def _uncompared(self, token: Token) -> FilterError:
        """The error of a name that stands alone."""
        name, after = lookup(token.text), self._next
        message = f"{name.name} is compared with nothing"
        operators = [each.value for each in name.operators]
        if after.kind is Kind.END:
            return _wrong(after, message, operators, place=Place.NAME, name=name.name)
        return _wrong(token, message, operators, f'"{token.text}"')

    def _unjoined(self, expected: Sequence[str]) -> FilterError:
        """The error of what follows a condition and is no `and` or `or`."""
        token = self._next
        if token.kind is Kind.END:
            return _wrong(token, "a parenthesis is not closed", expected)
        if token.is_sign(*SIGNS):
            before = self._tokens[self._at - 1]
            return _wrong(token, f"`{before.text}` is no name to compare", expected)
        if token.is_sign(")"):
            return _wrong(token, "a parenthesis was not opened", expected)
        close = nearest(token.text, expected) if token.kind is Kind.WORD else None
        return _wrong(
            token, f"{token.text[:80]!r} is not joined to what is before it", expected, close
        )


def _wrong(
    token: Token,
    message: str,
    expected: Sequence[str] = (),
    suggestion: str | None = None,
    *,
    place: Place = Place.WORD,
    name: str = "",
) -> FilterError:
    if token.kind is Kind.END and expected:
        return UnfinishedError(message, token.start, expected, place, name)
    return FilterError(message, token.start, token.end - token.start, expected, suggestion)


def _at(error: FilterError, token: Token) -> FilterError:
    return error.at(token.start, token.end - token.start)
