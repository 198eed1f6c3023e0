"""What a name can stand for: a text, a number, an address of a record, and how people write them.

An attribute makes the predicates of its values, or raises FilterError for a value that is none.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import partial

import re2

from flowvis.addresses import Network
from flowvis.batch import V4_MAPPED
from flowvis.fields import RuleAction
from flowvis.filters import literals
from flowvis.filters.errors import FilterError, nearest
from flowvis.filters.predicates import (
    AddressIn,
    Every,
    Negation,
    Number,
    NumberIn,
    NumberOrder,
    Order,
    Predicate,
    Some,
    Text,
    TextIn,
    TextMatch,
    column_number,
    column_text,
    first_of,
    joined,
    some,
)
from flowvis.filters.tree import Operator, Value


class Kind(Enum):
    """What the values of a name are."""

    TEXT = "text"
    ADDRESS = "address"
    NUMBER = "number"
    ENUM = "enum"
    BYTES = "bytes"
    DURATION = "duration"
    RATE = "rate"
    TIME = "time"
    BOOL = "bool"


_EQUAL = (Operator.IS, Operator.IS_NOT, Operator.IN, Operator.NOT_IN)
_EMPTY = (Operator.EMPTY, Operator.NOT_EMPTY)
_ORDERED = (Operator.LESS, Operator.AT_MOST, Operator.MORE, Operator.AT_LEAST)
_MATCHED = (Operator.MATCHES, Operator.MATCHES_NOT)


class Attribute(ABC):
    """One thing that a record has."""

    kind: Kind
    operators: Sequence[Operator]
    known: Sequence[str] = ()
    """Values that have names, all of them where the kind is ENUM."""
    expression: str | None = None
    """SQL of its value, for GROUP BY, as a text or a number; None where nobody groups by it."""
    columns: Sequence[str]
    """The columns that `expression` and the predicates are made of."""

    def predicate(self, operator: Operator, values: Sequence[Value]) -> Predicate:
        """Return the predicate of an operator that denies nothing."""
        if operator in {Operator.IS, Operator.IN}:
            return some(map(self.equal, values))
        if operator is Operator.EMPTY:
            return self.empty()
        (value,) = values
        if operator is Operator.MATCHES:
            return self.matching(literals.pattern(value.text))
        return self.ordered(Order(operator.value), value)

    @abstractmethod
    def equal(self, value: Value) -> Predicate:
        """It is this."""

    def empty(self) -> Predicate:
        """There is none."""
        raise NotImplementedError

    def matching(self, pattern: str) -> Predicate:
        """A regular expression matches."""
        raise NotImplementedError

    def ordered(self, order: Order, value: Value) -> Predicate:
        """It is less or more than this."""
        raise NotImplementedError


class WhereSet(Attribute):
    """Another attribute, in records that have it: where there is none, nothing is true of it."""

    def __init__(self, inner: Attribute) -> None:
        self.inner = inner
        self.kind, self.operators, self.known = inner.kind, inner.operators, inner.known
        self.columns, self.expression = inner.columns, inner.expression

    def predicate(self, operator: Operator, values: Sequence[Value]) -> Predicate:
        """Return the predicate of an operator that denies nothing."""
        return Every((Negation(self.inner.empty()), self.inner.predicate(operator, values)))

    def equal(self, value: Value) -> Predicate:
        """It is this."""
        return self.predicate(Operator.IS, (value,))

    def empty(self) -> Predicate:
        """There is none, which is never so where there is one."""
        return Some(())


class Words(Attribute):
    """A text, compared as a whole."""

    kind = Kind.TEXT
    operators = (*_EQUAL, *_MATCHED, *_EMPTY)

    def __init__(self, text: Text | str, known: Sequence[str] = ()) -> None:
        self.text = column_text(text) if isinstance(text, str) else text
        self.expression = self.text.sql
        self.columns = self.text.columns
        self.known = known
        self._spelling = {word.lower(): word for word in known}

    def equal(self, value: Value) -> Predicate:
        """It is this; what is known is found in capitals or not."""
        known = self._spelling.get(value.text.lower())
        return _is(self.text, Value(known) if known else value)

    def empty(self) -> Predicate:
        """The text is empty."""
        return TextIn(self.text, (b"",))

    def matching(self, pattern: str) -> Predicate:
        """A regular expression matches."""
        return TextMatch(self.text, pattern)


class Named(Words):
    """A name in a namespace: `namespace/name`, or the name in any."""

    def __init__(self, namespace: str, names: Sequence[str]) -> None:
        """`names`: the columns of which the first that is not empty has the name."""
        super().__init__(joined(namespace, first_of(*names)))
        self._namespace = column_text(namespace)
        self._names = tuple(map(column_text, names))

    def equal(self, value: Value) -> Predicate:
        """It has this name, and is in this namespace where there is one."""
        namespace, slash, name = value.text.partition("/")
        if not slash:
            return _first_is(self._names, value)
        if not name:
            raise FilterError(f"{value.text!r} has no name after /", suggestion=f"{namespace}/*")
        space = _is(self._namespace, Value(namespace, value.glob))
        return Every((space, _first_is(self._names, Value(name, value.glob))))

    def empty(self) -> Predicate:
        """There is no name."""
        return Every(tuple(TextIn(name, (b"",)) for name in self._names))


POLICY_KINDS = {"k8s": 1, "antrea": 2, "antrea-cluster": 3, "k8s-cluster": 4}
"""Kinds of policies (values of ...NetworkPolicyType) by the names that people write."""


class PolicyNamed(Named):
    """A policy: `kind:namespace/name`, with as much of it as is given."""

    def __init__(self, direction: str) -> None:
        super().__init__(f"{direction}NetworkPolicyNamespace", (f"{direction}NetworkPolicyName",))
        self._type = Choice(f"{direction}NetworkPolicyType", POLICY_KINDS)
        self.columns = (*self.columns, *self._type.columns)

    def equal(self, value: Value) -> Predicate:
        """It has this name, namespace and kind."""
        kind, colon, name = value.text.partition(":")
        if not colon:
            return super().equal(value)
        return Every((self._type.equal(Value(kind)), super().equal(Value(name, value.glob))))


class ServiceNamed(Words):
    """A Service's port: `namespace/name:port`, with as much of it as is given."""

    def equal(self, value: Value) -> Predicate:
        """It is the Service's name, or that of its port."""
        whole = {"/", ":"} <= set(value.text)
        if whole and not value.glob:
            return super().equal(value)
        before = "" if "/" in value.text else r"(?:\C*/)?"
        after = "" if ":" in value.text else r"(?::\C*)?"
        return TextMatch(self.text, rf"\A{before}{_glob(value)}{after}\z")


