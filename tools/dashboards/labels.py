"""What rows and series are called: SQL over the columns of records and roll-ups.

A label is a dimension of the questions, or made of several: an end of a connection is called by its
Pod or workload, else by what it is. Hours have no Pods of workloads; there the workload stands.
"""

from dataclasses import dataclass

from flowvis.clickhouse.schema.tables import stored_columns
from flowvis.fields import FlowType
from flowvis.questions.dimensions import Part, dimension

LEVELS = {"pod": "Pod", "workload": "Workload", "namespace": "Namespace"}
"""What the ends of connections are called by: the values of the variable `level`."""
LEVEL = "level"


@dataclass(frozen=True, slots=True)
class Label:
    """A name of rows, columns or series."""

    title: str
    sql: str
    parts: tuple[Part, ...]
    """What rows are grouped by for it."""


def label(title: str, name: str) -> Label:
    """Return a dimension, by its name in filters and questions."""
    found = dimension("by", name)
    return Label(title, found.sql, found.parts)


def made(title: str, sql: str, *parts: Part) -> Label:
    """Return an expression of one's own."""
    given = {part.column for part in parts}
    rest = (Part(column) for column in stored_columns(sql) if column not in given)
    return Label(title, sql, (*parts, *rest))


def end(title: str, side: str) -> Label:
    """Return what an end (source, destination) is called, as the variable `level` says."""
    chosen = f"'${{{LEVEL}}}'"
    namespace, pod, workload, node = (
        f"{side}{what}" for what in ("PodNamespace", "PodName", "WorkloadName", "NodeName")
    )
    owner = f"if({workload} != '', {workload}, {pod})"
    name = f"if({chosen} = 'pod' AND {pod} != '', {pod}, {owner})"
    whole = f"if({chosen} = 'namespace', {namespace}, concat({namespace}, '/', {name}))"
    return made(
        title,
        f"multiIf({namespace} != '', {whole}, {outside(side)}, 'outside',"
        f" {node} != '', concat('node ', {node}), 'unknown')",
        Part(namespace),
        Part(workload, f"{chosen} != 'namespace'"),
        Part(pod, f"{chosen} = 'pod' OR ({chosen} = 'workload' AND {workload} = '')"),
        Part("flowType", f"{namespace} = ''"),
        Part(node, f"{namespace} = ''"),
    )


def outside(side: str) -> str:
    """Return the condition that an end is outside of the cluster."""
    outer = FlowType.FROM_EXTERNAL if side == "source" else FlowType.TO_EXTERNAL
    return f"flowType = {outer}"


def together(title: str, left: Label, right: Label, between: str = " → ") -> Label:
    """Return two labels in one."""
    parts = {part.column: part for part in (*left.parts, *right.parts)}
    return Label(title, f"concat({left.sql}, '{between}', {right.sql})", tuple(parts.values()))


def network(title: str, side: str) -> Label:
    """Return the network that an end outside of the cluster is in: /24, of IPv6 /48."""
    address, masked = f"{side}IPBytes", f"{side}NetworkBytes"
    of_record = (
        f"if({side}PodName = '' AND {outside(side)}, toFixedString(substring({address}, 1,"
        f" if(substring({address}, 1, 12) = {_MAPPED}, 15, 6)), 16), toFixedString('', 16))"
    )
    text = f"IPv6NumToString({masked})"
    return Label(
        title,
        f"multiIf({masked} = toFixedString('', 16), 'unknown',"
        f" substring({masked}, 1, 12) = {_MAPPED}, concat(substring({text}, 8), '/24'),"
        f" concat({text}, '/48'))",
        (Part(masked, sql=of_record),),
    )


_MAPPED = "unhex('00000000000000000000FFFF')"
"""What an IPv4 address begins with as an IPv6 one (RFC 4291 section 2.5.5.2)."""
