"""Panels that several dashboards have: who sends how much to whom, both ways, and over time."""

from collections.abc import Iterator
from dataclasses import replace

from tools.dashboards.console import explored, mapped
from tools.dashboards.labels import LEVEL, Label, end, together
from tools.dashboards.panels import OCTETS, RATE, Lines, Network, Panel, Rows, Shares
from tools.dashboards.queries import Column, Graph, Ranked, Records, Series

SOURCE, DESTINATION = end("Source", "source"), end("Destination", "destination")
BY = f"src.${{{LEVEL}}},dst.${{{LEVEL}}}"
"""What the console groups by for these."""
PAIRS = (
    Column("Bytes", "octets"),
    Column("Reverse bytes", "reverseOctets"),
    Column("Throughput", "throughput"),
    Column("Reverse throughput", "reverseThroughput"),
    Column("Connections", "connections"),
    Column("Denied", "denied"),
    Column("Unanswered", "unanswered"),
)
PAIR_UNITS = {
    "Bytes": OCTETS, "Reverse bytes": OCTETS, "Throughput": RATE, "Reverse throughput": RATE,
    "Connections": "short", "Denied": "short", "Unanswered": "short",
}  # fmt: skip


def pairs(
    what: str, records: Records, source: Label, destination: Label, by: str = BY
) -> Iterator[Panel]:
    """Yield what passed from sources to destinations, in both directions."""
    yield Rows(
        title=f"Cumulative bytes of {what}",
        about="Who sent how much to whom, and what came back: the 50 largest",
        asks=Ranked((source, destination), PAIRS, records),
        units=PAIR_UNITS,
        gauges=("Bytes", "Reverse bytes"),
        width=24,
        height=12,
        console=explored(records, "octets", by, "sankey"),
    )


def graph(what: str, records: Records, source: Label, destination: Label) -> Network:
    """Return who talks to whom."""
    return Network(
        title=f"Graph of {what}",
        about="The 60 largest edges: bytes of both directions, connections begun. Red: a policy"
        " denied some of them, orange: some got no answer",
        asks=Graph(source, destination, records),
        console=mapped(records),
    )


def rates(
    what: str,
    records: Records,
    source: Label,
    destination: Label,
    by: str = BY,
    *,
    many: bool = True,
) -> Iterator[Panel]:
    """Yield what passes from sources to destinations and back, over time.

    `many` is whether there are many pairs.
    """
    pair = replace(together("Pair", source, destination), many=many)
    for title, measure in (
        ("Throughput", "throughput"),
        ("Reverse throughput", "reverseThroughput"),
    ):
        yield Lines(
            title=f"{title} of {what}",
            about="The 15 largest, and all others together",
            asks=Series(Column(title, measure), pair, records),
            console=explored(records, measure, by),
        )


def ends(
    what: str, records: Records, source: Label, destination: Label, by: str = BY
) -> Iterator[Panel]:
    """Yield what each source and each destination does, over time."""
    names = by.split(",")
    for role, label, name in (("source", source, names[0]), ("destination", destination, names[1])):
        yield Lines(
            title=f"Throughput of {what} as {role}",
            about="From source to destination: the 15 largest, and all others together",
            asks=Series(Column("Throughput", "throughput"), label, records),
            console=explored(records, "throughput", name),
        )


def shares(title: str, records: Records, label: Label, name: str, *, limit: int = 24) -> Shares:
    """Return how the bytes are shared out."""
    return Shares(
        title=title,
        about="Bytes from source to destination",
        asks=Ranked((label,), (Column("Bytes", "octets"),), records, limit, others=True),
        console=explored(records, "octets", name),
    )