class Label(Words):
    """A label of a Pod. Labels are stored as a JSON object, and compared as JSON writes them."""

    def __init__(self, column: str, key: str) -> None:
        found = rf'[{{,]\s*"{re2.escape(key)}"\s*:\s*"((?:[^"\\]|\\\C)*)"'
        written = found.replace("\\", "\\\\").replace("'", "\\'")
        super().__init__(Text((column,), f"extract({column}, '{written}')", partial(_group, found)))

    def equal(self, value: Value) -> Predicate:
        """The label has this value."""
        return _is(self.text, Value(json.dumps(value.text)[1:-1], value.glob))


class Amount(Attribute):
    """A number in a unit of its kind."""

    operators = (*_EQUAL, *_ORDERED, *_EMPTY)

    def __init__(
        self,
        kind: Kind,
        number: Number | str,
        read: Callable[[str], int],
        *,
        groups: bool = False,
        optional: bool = False,
    ) -> None:
        """`groups`: whether people group by it; `optional`: 0 is none, and less than nothing."""
        self.kind = kind
        self._optional = optional
        self.number = column_number(number) if isinstance(number, str) else number
        self.columns = self.number.columns
        self.expression = self.number.sql if groups else None
        self._read = read

    def equal(self, value: Value) -> Predicate:
        """The number is this, or in this range: `8000-8999`, `1MB..1GB`, both ends included."""
        low, high = self._range(value.text)
        if low == high:
            return NumberIn(self.number, (low,))
        return Every(
            (
                NumberOrder(self.number, Order.AT_LEAST, low),
                NumberOrder(self.number, Order.AT_MOST, high),
            )
        )

    def empty(self) -> Predicate:
        """The number is 0."""
        return NumberIn(self.number, (0,))

    def ordered(self, order: Order, value: Value) -> Predicate:
        """The number is less or more."""
        found = NumberOrder(self.number, order, self._read(value.text))
        if self._optional and order in {Order.LESS, Order.AT_MOST}:
            return Every((Negation(self.empty()), found))
        return found

    def _range(self, text: str) -> tuple[int, int]:
        first, dots, last = text.partition(".." if ".." in text else "-")
        if dots == "-" and self.kind is Kind.TIME and len(first) <= literals.DATE:
            dots = ""  # as dates have them
        if dots == "-" and not (first.isdecimal() and last.isdecimal()):
            if first[:1].isdecimal() and last[:1].isdecimal():
                raise FilterError(f"{text[:80]!r} has units", suggestion=f"{first}..{last}")
            dots = ""
        if not dots:
            number = self._read(text)
            return number, number
        low, high = self._read(first), self._read(last)
        if low > high:
            raise FilterError(f"{text!r} ends before it begins", suggestion=f"{last}{dots}{first}")
        return low, high


