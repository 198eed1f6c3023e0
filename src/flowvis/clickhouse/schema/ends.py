"""What is at an end of a connection, and what it is told apart by: SQL over stored columns.

Questions group records by these expressions, and projections of roll-ups by the same ones: the
engine takes a projection for a question only where it finds them.
"""

from flowvis.fields import FlowType

ENDS = ("source", "destination")
POD, EXTERNAL, NODE, UNKNOWN = range(4)
"""What is at an end of a connection: `kind_sql`."""
_EXTERNAL = {"source": FlowType.FROM_EXTERNAL, "destination": FlowType.TO_EXTERNAL}

NAMED_BY_POD = {f"{end}PodName": f"{end}WorkloadName = ''" for end in ENDS}
"""Of a name that is a workload's, else a Pod's, the Pod counts only where there is no workload."""


def outside_sql(end: str) -> str:
    """Return whether the type of a flow says that an end is outside of the cluster."""
    return f"flowType = {_EXTERNAL[end]}"


def kind_sql(end: str) -> str:
    """Return what an end is."""
    return (
        f"multiIf({end}PodName != '', {POD}, {outside_sql(end)}, {EXTERNAL},"
        f" {end}NodeName != '', {NODE}, {UNKNOWN})"
    )


def node_sql(end: str) -> str:
    """Return where an end may be a node itself, so that its name tells it apart."""
    return f"{end}PodName = '' AND flowType != {_EXTERNAL[end]}"


def number_sql(value: str, only_where: str = "") -> str:
    """Return the number that tells values apart, where a condition is true; 0 elsewhere."""
    number = f"cityHash64({value})"
    return f"if({only_where}, {number}, 0)" if only_where else number


def any_sql(value: str, only_where: str = "") -> str:
    """Return one value of a group that has one number; what does not matter is empty."""
    return f"anyIf({value}, {only_where})" if only_where else f"any({value})"
