"""Random records and random filters, and what the store and the mask each choose of them."""

import json
import random
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import numpy as np

from flowvis.batch import Batch, Column, address_bytes
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.tables import COLUMNS, TABLE
from flowvis.clickhouse.statement import Parameter, bind
from flowvis.clickhouse.store import Store
from flowvis.fields import Field, Kind
from flowvis.filters import (
    Comparison,
    Filter,
    Operator,
    Search,
    Value,
    all_of,
    any_of,
    networks,
    parse,
)
from flowvis.filters.attributes import Kind as Values
from flowvis.filters.errors import FilterError
from flowvis.filters.mask import mask
from flowvis.filters.networks import NetworkNames
from flowvis.filters.sql import condition
from flowvis.filters.tree import Not
from flowvis.filters.vocabulary import NAMES, lookup
from flowvis.native import StringTable

from .samples import STORED

ROW = "monitoringIntervalStartMilliSeconds"
"""The number of the record."""

TEXTS: tuple[bytes, ...] = (
    *(b"", b"shop", b"Shop", b"shop-2", b"kube-system", b"cart-0", b"cart-1", b"orders", b"web"),
    *(b"shop/cart:http", b"kube-system/kube-dns:dns", b"a/b/c:d:e", b"shop/", b"/cart", b":", b"/"),
    *(
        b"Deployment",
        b"ESTABLISHED",
        b"established",
        b"10.0.0.1",
        b"*",
        b"%",
        b"_",
        b"sh%p",
        b"c*t",
    ),
    *(
        b"quote'\"",
        b"back\\slash",
        b"\\",
        b"two\nlines",
        b"\n",
        b"nul\x00nul",
        b"\x00",
        b" ",
        b"\t",
    ),
    *(
        "Ünï".encode(),
        "ünï".encode(),
        "日本語".encode(),
        b"K",
        b"\xff\xfe",
        b"a\xffb",
        b"\xc3",
    ),
    *(b"x" * 300, b"{}", b"[a]", b"(a|b)", b"a.b", b"axb", b"A-B", b"$", b"^", b"#", b"--", b"/*"),
)
LABELS: tuple[bytes, ...] = (
    b"",
    b"{}",
    b'{"app":"web"}',
    b'{"app":"Web","tier":"front"}',
    b'{"tier":"app","x/y.z":"web"}',
    b'{ "app" : "web" , "tier" : "" }',
    b'{"app":"web","app":"other"}',
    b'{"my-app":"web","app2":"web","APP":"web"}',
    b'{"x":"{\\"app\\":\\"web\\"}","tier":",\\"app\\":\\"web\\""}',
    json.dumps({"app": 'quote"back\\Ünï\n/\x00', "tier": "a,b"}).encode(),
    '{"app":"Ünï"}'.encode(),
    b'{"app":"\xff"}',
    b'{"app":"open',
    b'{"app":7,"tier":null}',
    b'"app":"web"',
    b',"app":"web\\',
)
KEYS = ("app", "tier", "x/y.z", "my-app", "missing", "xxy.z")
ADDRESSES = (
    *("::", "0.0.0.0", "0.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.255.255.255", "11.0.0.0"),
    *(
        "255.255.255.255",
        "::1",
        "::a00:1",
        "::fffe:a00:1",
        "::1:0:0:1",
        "2001:db8::1",
        "2001:db8::2",
    ),
    *("2001:db8:1::", "fe80::ffff:1:2", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "8000::"),
)
NETWORKS = (
    *("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/31", "10.0.0.1/32", "0.0.0.0/32", "0.0.0.0/1"),
    *("::/1", "8000::/1", "::/95", "::ffff:0:0/96", "::/80", "2001:db8::/32", "2001:db8::/127"),
)
NUMBERS = (0, 1, 2, 6, 17, 80, 443, 999, 1000, 1024, 65535, 10**6, 2**31, 2**32 - 1, 2**53 + 1)


def records(rows: int, seed: int) -> Batch:
    """Every stored field, of values that peers may send and that filters ask for."""
    rng = np.random.default_rng(seed)
    strings = StringTable()
    codes = {True: _codes(strings, LABELS), False: _codes(strings, TEXTS)}
    columns: dict[str, Column] = {}
    for field in STORED:
        if field.kind is Kind.TEXT:
            known = codes["Labels" in field.name]
            column: Column = known[rng.integers(0, len(known), rows)]
            column[rng.random(rows) < 0.2] = 0
        elif field.kind is Kind.ADDRESS:
            table = np.array([list(address_bytes(text)) for text in ADDRESSES], np.uint8)
            column = table[rng.integers(0, len(table), rows)]
        else:
            column = _numbers(field, rows, rng)
        columns[field.name] = column
    columns[ROW] = np.arange(rows, dtype=np.uint64)
    return Batch(columns, strings)