class Choice(Attribute):
    """A number of which each value has a name, or some have."""

    kind = Kind.ENUM
    operators = (*_EQUAL, *_EMPTY)

    def __init__(self, column: str, names: Mapping[str, int], largest: int = 255) -> None:
        self.number = column_number(column)
        self.columns = (column,)
        self.known = tuple(names)
        self._names = names
        self._largest = largest
        self._shown = {0: "", **{number: name for name, number in names.items()}}
        numbers, texts = list(self._shown), list(self._shown.values())
        self.expression = f"transform({column}, {numbers}, {texts}, toString({column}))"

    def equal(self, value: Value) -> Predicate:
        """It is the value of this name, or number."""
        number = self._names.get(value.text.lower())
        if number is None:
            if not (value.text.isdecimal() and value.text.isascii()):
                raise unknown(value.text, self.known, "a number")
            number = literals.count(value.text, self._largest)
        return NumberIn(self.number, (number,))

    def name_of(self, number: int) -> str:
        """Return a number as people write it; "" for 0."""
        return self._shown.get(number, str(number))

    def empty(self) -> Predicate:
        """It is 0: not known."""
        return NumberIn(self.number, (0,))


class Verdict(Attribute):
    """What policies decided, in one direction or both: of two actions the first of `VERDICTS`."""

    kind = Kind.ENUM
    operators = (*_EQUAL, *_EMPTY)

    def __init__(self, *directions: str) -> None:
        self.columns = tuple(f"{direction}NetworkPolicyRuleAction" for direction in directions)
        self._actions = tuple(map(column_number, self.columns))
        self.single = tuple(VERDICTS)
        """Those of which a record has one."""
        self.known = (*VERDICTS, *_GROUPS)
        decided = "".join(
            f"{_either_in(self.columns, actions)}, '{name}', "
            for name, actions in VERDICTS.items()
            if actions
        )
        self.expression = f"multiIf({decided}'none')"

    def equal(self, value: Value) -> Predicate:
        """It is this verdict, or one of a group."""
        name = value.text.lower()
        if name not in self.known:
            raise unknown(value.text, self.known)
        return some(self._only(one) for one in _GROUPS.get(name, (name,)))

    def empty(self) -> Predicate:
        """No policy decided."""
        return self._only("none")

    def _only(self, verdict: str) -> Predicate:
        actions, stronger = VERDICTS[verdict], _until(verdict)
        parts = [self._any(actions)] if actions else []
        return Every((*parts, Negation(self._any(stronger)))) if stronger else parts[0]

    def _any(self, actions: tuple[int, ...]) -> Predicate:
        return some(NumberIn(action, actions) for action in self._actions)


