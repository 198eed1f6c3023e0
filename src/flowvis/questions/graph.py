"""Who talks to whom: groups of sources and of destinations as nodes, what passes between as edges.

Only the largest edges are shown; what is left is put together with one more node, `others`, so that
the sum over all edges is the sum over all records. Two ranges are compared over the same edges:
those that are largest in either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import add
from typing import Any, Self, cast

from flowvis.clickhouse.schema.ends import EXTERNAL, NODE, POD, kind_sql, node_sql
from flowvis.filters.networks import NUMBERS, TEXTS
from flowvis.filters.sql import Condition
from flowvis.questions.dimensions import Dimension, Part, parse_dimensions
from flowvis.questions.groups import Group, Grouping
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
        own = _own_kind(last, self.end)
        kind = (
            f"multiIf({own}{self._what} = {POD}, 'pod', {self._what} = {EXTERNAL}, 'external',"
            f" {self._what} = {NODE}, 'node', 'unknown')"
        )
        network = TEXTS[self.end] if self.named else "''"
        return kind, f"if({self._what} = {NODE}, toString({self.end}NodeName), {network})"

    def names(self, values: Sequence[Any], kind: str, name: str) -> tuple[str, ...]:
        """Return what people call an end: its values, without what they repeat; or its own name."""
        if kind in {"external", "unknown", "node"} and values[-1] in {"", 0}:
            return (name,) if name else ()
        found: list[str] = []
        for value in map(str, values):
            found.append(value.removeprefix(f"{found[-1]}/") if found and found[-1] else value)
        return tuple(found)


def _own_kind(last: Dimension, end: str) -> str:
    """Return branches of multiIf for what the last dimension itself is a name of."""
    _, _, what = last.name.rpartition(".")
    if what == "workload":
        return f"{end}WorkloadName != '', 'workload', "
    if what in {"namespace", "pod", "service", "node", "zone", "region"}:
        return f"toString({last.sql}) != '', '{what}', "
    return ""


class _Node:
    """A node, with what all edges at it add up to."""

    def __init__(self, names: tuple[str, ...], kind: str, numbers: Sequence[int]) -> None:
        self.names, self.kind, self.numbers = names, kind, numbers
        self.id = ":".join([kind, *names])
        """The same for the same end in other answers."""


class _Ends:
    """The nodes of one side, by what groups say of it."""

    def __init__(self, side: _Side, nodes: dict[str, _Node]) -> None:
        """`nodes`, by their ids, are those of both sides."""
        self._side, self._nodes = side, nodes
        self._known: dict[tuple[Any, ...], _Node] = {}

    def node(self, end: tuple[Any, ...]) -> _Node:
        """Return the node of values, a kind and a name."""
        found = self._known.get(end)
        if found is None:
            *values, kind, name = end
            made = _Node(self._side.names(values, kind, name), kind, [0] * len(MEASURES))
            found = self._known[end] = self._nodes.setdefault(made.id, made)
        return found


@dataclass(frozen=True, slots=True)
class _Edges:
    """What was found in one range."""

    range: TimeRange
    numbers: dict[tuple[str, str], Sequence[int]]
    """Of each edge, by the ids of its nodes."""
    nodes: dict[str, _Node]
    beyond: Sequence[int] = (0,) * len(MEASURES)
    """Of the edges that were not fetched."""


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
        now = yield from self._edges(self.records)
        before = None
        if self.compared is not None:
            before = yield from self._edges(self.records.within(self.compared))
        shown = self._shown(now, before)
        answer = _document(now, shown)
        answer["compared"] = None
        if before is not None:
            span = {"from": before.range.from_ms, "to": before.range.to_ms}
            answer["compared"] = span | _document(before, shown)
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

    def _edges(self, records: Records) -> Plan[_Edges]:
        grouping = self._grouping
        groups = grouping.groups((yield grouping.largest(records, FETCHED + 1, keys=False)))
        edges = self._added(records.range, groups[:FETCHED])
        if len(groups) <= FETCHED:
            return edges
        whole = Grouping((), MEASURES).cells(records, (), None)
        (_, _, *total) = (yield whole).rows[0]
        known = [sum(column) for column in zip(*edges.numbers.values(), strict=True)]
        beyond = [a - b for a, b in zip(map(int, total), known, strict=True)]
        return replace(edges, beyond=beyond)

    def _added(self, span: TimeRange, groups: Sequence[Group]) -> _Edges:
        """Add groups up to edges: some differ in what no name of a node has."""
        width = len(self.source.dimensions)
        edges = _Edges(span, {}, {})
        sources, targets = _Ends(self.source, edges.nodes), _Ends(self.target, edges.nodes)
        for group in groups:
            *values, source_kind, source_name, target_kind, target_name = group.values
            source = sources.node((*values[:width], source_kind, source_name))
            target = targets.node((*values[width:], target_kind, target_name))
            edge = (source.id, target.id)
            numbers = cast("Sequence[int]", group.numbers)  # sums and counts
            before = edges.numbers.get(edge)
            edges.numbers[edge] = numbers if before is None else _plus(before, numbers)
            source.numbers = _plus(source.numbers, numbers)
            if target is not source:
                target.numbers = _plus(target.numbers, numbers)
        return edges

    def _shown(self, now: _Edges, before: _Edges | None) -> "_Shown":
        """Choose the edges that are largest, in either range."""
        largest = {edge: _both(numbers) for edge, numbers in now.numbers.items()}
        nodes = dict(now.nodes)
        if before is not None:
            nodes = before.nodes | nodes
            for edge, numbers in before.numbers.items():
                largest[edge] = max(largest.get(edge, 0), _both(numbers))
        edges = sorted(largest, key=lambda edge: (-largest[edge], edge))[: self.limit]
        ids = dict.fromkeys(end for edge in edges for end in edge)
        return _Shown(frozenset(edges), {each: nodes[each] for each in ids})


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is shown of one range or two."""

    edges: frozenset[tuple[str, str]]
    nodes: Mapping[str, _Node]


