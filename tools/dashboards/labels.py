"""What rows and series are called: SQL over the columns of records and roll-ups.

A label is a dimension of the questions, or made of several: an end of a connection is called by its
Pod or workload, else by what it is.
"""

from dataclasses import dataclass, replace

from flowvis.clickhouse.schema.ends import (
    EXTERNAL,
    NAMED_BY_POD,
    NODE,
    NUMBERS,
    kind_sql,
    node_sql,
)
from flowvis.clickhouse.schema.rolled_columns import NETWORK_BITS, network_sql
from flowvis.clickhouse.schema.tables import stored_columns
from flowvis.questions.dimensions import Dimension, Part, dimension

LEVELS = {"pod": "Pod", "workload": "Workload", "namespace": "Namespace"}
"""What the ends of connections are called by: the values of the variable `level`."""
LEVEL = "level"
SIDES = {"source": "src", "destination": "dst"}
LEVEL_COLUMNS = frozenset(f"{side}_${{{LEVEL}}}" for side in SIDES)
"""What the name of each end is, at the level that is chosen."""
LEVEL_NUMBERS = {side: f"{side}_number_${{{LEVEL}}}" for side in SIDES}
"""What the number of each end is, at that level."""


@dataclass(frozen=True, slots=True)
class Label:
    """A name of rows, columns or series."""

    title: str
    sql: str
    parts: tuple[Part, ...]
    """What rows are grouped by for it."""
    dimension: str = ""
    """That has the same values for Pods; "" where the questions have none."""
    own_number: str = ""
    """SQL over the parts' columns of a number that records have in common exactly when this is
    called the same; "" is a hash of what it is called."""
    many: bool = False
    """Whether there are as many as pairs of ends."""

    @property
    def number(self) -> str:
        """The SQL of the number by which the largest can be found before they have names."""
        return self.own_number or f"cityHash64({self.sql})"


def label(title: str, name: str) -> Label:
    """Return a dimension, by its name in filters and questions."""
    found = dimension("by", name)
    return Label(title, found.sql, found.parts, name, _number(found))


def _number(found: Dimension) -> str:
    """Return the number of a dimension's values, without their texts where that is possible."""
    match [part.column for part in found.parts]:
        case [column] if found.type != "enum":
            return f"cityHash64({column})"
        case [namespace, name] if found.name.endswith((".pod", ".policy")):
            return f"if({name} = '', 0, cityHash64(cityHash64({namespace}), cityHash64({name})))"
    return ""


def made(title: str, sql: str, *parts: Part) -> Label:
    """Return an expression of one's own."""
    given = {part.column for part in parts}
    rest = (Part(column) for column in stored_columns(sql) if column not in given)
    return Label(title, sql, (*parts, *rest))


def end(title: str, side: str) -> Label:
    """Return what an end (source, destination) is called, as the variable `level` says."""
    chosen = f"${{{LEVEL}}}"
    namespace, pod, node, kind, named = (
        f"{side}{what}" for what in ("PodNamespace", "PodName", "NodeName", "Is", "Named")
    )
    name = f"if('{chosen}' = 'pod' OR {named} != '', {named}, {pod})"
    whole = f"if('{chosen}' = 'namespace', {namespace}, concat({namespace}, '/', {name}))"
    called = Label(
        title,
        f"multiIf({namespace} != '', {whole}, {kind} = {EXTERNAL}, 'outside',"
        f" {kind} = {NODE}, concat('node ', {node}), 'unknown')",
        (
            Part(namespace),
            Part(named, sql=f"{side}_{chosen}"),  # one of LEVEL_COLUMNS
            Part(pod, NAMED_BY_POD[pod]),
            Part(kind, sql=kind_sql(side)),
            Part(node, node_sql(side)),
        ),
    )
    return replace(called, dimension=f"{SIDES[side]}.${{{LEVEL}}}", own_number=LEVEL_NUMBERS[side])


def levels(text: str) -> dict[str, str]:
    """Return what the columns in a query are called whose names end with the variable `level`."""
    made = {side: _names(side) for side in SIDES}
    made |= {f"{side}_number": _numbers(side) for side in SIDES}
    return {
        f"{stem}_{level}": sql
        for stem, of_levels in made.items()
        if f"{stem}_${{{LEVEL}}}" in text
        for level, sql in of_levels.items()
    }


def _names(side: str) -> dict[str, str]:
    """Return what an end is called by at each level."""
    columns = {"pod": "PodName", "workload": "WorkloadName", "namespace": "PodNamespace"}
    return {level: f"{side}{column}" for level, column in columns.items()}


def _numbers(side: str) -> dict[str, str]:
    """Return the number of an end at each level: the same where it is called the same."""
    namespace, pod = (f"cityHash64({side}{what})" for what in ("PodNamespace", "PodName"))
    by_workload = NUMBERS[side]  # by what it is, where it is no Pod
    of_pods = {"pod": f"cityHash64({namespace}, {pod})", "namespace": namespace}
    return {"workload": by_workload} | {
        level: f"if({side}PodNamespace != '', {number}, {by_workload})"
        for level, number in of_pods.items()
    }


def together(title: str, left: Label, right: Label, between: str = " → ") -> Label:
    """Return two labels in one."""
    parts = {part.column: part for part in (*left.parts, *right.parts)}
    return Label(
        title,
        f"concat({left.sql}, '{between}', {right.sql})",
        tuple(parts.values()),
        own_number=f"cityHash64({left.number}, {right.number})",
        many=True,
    )


def network(title: str, end: str) -> Label:
    """Return the network that an end outside of the cluster is in, as roll-ups keep it."""
    masked = f"{end}NetworkBytes"
    text, mapped = f"IPv6NumToString({masked})", "unhex('00000000000000000000FFFF')"
    return Label(
        title,
        f"multiIf({masked} = toFixedString('', 16), 'unknown',"
        f" substring({masked}, 1, 12) = {mapped},"
        f" concat(substring({text}, 8), '/{NETWORK_BITS[4]}'),"
        f" concat({text}, '/{NETWORK_BITS[6]}'))",
        (Part(masked, sql=network_sql(end)),),
        own_number=f"cityHash64({masked})",
    )