VERDICTS: dict[str, tuple[int, ...]] = {
    "rejected": (RuleAction.REJECT,),
    "dropped": (RuleAction.DROP,),
    "unenforced": (RuleAction.UNENFORCED_DROP, RuleAction.UNENFORCED_REJECT),
    "allowed": (RuleAction.ALLOW,),
    "none": (),
}
"""The actions of each verdict, the verdict that counts first before the others."""
DENIED = ("dropped", "rejected")
"""The verdicts of what did not go on."""
_GROUPS = {"denied": DENIED}


def _either_in(columns: Sequence[str], numbers: Sequence[int]) -> str:
    return " OR ".join(f"{column} = {number}" for column in columns for number in numbers)


def _until(verdict: str) -> tuple[int, ...]:
    """Return the actions of the verdicts that count before this one."""
    names = list(VERDICTS)
    return tuple(a for name in names[: names.index(verdict)] for a in VERDICTS[name])


class YesNo(Attribute):
    """Something that is so or not."""

    kind = Kind.BOOL
    operators = _EQUAL
    known = ("yes", "no")

    def __init__(self, predicate: Predicate, sql: str, columns: Sequence[str]) -> None:
        """`sql` is the same as the predicate; `columns` are those of both."""
        self.columns = columns
        self.expression = f"if({sql}, 'yes', 'no')"
        self._predicate = predicate

    def equal(self, value: Value) -> Predicate:
        """It is so, or not."""
        so = _YES_NO.get(value.text.lower())
        if so is None:
            raise unknown(value.text, self.known)
        return self._predicate if so else Negation(self._predicate)


_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class Address(Attribute):
    """An address."""

    kind = Kind.ADDRESS
    operators = (*_EQUAL, *_EMPTY)

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.expression = column

    def equal(self, value: Value) -> Predicate:
        """It is this address, or in this network."""
        return within(self.columns[0], literals.network(value.text))

    def empty(self) -> Predicate:
        """There is none."""
        return AddressIn(self.columns[0], (bytes(16), V4_MAPPED + bytes(4)))


def within(column: str, network: Network) -> Predicate:
    """Return the predicate that an address is in a network."""
    ranges = literals.address_ranges(network)
    single = tuple(low for low, high in ranges if low == high)
    return AddressIn(column, single, tuple(each for each in ranges if each[0] != each[1]))


def unknown(written: str, known: Sequence[str], *others: str) -> FilterError:
    """Return the error of a value that is none of those that are known."""
    return FilterError(
        f"{written[:80]!r} is not known",
        expected=(*known, *others),
        suggestion=nearest(written, known),
    )


def _is(text: Text, value: Value) -> Predicate:
    if value.glob:
        return TextMatch(text, rf"\A{_glob(value)}\z")
    return TextIn(text, (value.text.encode(),))


def _first_is(texts: Sequence[Text], value: Value) -> Predicate:
    """Return that the first of some texts that is not empty is this: of names, not of records."""
    first, *others = texts
    found = _is(first, value)
    if not others:
        return found
    none = TextIn(first, (b"",))
    return some((Every((Negation(none), found)), Every((none, _first_is(others, value)))))


def _glob(value: Value) -> str:
    """Return the regular expression of a value; `*` is any bytes."""
    pieces = value.text.split("*") if value.glob else [value.text]
    return r"\C*".join(map(re2.escape, pieces))


def _group(pattern: str, text: bytes) -> bytes:
    found: Iterator[bytes | None] = (
        m.group(1) for m in (literals.compiled(pattern).search(text),) if m
    )
    return next(found, None) or b""
