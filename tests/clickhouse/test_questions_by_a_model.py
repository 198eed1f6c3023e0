"""Random questions, answered by a store and by a plain model of what the documents say.

The model knows neither SQL nor predicates nor which tables there are: it goes through the records.
Others compare what roll-ups answer with what records do; here both are compared with the words of
docs/questions.md and docs/filters.md.
"""

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np
import pytest

from aggregator.records import records
from flowvis.clickhouse.embedded import EmbeddedStore
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.schema.rollups import ROLLUPS
from flowvis.clickhouse.store import Store, open_store
from flowvis.filters import parse
from flowvis.filters.mask import mask
from flowvis.filters.networks import NetworkNames, enforce, in_force
from flowvis.filters.sql import condition
from flowvis.questions.planner import Span, Stored
from flowvis.questions.table import TableQuestion

from .asking import carry_out
from .conftest import FOREVER, place
from .rolled import insert_rolled
from .samples import STORED as FIELDS

pytestmark = pytest.mark.clickhouse

Row = dict[str, Any]
Test = Callable[[Row], bool]

DAY_S = 86_400
BEGIN_S = 1_790_035_200 // DAY_S * DAY_S
LENGTH_S = 2 * DAY_S
NOW_S = BEGIN_S + 12 * DAY_S
SIDES = {"src": "source", "dst": "destination"}
WAYS = {"src": "egress", "dst": "ingress"}
NAMESPACES = ("shop", "Shop", "bank", "a b")
PODS = ("cart-0", "cart-1", "orders-0", "it's", 'q"', "b\\n", "日本")
WORKLOADS = ("cart", "orders", "", "a*b")
SERVICES = ("", "shop/cart:http", "shop/cart:", "kube-system/dns:dns")
OUTSIDE = (
    "203.0.113.9", "203.0.114.1", "255.255.255.255", "2001:db8::1", "2001:db8:1::1", "1::1:0:0:1",
    "ffff::",
)  # fmt: skip
NETWORKS = (("office", "203.0.113.0/24"), ("lab (old)", "203.0.0.0/16"), ("six", "2001:db8::/48"))
VERDICTS = {3: "rejected", 2: "dropped", 5: "unenforced", 4: "unenforced", 1: "allowed", 0: "none"}
TYPES = ("", "intra-node", "inter-node", "to-external", "from-external")
PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}
COUNTERS = ("octet", "reverseOctet", "packet", "reversePacket")


def _end(dice: random.Random, side: str, *, outside: bool) -> Row:
    """What is known of one end: a Pod, a node, or nothing but its address."""
    what = 1.0 if outside else dice.random()
    found: Row = {"IP": dice.choice(OUTSIDE)}
    if what < 0.6:
        found |= {"PodNamespace": dice.choice(NAMESPACES), "PodName": dice.choice(PODS)}
        found |= {"WorkloadName": dice.choice(WORKLOADS), "NodeName": dice.choice(("n1", ""))}
        found["PodLabels"] = dice.choice(("", '{"app":"web"}', '{"app":"it\'s","tier":"x"}'))
        found["IP"] = f"10.0.{dice.randrange(2)}.{dice.randrange(3)}"
        found["WorkloadKind"] = "Deployment" if found["WorkloadName"] else ""
    elif what < 0.8:
        found["NodeName"] = "n2"
    if found.get("NodeName"):
        found["Zone"] = dice.choice(("", "a", "b"))
    return {f"{side}{name}": value for name, value in found.items()}


def _record(dice: random.Random) -> Row:
    """A record, often at the very first or last second of a minute, an hour or a day."""
    step_s = dice.choice((1, 60, 3600, DAY_S))
    end_s = (BEGIN_S + dice.randrange(LENGTH_S)) // step_s * step_s - dice.choice((0, 0, 1))
    start_s, first = end_s - dice.choice((0, 59, 60, 90_000)), dice.random() < 0.5
    row: Row = {
        "flowType": dice.randrange(5), "flowStartSeconds": start_s, "flowEndSeconds": end_s,
        "monitoringIntervalStartMilliSeconds": start_s * 1000 + (250 if first else 1000),
        "flowEndReason": dice.choice((2, 3)), "protocolIdentifier": dice.choice((6, 6, 17, 1, 47)),
        "sourceTransportPort": dice.choice((0, 1024, 65535)),
        "destinationTransportPort": dice.choice((0, 80, 443)),
        "destinationServicePortName": dice.choice(SERVICES),
        "destinationServicePort": dice.choice((0, 8080)),
        "throughput": dice.choice((0, 10**9, 2**53 + 1)),
    }  # fmt: skip
    for side, external in (("source", 4), ("destination", 3)):
        row |= _end(dice, side, outside=row["flowType"] == external)
    for way in WAYS.values():
        action = row[f"{way}NetworkPolicyRuleAction"] = dice.choice((0, 0, *VERDICTS))
        row[f"{way}NetworkPolicyName"] = dice.choice(("allow", "deny*")) if action else ""
        row[f"{way}NetworkPolicyNamespace"] = dice.choice(("shop", "")) if action else ""
        row[f"{way}NetworkPolicyType"] = 1 if action else 0
    for name in COUNTERS:
        delta = dice.choice((0, 0, 40, 1500, 2**33, 2**53 + 1))
        more = 0 if first else dice.choice((0, 7))
        row |= {f"{name}DeltaCount": delta, f"{name}TotalCount": delta + more}
    return row


