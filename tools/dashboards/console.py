"""The console's address of the question that a panel asks."""

from tools.dashboards.panels import Question
from tools.dashboards.queries import Records


def explored(records: Records, measure: str, by: str = "", chart: str = "") -> Question:
    """Return the question on the page Explore."""
    given = (("by", by), ("measure", measure), ("chart", chart))
    return Question("explore", records.written, tuple(pair for pair in given if pair[1]))


def mapped(records: Records, level: str = "workload") -> Question:
    """Return the question on the map."""
    return Question("map", records.written, (("level", level),))


def listed(records: Records) -> Question:
    """Return the records on the page Flows."""
    return Question("flows", records.written)


def policies(records: Records) -> Question:
    """Return the page of policies."""
    return Question("policies", records.written)


def nodes() -> Question:
    """Return the page of nodes."""
    return Question("nodes")
