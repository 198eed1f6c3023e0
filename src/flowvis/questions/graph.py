"""Who talks to whom: groups of sources and of destinations as nodes, what passes between as edges.

Only the largest edges are shown; what is left is put together with one more node, `others`, so that
the sum over all edges is the sum over all records. Two ranges are compared over the same edges:
those that are largest in either.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from flowvis.clickhouse.schema.ends import EXTERNAL, NODE, POD, kind_sql, node_sql
from flowvis.filters.networks import NUMBERS, TEXTS
from flowvis.filters.sql import Condition
from flowvis.questions.dimensions import Dimension, Part, parse_dimensions
from flowvis.questions.edges import Edges, both_ways, codes_of, ends_of, exact, larger
from flowvis.questions.groups import MAX_KEYS, WHOLE, Array, Grouping, cells_of
from flowvis.questions.measures import BY_NAME, Measure
from flowvis.questions.planner import RECORDS_ONLY, Stored
from flowvis.questions.problem import number
from flowvis.questions.statement import Plan, Records
from flowvis.questions.times import TimeRange, parse_compare, parse_range

DEFAULT_LIMIT = 300
MAX_LIMIT = 2000
FETCHED = 40_000
"""Edges fetched; of what is beyond, only the sums are known."""
OTHERS = "others"
"""The node of what is not shown."""

MEASURES: tuple[Measure, ...] = tuple(
    BY_NAME[name]
    for name in (
        "octets", "reverseOctets", "packets", "reversePackets", "connections", "denied",
        "unanswered",
    )
)  # fmt: skip
"""Of each edge, and of each node but for its packets. The octets of both directions sort."""


@dataclass(frozen=True, slots=True)
class _Side:
    """The ends of connections on one side: what they are grouped by, and what they are."""

    dimensions: tuple[Dimension, ...]
    end: str
    """source or destination, as columns have it."""
    named: bool
    """Whether networks have names."""

    @property
    def _what(self) -> str:
        return f"{self.end}Is"

    @property
    def parts(self) -> tuple[Part, ...]:
        """What an end is, and the name of the node that it is."""
        kind = Part(self._what, sql=kind_sql(self.end))
        parts = kind, Part(f"{self.end}NodeName", node_sql(self.end))
        return (*parts, Part(NUMBERS[self.end])) if self.named else parts

    @property
    def shown(self) -> tuple[str, ...]:
        """SQL of the kind of an end, and of the name of the node or network that it is."""
        last = self.dimensions[-1]
        own = _own_kind(last)
        kind = (
            f"multiIf({own}{self._what} = {POD}, 'pod', {self._what} = {EXTERNAL}, 'external',"
            f" {self._what} = {NODE}, 'node', 'unknown')"
        )
        network = TEXTS[self.end] if self.named else "''"
        return kind, f"if({self._what} = {NODE}, toString({self.end}NodeName), {network})"

    def node(self, values: Sequence[Any], kind: str, name: str) -> "_Node":
        """Return what an end of values is called: by these, without what they repeat.

        By its own name where the last one has none for it, behind what the others say.
        """
        if kind in {"external", "unknown", "node"} and values[-1] in _NOTHING:
            own = (name,) if name else ()
            known = tuple(str(value) for value in values if value not in _NOTHING)
            says_nothing = not known and bool(_own_kind(self.dimensions[-1]))
            told = own if says_nothing else (*map(str, values), name)
            return _Node(_id(kind, told), (*known, *own), kind)
        found: list[str] = []
        for value in map(str, values):
            found.append(value.removeprefix(f"{found[-1]}/") if found and found[-1] else value)
        return _Node(_id(kind, map(str, values)), tuple(found), kind)


def _own_kind(last: Dimension) -> str:
    """Return branches of multiIf for what the last dimension itself is a name of."""
    _, _, what = last.name.rpartition(".")
    if what == "workload":  # of whichever end
        named = next(each.column for each in last.parts if each.column.endswith("WorkloadName"))
        return f"{named} != '', 'workload', "
    if what in {"namespace", "pod", "service", "node", "zone", "region"}:
        return f"toString({last.sql}) != '', '{what}', "
    return ""


_NOTHING = ("", 0)
"""Values that say nothing of an end."""
_ESCAPED = str.maketrans({"%": "%25", ":": "%3A", " ": "%20"})


def _id(kind: str, told: Iterable[str]) -> str:
    return ":".join([kind, *(each.translate(_ESCAPED) for each in told)])


@dataclass(frozen=True, slots=True)
class _Node:
    id: str
    """The same for the same end in other answers, and for no other end. It has no spaces, so that
    two with one between name an edge."""
    names: tuple[str, ...]
    kind: str


class _Nodes:
    """Nodes by their numbers, from 0 on; the same in all ranges."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._nodes: list[_Node] = []

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, number: int) -> _Node:
        return self._nodes[number]

    def number(self, side: _Side, end: Sequence[Any]) -> int:
        """Return the number of the node of values, a kind and a name."""
        *values, kind, name = end
        node = side.node(values, kind, name)
        number = self._number.setdefault(node.id, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(node)
        return number

    def numbers(self, side: _Side, columns: Sequence[Sequence[Any]]) -> Array:
        """Return the numbers of many, of which most are the same."""
        known: dict[tuple[Any, ...], int] = {}
        places = [known.setdefault(end, len(known)) for end in zip(*columns, strict=True)]
        numbers = np.array([self.number(side, end) for end in known], np.int64)
        return numbers[places]


@dataclass(frozen=True, slots=True)
class _Range:
    """What was found in one range."""

    range: TimeRange
    seconds: int
    """Of what was read: longer than the range where that had to be whole minutes or hours."""
    edges: Edges
    codes: Array
    """Of the edge that each group is a part of; of one edge there may be some."""
    groups: Array
    """The number of each group."""
    beyond: Sequence[int] = (0,) * len(MEASURES)
    """Of the edges that were not fetched."""
    whole: bool = True
    """Whether all were."""

    def with_more(self, other: "_Range") -> "_Range":
        """Return it with groups of its own range that were beyond."""
        beyond = [a - b for a, b in zip(self.beyond, other.edges.total(), strict=True)]
        return replace(
            self,
            edges=self.edges.with_more(other.edges),
            codes=np.concatenate((self.codes, other.codes)),
            groups=np.concatenate((self.groups, other.groups)),
            beyond=beyond,
        )


@dataclass(frozen=True, slots=True)
class GraphQuestion:
    """What is asked."""

    records: Records
    source: _Side
    target: _Side
    limit: int
    compared: TimeRange | None

    @classmethod
    def parse(
        cls,
        parameters: Mapping[str, str],
        condition: Condition,
        now_ms: int,
        stored: Stored = RECORDS_ONLY,
    ) -> Self:
        """Read from, to, source, target, limit and compare; QuestionError names a bad one."""
        asked = parse_range(parameters.get("from", ""), parameters.get("to", ""), now_ms)
        source = parse_dimensions("source", parameters.get("source", "") or "src.workload")
        target = parse_dimensions("target", parameters.get("target", "") or "dst.workload")
        named = bool(condition.networks)
        return cls(
            Records(asked, condition, stored),
            _Side(source, "source", named),
            _Side(target, "destination", named),
            number("limit", parameters.get("limit", ""), DEFAULT_LIMIT, MAX_LIMIT),
            parse_compare(parameters.get("compare", ""), asked, now_ms),
        )

    def plan(self) -> Plan[dict[str, Any]]:
        """Return the plan of the graph, as JSON has it."""
        nodes = _Nodes()
        now = yield from self._found(self.records, nodes)
        before = None
        if self.compared is not None:
            earlier = self.records.within(self.compared)
            before = yield from self._found(earlier, nodes)
        shown = self._shown(nodes, now, before)
        if before is not None:
            now, before = (
                (yield from self._completed(self.records, now, before, shown, nodes)),
                (yield from self._completed(earlier, before, now, shown, nodes)),
            )
        answer = shown.document(now)
        answer["compared"] = None
        if before is not None:
            span = {"from": before.range.from_ms, "to": before.range.to_ms}
            answer["compared"] = span | shown.document(before)
        return answer

    @property
    def _grouping(self) -> Grouping:
        return Grouping(
            (*self.source.dimensions, *self.target.dimensions),
            MEASURES,
            (*self.source.parts, *self.target.parts),
            (*self.source.shown, *self.target.shown),
            sorting=2,
        )

    def _found(self, records: Records, nodes: _Nodes) -> Plan[_Range]:
        grouping = self._grouping
        largest = grouping.largest(records, FETCHED + 1, keys=False)
        found = yield largest
        seconds = largest.reading.of(records.range).seconds
        fetched = self._range(records.range, seconds, found.rows[:FETCHED], nodes)
        if len(found.rows) <= FETCHED:
            return fetched
        total = cells_of((yield grouping.total(records, largest)))[WHOLE, WHOLE]
        sums = fetched.edges.total()
        beyond = [a - b for a, b in zip((int(n or 0) for n in total), sums, strict=True)]
        return replace(fetched, beyond=beyond, whole=False)

    def _completed(
        self, records: Records, found: _Range, other: _Range, shown: "_Shown", nodes: _Nodes
    ) -> Plan[_Range]:
        """Fetch what is shown of the other range, and was beyond what was fetched of this one."""
        if found.whole:
            return found
        wanted = other.groups[np.isin(other.codes, shown.codes)]
        missing = np.setdiff1d(wanted, found.groups).tolist()
        for first in range(0, len(missing), MAX_KEYS):
            more = yield self._grouping.these(records, missing[first : first + MAX_KEYS])
            found = found.with_more(self._range(found.range, found.seconds, more.rows, nodes))
        return found

    def _range(
        self, span: TimeRange, seconds: int, rows: Sequence[Sequence[Any]], nodes: _Nodes
    ) -> _Range:
        """Make edges of groups."""
        values, numbers, groups = self._grouping.columns(rows)
        width = len(self.source.dimensions)
        *named, source_kind, source_name, target_kind, target_name = values
        ends = (
            nodes.numbers(self.source, [*named[:width], source_kind, source_name]),
            nodes.numbers(self.target, [*named[width:], target_kind, target_name]),
        )
        edges = Edges.of(*ends, exact(numbers))
        return _Range(span, seconds, edges, codes_of(*ends), groups)

    def _shown(self, nodes: _Nodes, now: _Range, before: _Range | None) -> "_Shown":
        """Choose the edges that are largest, in either range."""
        codes, octets = now.edges.codes, both_ways(now.edges.numbers)
        if before is not None:
            codes, octets = larger(now.edges, before.edges)
        if len(codes) > self.limit:
            chosen = octets >= np.sort(octets)[-self.limit]
            codes, octets = codes[chosen], octets[chosen]
        found = zip(*(each.tolist() for each in (*ends_of(codes), octets)), strict=True)
        edges = [((source, target), both) for source, target, both in found]
        edges.sort(key=lambda edge: (-edge[1], *(nodes[end].id for end in edge[0])))
        return _Shown(nodes, [edge for edge, _ in edges[: self.limit]])


class _Shown:
    """What is shown of one range or two."""

    def __init__(self, nodes: _Nodes, edges: Sequence[tuple[int, int]]) -> None:
        self._nodes = nodes
        self._ends = list(dict.fromkeys(end for edge in edges for end in edge))
        ends = np.array(edges, np.int64).reshape(len(edges), 2)
        self.codes = codes_of(ends[:, 0], ends[:, 1])

    def document(self, found: _Range) -> dict[str, Any]:
        """Return what was found in a range, as JSON has it."""
        shown = found.edges.among(self.codes)
        others = self._others(found, ~shown)
        at_nodes = found.edges.at_nodes()
        nothing = [0] * len(MEASURES)
        return {
            "nodes": [_node(self._nodes[end], at_nodes.get(end, nothing)) for end in self._ends],
            "edges": sorted(self._edges(found, found.edges.only(shown)), key=_largest_first),
            "others": {
                "edges": sorted(self._edges(found, others), key=_ends_of_edge),
                "hidden": int(np.count_nonzero(~shown)),
            }
            if len(others)
            else None,
        }

    def _others(self, found: _Range, hidden: Array) -> Edges:
        """Return edges that are not shown, with ends of which one is, or `others`."""
        rest = len(self._nodes)
        known = np.zeros(rest + 1, bool)
        known[self._ends] = True
        left = found.edges.only(hidden)
        sources, targets = ends_of(left.codes)
        # Of an edge between two nodes that are shown, the source's end is kept.
        at_source = known[sources]
        others = Edges.of(
            np.where(at_source, sources, rest),
            np.where(known[targets] & ~at_source, targets, rest),
            left.numbers,
        )
        if not any(found.beyond):
            return others
        beyond = Edges(codes_of(*np.full((2, 1), rest)), np.array([found.beyond], object))
        return others.with_more(beyond)

    def _edges(self, found: _Range, edges: Edges) -> Iterator[dict[str, Any]]:
        ends = zip(*(each.tolist() for each in ends_of(edges.codes)), strict=True)
        for (source, target), numbers in zip(ends, edges.numbers.tolist(), strict=True):
            yield {
                "source": self._id(source),
                "target": self._id(target),
                **_named(numbers),
                "throughput": BY_NAME["throughput"].of(numbers[0], found.seconds),
            }

    def _id(self, number: int) -> str:
        return self._nodes[number].id if number < len(self._nodes) else OTHERS


def _ends_of_edge(edge: Mapping[str, Any]) -> tuple[str, str]:
    return edge["source"], edge["target"]


def _largest_first(edge: Mapping[str, Any]) -> tuple[int, str, str]:
    return -edge["bothOctets"], *_ends_of_edge(edge)


def _node(node: _Node, numbers: Sequence[int]) -> dict[str, Any]:
    counted = {
        name: number for name, number in _named(numbers).items() if not name.endswith("ackets")
    }
    return {"id": node.id, "names": node.names, "kind": node.kind, **counted}


def _named(numbers: Sequence[int]) -> dict[str, int]:
    named = {each.name: number for each, number in zip(MEASURES, numbers, strict=True)}
    return {"bothOctets": numbers[0] + numbers[1]} | named