@dataclass(frozen=True)
class Model:
    """What is said of records, one by one."""

    rows: Sequence[Row]

    @staticmethod
    def text(row: Row, name: str) -> str:
        return str(row.get(name, ""))

    @classmethod
    def named(cls, row: Row, space: str, *names: str) -> str:
        """namespace/name of the first name that there is."""
        name = next(filter(None, (cls.text(row, each) for each in names)), "")
        namespace = cls.text(row, space)
        return f"{namespace}/{name}" if namespace and name else name

    @staticmethod
    def verdict(row: Row, *ways: str) -> str:
        order = list(dict.fromkeys(VERDICTS.values()))
        found = (VERDICTS[row[f"{way}NetworkPolicyRuleAction"]] for way in ways)
        return min(found, key=order.index)

    @classmethod
    def denied(cls, row: Row) -> bool:
        return cls.verdict(row, *WAYS.values()) in {"dropped", "rejected"}

    @staticmethod
    def first(row: Row) -> bool:
        """Whether nothing was counted of the connection before."""
        return bool(
            row["packetTotalCount"] == row["packetDeltaCount"]
            and row["reversePacketTotalCount"] == row["reversePacketDeltaCount"]
            and row["monitoringIntervalStartMilliSeconds"] // 1000 == row["flowStartSeconds"]
        )

    @classmethod
    def unanswered(cls, row: Row) -> bool:
        silent = row["packetTotalCount"] and not row["reversePacketTotalCount"]
        return bool(row["flowEndReason"] == 3 and silent and not cls.denied(row))

    @classmethod
    def network(cls, row: Row, side: str) -> str:
        if row.get(f"{side}PodName") or row.get(f"{side}NodeName"):
            return ""
        address = ip_address(row[f"{side}IP"])
        fitting = [(net, name) for name, text in NETWORKS if address in (net := ip_network(text))]
        return max(fitting, key=lambda each: each[0].prefixlen)[1] if fitting else ""

    @classmethod
    def kind(cls, row: Row, side: str) -> str:
        pod = "Pod" if row.get(f"{side}PodName") else ""
        node = "Node" if row.get(f"{side}NodeName") else ""
        return cls.text(row, f"{side}WorkloadKind") or pod or node

    @classmethod
    def label(cls, row: Row, side: str) -> str:
        return str(json.loads(cls.text(row, f"{side}PodLabels") or "{}").get("app", ""))

    @classmethod
    def end(cls, row: Row, side: str) -> tuple[str, str]:
        pod = cls.text(row, f"{side}PodName")
        return (row[f"{side}PodNamespace"], pod) if pod else ("", row[f"{side}IP"])

    @classmethod
    def crosses(cls, row: Row) -> bool:
        zones = {cls.text(row, f"{side}Zone") for side in SIDES.values()}
        return len(zones) == 2 and "" not in zones

    @classmethod
    def value(cls, row: Row, name: str) -> Any:
        """What a record has under the name of a dimension."""
        short, dot, rest = name.partition(".")
        if not dot:
            return _WHOLE[name](row)
        return _OF_ENDS[rest](row, SIDES[short], f"{WAYS[short]}NetworkPolicy")

    @classmethod
    def measure(cls, name: str, rows: Sequence[Row]) -> int:
        """What a measure is of some records; a rate times the seconds."""
        if name == "peakThroughput":
            return max((row["throughput"] for row in rows), default=0)
        if name in {"sources", "destinations"}:
            return len({cls.end(row, name.removesuffix("s")) for row in rows})
        return sum(map(_COUNTED[name], rows))

    def answer(self, asked: dict[str, str], test: Test) -> dict[str, Any]:
        """Answer a question about the records that a test is true of."""
        begin, end = (int(asked[name]) // 1000 for name in ("from", "to"))
        names = asked["by"].split(",") if asked["by"] else []
        measures = asked["measure"].split(",")
        step = _seconds(asked["interval"])
        first = begin // step * step if step else 0
        count = -(-(end - first) // step) if step else 0

        def numbers(rows: Sequence[Row], seconds: int) -> list[float]:
            found = ((name, self.measure(name, rows)) for name in measures)
            return [n / seconds if name == "throughput" else n for name, n in found]

        def groups(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
            found: dict[tuple[Any, ...], list[Row]] = {}
            for row in rows:
                found.setdefault(tuple(self.value(row, name) for name in names), []).append(row)
            return found

        def within(moved: int) -> list[Row]:
            since, until = begin + moved, end + moved
            return [r for r in self.rows if since <= r["flowEndSeconds"] < until and test(r)]

        def parts(rows: Sequence[Row], moved: int) -> list[list[float]]:
            found = []
            for n in range(count):
                since, until = first + n * step, min(first + (n + 1) * step, end)
                at = range(since + moved, first + (n + 1) * step + moved)
                some = [row for row in rows if row["flowEndSeconds"] in at]
                found.append(numbers(some, until - max(since, begin)))
            return [list(column) for column in zip(*found, strict=True)]

        def document(shown: Sequence[Any], moved: int) -> dict[str, Any]:
            rows, seconds = within(moved), end - begin
            found = groups(rows)
            some = [found.get(key, []) for key in shown] if names else [rows]
            left = [r for key, these in found.items() if key not in shown for r in these]
            left = left if names else []
            there = [numbers(each, seconds) if each or not names else None for each in some]
            answer: dict[str, Any] = {
                "rows": there,
                "other": numbers(left, seconds) if left else None,
                "total": numbers(rows, seconds),
                "times": [(first + n * step + moved) * 1000 for n in range(count)],
                "series": [parts(each, moved) for each in some],
                "otherSeries": parts(left, moved) if left else None,
                "totalSeries": parts(rows, moved),
            }
            if not step:
                answer |= dict.fromkeys(("times", "series", "otherSeries", "totalSeries"))
            return answer

        now = groups(within(0))

        def order(key: tuple[Any, ...]) -> tuple[float, list[Any]]:
            texts = [each.encode() if isinstance(each, str) else each for each in key]
            return -numbers(now[key], end - begin)[0], texts

        shown = sorted(now, key=order)[: int(asked["limit"])] if names else []
        answer = document(shown, 0)
        if names:
            answer["rows"] = [[*key, *row] for key, row in zip(shown, answer["rows"], strict=True)]
        earlier = asked["compare"]
        moved = begin - end if earlier == "previous" else -_seconds(earlier[1:])
        compared = {"from": (begin + moved) * 1000, "to": (end + moved) * 1000}
        answer["compared"] = compared | document(shown, moved) if earlier else None
        return answer


def _seconds(text: str) -> int:
    """Read a length; 0 where there is none."""
    found = re.fullmatch(r"(\d+)([mhd])", text)
    return int(found[1]) * {"m": 60, "h": 3600, "d": DAY_S}[found[2]] if found else 0


_WHOLE: dict[str, Callable[[Row], Any]] = {
    "verdict": lambda row: Model.verdict(row, *WAYS.values()),
    "proto": lambda row: PROTOCOLS.get(row["protocolIdentifier"], str(row["protocolIdentifier"])),
    "type": lambda row: TYPES[row["flowType"]],
    "service": lambda row: row["destinationServicePortName"],
    "unanswered": lambda row: "yes" if Model.unanswered(row) else "no",
    "crosszone": lambda row: "yes" if Model.crosses(row) else "no",
}
_OF_ENDS: dict[str, Callable[[Row, str, str], Any]] = {
    "namespace": lambda row, side, _: Model.text(row, f"{side}PodNamespace"),
    "pod": lambda row, side, _: Model.named(row, f"{side}PodNamespace", f"{side}PodName"),
    "workload": lambda row, side, _: Model.named(
        row, f"{side}PodNamespace", f"{side}WorkloadName", f"{side}PodName"
    ),
    "kind": lambda row, side, _: Model.kind(row, side),
    "node": lambda row, side, _: Model.text(row, f"{side}NodeName"),
    "zone": lambda row, side, _: Model.text(row, f"{side}Zone"),
    "network": lambda row, side, _: Model.network(row, side),
    "ip": lambda row, side, _: row[f"{side}IP"],
    "port": lambda row, side, _: row[f"{side}TransportPort"],
    "policy": lambda row, _, policy: Model.named(row, f"{policy}Namespace", f"{policy}Name"),
    "verdict": lambda row, _, policy: VERDICTS[row[f"{policy}RuleAction"]],
    "label.app": lambda row, side, _: Model.label(row, side),
}
_COUNTED: dict[str, Callable[[Row], int]] = {
    "records": lambda _: 1,
    "octets": lambda row: row["octetDeltaCount"],
    "reverseOctets": lambda row: row["reverseOctetDeltaCount"],
    "bothOctets": lambda row: row["octetDeltaCount"] + row["reverseOctetDeltaCount"],
    "throughput": lambda row: row["octetDeltaCount"] * 8,
    "packets": lambda row: row["packetDeltaCount"],
    "connections": Model.first,
    "ended": lambda row: row["flowEndReason"] == 3,
    "denied": lambda row: Model.first(row) and Model.denied(row),
    "unanswered": Model.unanswered,
}
DIMENSIONS = (*_WHOLE, *(f"{short}.{name}" for short in SIDES for name in _OF_ENDS))
MEASURES = (*_COUNTED, "peakThroughput", "sources", "destinations")


class Questions:
    """Makes questions at random."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def moment(self) -> int:
        step_s = self.dice.choice((1, 60, 3600, DAY_S))
        return (BEGIN_S - 3600 + self.dice.randrange(LENGTH_S + 7200)) // step_s * step_s

    def asked(self) -> dict[str, str]:
        """The parameters of a table."""
        begin, end = sorted((self.moment(), self.moment()))
        end += begin == end
        by = {self.dice.choice(DIMENSIONS) for _ in range(self.dice.randrange(4))}
        intervals = ("none", "none", "25m", "1h", "90m", "6h", "1d")
        fitting = [each for each in intervals if end - begin < 60 * (_seconds(each) or DAY_S)]
        return {
            "from": str(begin * 1000), "to": str(end * 1000), "by": ",".join(sorted(by)),
            "measure": ",".join(self.dice.sample(MEASURES, 2)),
            "interval": self.dice.choice(fitting),
            "compare": self.dice.choice(("", "", "previous", "-1h", "-1d", "-7m")),
            "limit": self.dice.choice(("1", "3", "50")),
        }  # fmt: skip

    def wish(self, depth: int = 2) -> tuple[str, Test]:
        """A filter in words, and what it says of a record."""
        if not depth or self.dice.random() < 0.4:
            return self._condition()
        (one, is_one), (other, is_other) = self.wish(depth - 1), self.wish(depth - 1)
        joint = self.dice.choice(("and", "or", "and not"))
        tests: dict[str, Test] = {
            "and": lambda row: is_one(row) and is_other(row),
            "or": lambda row: is_one(row) or is_other(row),
            "and not": lambda row: is_one(row) and not is_other(row),
        }
        return f"({one}) {joint} ({other})", tests[joint]

    def _condition(self) -> tuple[str, Test]:
        """One of the value of a name, at one end or at either; or of what has rules of its own."""
        if self.dice.random() < 0.3:
            return self.dice.choice(_ODD)
        name = self.dice.choice([each for each in DIMENSIONS if not each.endswith((".ip", "port"))])
        values = {Model.value(row, name) for row in ROWS}
        value = self.dice.choice(sorted(values))
        _, dot, rest = name.partition(".")
        alone = bool(dot) and rest != "verdict" and self.dice.random() < 0.5
        ends = [f"{each}.{rest}" for each in SIDES] if alone else [name]
        denied = self.dice.random() < 0.3
        written = rest if alone else name
        if value:
            is_policy = rest == "policy" and "/" not in value
            quoted = json.dumps(f"/{value}" if is_policy else value, ensure_ascii=False)
            text = f"{written} {'!=' if denied else '='} {quoted}"
        else:
            text = f"{written} is {'not ' * denied}empty"
        return text, lambda row: any(Model.value(row, each) == value for each in ends) != denied


def _of_addresses(text: str) -> Test:
    network = ip_network(text)
    return lambda row: any(ip_address(row[f"{end}IP"]) in network for end in SIDES.values())


_ODD: tuple[tuple[str, Test], ...] = (
    *((f"ip = {text}", _of_addresses(text)) for text in (
        "0.0.0.0/0", "::/0", "10.0.0.0/31", "255.255.255.255/32", "2001:db8::/48", "128.0.0.0/1",
    )),
    ("ip = ::ffff:10.0.0.1", _of_addresses("10.0.0.1/32")),
    ("port < 1024", lambda row: any(
        0 < row[name] < 1024
        for name in (*(f"{end}TransportPort" for end in SIDES.values()), "destinationServicePort")
    )),
    ("port is not empty", lambda row: all(row[f"{end}TransportPort"] for end in SIDES.values())),
    ("dst.port = 0", lambda row: row["destinationTransportPort"] == 0),
    ("src.pod = cart*", lambda row: row.get("sourcePodName", "").startswith("cart")),
    ("pod = shop/*-0", lambda row: any(
        row.get(f"{end}PodNamespace") == "shop" and row.get(f"{end}PodName", "").endswith("-0")
        for end in SIDES.values()
    )),
    ("service = cart", lambda row: row["destinationServicePortName"].startswith("shop/cart:")),
    ("verdict = denied", Model.denied),
    ("bytes >= 9007199254740993", lambda row: (
        row["octetDeltaCount"] + row["reverseOctetDeltaCount"] >= 2**53 + 1
    )),
    ("duration < 60", lambda row: row["flowEndSeconds"] - row["flowStartSeconds"] < 60),
    ('workload ~ "^(shop|bank)/c"', lambda row: any(
        re.match("(shop|bank)/c", Model.value(row, f"{short}.workload")) for short in SIDES
    )),
    ("CART", lambda row: any(
        "cart" in str(row.get(name, "")).lower()
        for name in ("destinationServicePortName", *(
            f"{end}{what}" for end in SIDES.values()
            for what in ("PodNamespace", "PodName", "WorkloadName", "NodeName")
        ))
    )),
)  # fmt: skip

ROWS = [_record(random.Random(number)) for number in range(600)]


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """The records in two commits, what they were rolled up to, and names of networks."""
    request.param = "embedded"
    store = open_store(replace(place(request, "questions_by_a_model"), **FOREVER))
    store.migrate()
    for number in range(2):
        batch = records(*ROWS[number::2], fields=FIELDS)
        insert_rolled(store, batch, BatchId("w", BEGIN_S + LENGTH_S, number))
    assert isinstance(store, EmbeddedStore)
    store.optimize()
    before = in_force()
    enforce(NetworkNames((name, [ip_network(text)]) for name, text in NETWORKS))
    yield store
    enforce(before)
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_what_the_records_say_one_by_one(store: Store, seed: int) -> None:
    made, model, read = Questions(seed), Model(ROWS), set[str]()
    chosen = 0
    for _ in range(15):
        asked = made.asked()
        wish, test = made.wish() if made.dice.random() < 0.7 else ("", lambda _: True)
        settled = made.dice.choice((NOW_S, NOW_S, made.moment()))
        stored = Stored(NOW_S, rollups={each.name: Span(settled) for each in ROLLUPS})
        question = TableQuestion.parse(asked, condition(parse(wish)), NOW_S * 1000, stored)
        plan = question.plan()
        read |= set(next(plan).reading.tables)
        plan.close()
        found = carry_out(store, question.plan())
        found.pop("columns")
        expected = model.answer(asked, test)
        assert found == expected, (asked, wish)
        chosen += any(expected["total"])
    assert chosen > 5, "most questions are about nothing"
    assert len(read) == 3, read


@pytest.mark.parametrize(("wish", "test"), _ODD, ids=[wish for wish, _ in _ODD])
def test_what_has_rules_of_its_own_chooses_what_the_rules_say(
    store: Store, wish: str, test: Test
) -> None:
    expected = [place for place, row in enumerate(ROWS) if test(row)]
    assert 0 < len(expected) < len(ROWS)
    batch = records(*ROWS, fields=FIELDS)
    assert np.flatnonzero(mask(parse(wish), batch)).tolist() == expected
    span = {"from": str((BEGIN_S - DAY_S) * 1000), "to": str((BEGIN_S + LENGTH_S) * 1000)}
    asked = {**span, "measure": "records"}
    question = TableQuestion.parse(asked, condition(parse(wish)), NOW_S * 1000)
    assert carry_out(store, question.plan())["total"] == [len(expected)]