def _codes(
    strings: StringTable, texts: Sequence[bytes]
) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array([strings.intern(text) for text in texts], np.uint32)


def _numbers(
    field: Field, rows: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    top = np.iinfo(field.kind.dtype.name).max
    values = rng.integers(0, top, rows, dtype=field.kind.dtype, endpoint=True)
    if field.name == "flowEndSeconds":  # the sort key has its hour, which a DateTime must show
        return np.uint32(1_790_000_000) + values % np.uint32(7200)
    known = [number for number in (*NUMBERS, top, top - 1) if number <= top]
    usual = np.array(known, field.kind.dtype)[rng.integers(0, len(known), rows)]
    if field.name == "flowStartSeconds":
        usual = np.uint32(1_790_000_000) + values % np.uint32(7200)
    if field.kind is Kind.U8:
        usual = values % np.uint8(7)
    return np.where(rng.random(rows) < 0.7, usual, values).astype(field.kind.dtype)


class Wishes:
    """Makes filters at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        labels = [f"{side}label.{key}" for side in ("", "src.", "dst.") for key in KEYS]
        self._short = [name for name in NAMES if name.islower()] + labels
        self._columns = [name for name in NAMES if not name.islower()]

    def filters(self, count: int) -> Iterator[Filter]:
        """Go through so many filters, each as it is after a way through its text."""
        while count:
            wish = self._wish(self.random.choice((0, 0, 1, 2, 3)))
            again = parse(str(wish))
            assert again == wish, str(wish)
            yield again
            count -= 1

    def _wish(self, depth: int) -> Filter:
        chance = self.random.random()
        if depth and chance < 0.2:
            return Not(self._wish(depth - 1))
        if depth:
            parts = [self._wish(depth - 1) for _ in range(self.random.randint(2, 3))]
            return all_of(parts) if chance < 0.6 else any_of(parts)
        while True:
            wish = self._search() if chance < 0.1 else self._comparison()
            try:
                parse(str(wish))
            except FilterError:  # no value of that name, or a glob where there are none
                continue
            return wish

    def _search(self) -> Filter:
        text = self._text() if self.random.random() < 0.7 else self.random.choice(ADDRESSES)
        return Search(self._part(text))

    def _comparison(self) -> Filter:
        name = lookup(
            self.random.choice(self._short if self.random.random() < 0.7 else self._columns)
        )
        operator = self.random.choice(name.operators)
        if operator in {Operator.EMPTY, Operator.NOT_EMPTY}:
            return Comparison(name.name, operator)
        if operator.positive is Operator.MATCHES:
            return Comparison(name.name, operator, (Value(self._pattern()),))
        several = operator in {Operator.IN, Operator.NOT_IN}
        count = self.random.randint(1, 4) if several else 1
        values = tuple(self._value(name.kind, name.known) for _ in range(count))
        return Comparison(name.name, operator, values)

    def _value(self, kind: Values, known: Sequence[str]) -> Value:
        if known and self.random.random() < 0.8:
            word = self.random.choice(known)
            return Value(word.lower() if self.random.random() < 0.3 else word)
        if kind is not Values.TEXT:
            return Value(self._written(kind))
        text = self._text()
        if self.random.random() < 0.3:
            glob = self._globbed(text)
            return Value(glob, glob=True) if _is_word(glob) else Value(text)
        return Value(self._part(text) if self.random.random() < 0.2 else text)

    def _written(self, kind: Values) -> str:
        if kind is Values.ADDRESS:
            return self.random.choice(ADDRESSES + NETWORKS)
        if kind is Values.TIME and self.random.random() < 0.7:
            return str((1_790_000_000 + self.random.randint(0, 7200)) * 1000)
        if kind is Values.DURATION:
            return self.random.choice(("0", "1", "1500ms", "10m", "1h", "1h30m", "90s"))
        if self.random.random() < 0.15:
            low, high = sorted(self.random.choices(NUMBERS, k=2))
            return f"{low}{self.random.choice(('-', '..'))}{high}"
        number = str(self.random.choice((*NUMBERS, self.random.randint(0, 2**64 - 1), 2**64 - 1)))
        return number + self.random.choice(("", "", "k", "M", "GiB", "Mbit/s", "MB/s"))

    def _text(self) -> str:
        if self.random.random() < 0.1:
            return self.random.choice(("app", "tier", "front", 'quote"back\\Ünï\n/\x00', "a,b"))
        choice = self.random.choice(TEXTS + LABELS)
        text = choice.decode(errors="replace")
        if self.random.random() < 0.2:
            text = f"{text}/{self.random.choice(TEXTS).decode(errors='replace')}"
        return text.swapcase() if self.random.random() < 0.1 else text

    def _part(self, text: str) -> str:
        first = self.random.randint(0, len(text))
        return text[first : self.random.randint(first, len(text))]

    def _globbed(self, text: str) -> str:
        first = self.random.randint(0, len(text))
        return f"{text[:first]}*{text[self.random.randint(first, len(text)) :]}"

    def _pattern(self) -> str:
        atoms = (
            *("a", "s", "shop", "cart", "-", "/", "0", "ü", "日", "K", " ", "'", "%", "_", '"'),
            *(
                ".",
                "[a-z]",
                "[^/]",
                "[0-9]",
                "[[:alpha:]]",
                r"\d",
                r"\w",
                r"\W",
                r"\s",
                r"\pL",
                r"\.",
            ),
            *(r"\\", r"\x00", r"\n", r"\b", r"\B", "^", "$", r"\A", r"\z", r"\C", r"\Q.*\E", "()"),
            *(
                "(?i)k",
                "(?i)SHOP",
                "(?i:cart)",
                "(a|b)",
                "(?:shop|web)",
                "(shop)",
                "a|",
                "|",
                "(|a)",
            ),
            *("(?-s).", "(?m)^", "(?U)a+", "[\\]a]", "[^\\x00-\\x{10FFFF}]", "{", "}", "(?P<n>a)"),
        )
        parts = []
        for _ in range(self.random.randint(0, 5)):
            atom = self.random.choice(atoms)
            repeat = self.random.choice(
                ("", "", "", "", "*", "+", "?", "*?", "{2}", "{0,1}", "{0}")
            )
            parts.append(atom + repeat)
        return "".join(parts)


def _is_word(text: str) -> bool:
    try:
        found = parse(f"pod = {text}")
    except FilterError:
        return False
    return found == Comparison("pod", Operator.IS, (Value(text, glob=True),))


NAMED = NetworkNames(
    (name, map(ip_network, NETWORKS[place::5]))
    for place, name in enumerate(("shop", "Shop", "web", "cart-0", "a.b"))
)
"""Networks that have names that filters ask for."""


def shown(database: str) -> str:
    """Return the SELECT of all columns of `flows`, addresses as they are stored, and networks."""
    columns = [
        each.name if each.sql == each.name or not each.shows else f"{each.sql} AS {each.shows}"
        for each in COLUMNS
    ]
    stored = [each.name for each in COLUMNS if each.sql != each.name and each.shows]
    named = networks.in_force().definitions(" ".join(networks.END_OF))
    aliases = ", ".join(f"{sql} AS {name}" for name, sql in named.items())
    chosen = ", ".join([*columns, *stored, *networks.END_OF])
    return f"WITH {aliases} SELECT {chosen} FROM {database}.{TABLE}"


def differences(store: Store, database: str, rows: int, seed: int, count: int) -> Iterator[str]:
    """Put records into an empty database; go through filters on which it and the mask differ."""
    batch = records(rows, seed)
    store.insert(batch, BatchId("w", 1_790_000_000))
    filters = list(Wishes(seed).filters(count))
    for first in range(0, len(filters), 50):
        yield from _compared(store, database, batch, filters[first : first + 50])


def _compared(
    store: Store, database: str, batch: Batch, filters: Sequence[Filter]
) -> Iterator[str]:
    number = len(batch)
    conditions: list[str] = []
    parameters: dict[str, Parameter] = {}
    for place, each in enumerate(filters):
        found = condition(each)
        text = found.text
        for name in found.parameters:
            text = text.replace(f"{{{name}:", f"{{q{place}{name}:")
            parameters[f"q{place}{name}"] = found.parameters[name]
        conditions.append(f"groupArrayIf({ROW}, {text})")
    sql = f"SELECT {', '.join(conditions)} FROM ({shown(database)})"
    (chosen,) = store._execute(bind(sql, parameters))  # type: ignore[attr-defined]
    for each, rows in zip(filters, chosen, strict=True):
        in_store = set(map(int, rows))
        in_mask = set(np.flatnonzero(mask(each, batch)).tolist())
        assert in_store <= set(range(number))
        if in_store != in_mask:
            yield (
                f"{str(each)!r}: the store alone chooses {sorted(in_store - in_mask)[:5]}, the mask"
                f" alone {sorted(in_mask - in_store)[:5]}; {condition(each)}"
            )
