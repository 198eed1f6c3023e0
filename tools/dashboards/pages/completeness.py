"""Nodes and completeness: what the books say of the range, so whether dashboards are whole."""

from tools.dashboards import books, console, variables
from tools.dashboards.page import Page, Row
from tools.dashboards.panels import Lines, Rows, Stat

MISSING, SILENT = books.MISSING, books.SILENT
_NODES = console.nodes()

PAGE = Page(
    "completeness",
    "Flows: nodes and completeness",
    "What became of all records, by the books that every stage keeps: whether anything is missing",
    [
        Row(
            "",
            [
                Stat(
                    title="Records missing",
                    about="Dropped on the way or lost before it",
                    asks=MISSING,
                    width=6,
                    thresholds=((1, "red"),),
                    console=_NODES,
                ),
                Stat(
                    title="Nodes heard",
                    about="Nodes that records came from",
                    asks=books.HEARD,
                    width=6,
                    console=_NODES,
                ),
                Stat(
                    title="Silent nodes",
                    about="Without a session for a part of the range",
                    asks=SILENT,
                    width=6,
                    thresholds=((1, "orange"),),
                    console=_NODES,
                ),
                Stat(
                    title="Time without books",
                    about="No aggregator wrote any, of the cluster that lacks most:"
                    " for the last minute there are none yet",
                    asks=books.WITHOUT,
                    unit="s",
                    width=6,
                    thresholds=((180, "orange"),),
                    console=_NODES,
                ),
            ],
        ),
        Row(
            "What is missing",
            [
                Rows(
                    title="Missing records",
                    about="Where records were given up, of which node, and why",
                    asks=books.REASONS,
                    width=24,
                    console=_NODES,
                ),
                Rows(
                    title="By node",
                    about="What each node's exporter sent, and what never came",
                    asks=books.BY_NODE,
                    units={"Silent": "s"},
                    console=_NODES,
                ),
                Rows(
                    title="By stage",
                    about="What came in equals what became of it",
                    asks=books.STAGES,
                    console=_NODES,
                ),
                Rows(
                    title="Set aside",
                    about="Dropped because nobody wants them: no loss",
                    asks=books.SET_ASIDE,
                    console=_NODES,
                ),
            ],
        ),
        Row(
            "Over time",
            [
                Lines(
                    title=title,
                    about=about,
                    written=asks,
                    unit="cps",
                    stacked=False,
                    console=_NODES,
                )
                for title, about, asks in books.series()
            ],
        ),
    ],
    [variables.store(), variables.console()],
)