def _document(found: _Edges, shown: _Shown) -> dict[str, Any]:
    edges: dict[tuple[str, str], Sequence[int]] = {}
    others: dict[tuple[str, str], Sequence[int]] = {}
    if any(found.beyond):
        others[OTHERS, OTHERS] = found.beyond
    for (source, target), numbers in found.numbers.items():
        if (source, target) in shown.edges:
            edges[source, target] = numbers
        else:
            # Of an edge between two nodes that are shown, the source's end is kept.
            at_source = source in shown.nodes
            to = target if target in shown.nodes and not at_source else OTHERS
            edge = (source if at_source else OTHERS, to)
            others[edge] = _plus(others.get(edge, [0] * len(MEASURES)), numbers)
    nothing = [0] * len(MEASURES)
    return {
        "nodes": [
            _node(node, found.nodes[node.id].numbers if node.id in found.nodes else nothing)
            for node in shown.nodes.values()
        ],
        "edges": [_edge(*edge, edges[edge], found.range) for edge in sorted(edges, key=_by(edges))],
        "others": {
            "edges": [_edge(*edge, others[edge], found.range) for edge in sorted(others)],
            "hidden": len(found.numbers) - len(edges),
        }
        if others
        else None,
    }


def _by(edges: Mapping[tuple[str, str], Sequence[int]]) -> Any:
    return lambda edge: (-_both(edges[edge]), edge)


def _both(numbers: Sequence[int]) -> int:
    """Return the octets of both directions."""
    return numbers[0] + numbers[1]


def _node(node: _Node, numbers: Sequence[int]) -> dict[str, Any]:
    counted = {
        name: number for name, number in _named(numbers).items() if not name.endswith("ackets")
    }
    return {"id": node.id, "names": node.names, "kind": node.kind, **counted}


def _edge(source: str, target: str, numbers: Sequence[int], span: TimeRange) -> dict[str, Any]:
    rate = BY_NAME["throughput"].of(numbers[0], span.seconds)
    return {"source": source, "target": target, **_named(numbers), "throughput": rate}


def _named(numbers: Sequence[int]) -> dict[str, int]:
    named = {each.name: number for each, number in zip(MEASURES, numbers, strict=True)}
    return {"bothOctets": _both(numbers)} | named


def _plus(one: Sequence[int], other: Sequence[int]) -> Sequence[int]:
    return list(map(add, one, other))
