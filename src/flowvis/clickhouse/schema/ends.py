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


NUMBERS = {end: f"{end}EndpointHash" for end in ENDS}
"""Stored columns of the number that tells ends apart: what `end_number_sql` is, worked out once."""


def end_number_sql(end: str) -> str:
    """Return the number of an end by its workload, else its Pod; else by what it is.

    Of hashes, which the engine finds for each entry of a column's dictionary and not for each row.
    """
    namespace, workload, pod = (
        f"{end}{what}" for what in ("PodNamespace", "WorkloadName", "PodName")
    )
    named = f"if({workload} != '', cityHash64({workload}), cityHash64({pod}))"
    kind = kind_sql(end)
    return (
        f"multiIf({namespace} != '', cityHash64(cityHash64({namespace}), {named}),"
        f" {kind} = {EXTERNAL}, {EXTERNAL},"
        f" {kind} = {NODE}, cityHash64(cityHash64({end}NodeName), {NODE}), {UNKNOWN})"
    )


def kept_sql(value: str, only_where: str = "") -> str:
    """Return a text where a condition is true; '' elsewhere."""
    return f"if({only_where}, {value}, '')" if only_where else value


def number_sql(value: str, only_where: str = "") -> str:
    """Return the number that tells values apart: of a text what `kept_sql` has."""
    number = f"cityHash64({value})"
    return f"if({only_where}, {number}, cityHash64(''))" if only_where else number


def any_sql(value: str, only_where: str = "") -> str:
    """Return one value of a group that has one number; what does not matter is empty."""
    return f"anyIf({value}, {only_where})" if only_where else f"any({value})"
