"""OVS: flows of each table, what is done with them, and what OVS itself says."""

from tools.dashboards import antrea, console, variables
from tools.dashboards.antrea import Series
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.health import lines
from tools.dashboards.panels import Lines
from tools.dashboards.sources import Metric
from tools.dashboards.streams import Stream

_TABLE = 'table_id=~"$table"'
_OPERATION = 'operation=~"$operation"'
_ENTRIES = Series("flowvis_exporter_conntrack_entries_total")
_INTERRUPTED = Series("flowvis_exporter_conntrack_interrupted_total")


def _lines(title: str, about: str, expression: str, legend: str, unit: str = "short") -> Lines:
    return Lines(
        title=title,
        about=about,
        of=(Metric(expression, legend),),
        unit=unit,
        stacked=False,
    )


def _operations(title: str, about: str, series: Series, by: str) -> Lines:
    expression = f"sum by ({by}) ({series.rate(_OPERATION)}) * 60"
    return _lines(title, about, expression, f"{{{{{by}}}}}", "cpm")


PAGE = Page(
    "health-ovs",
    "Health: OVS",
    "Flows of OVS's tables, how many are added and deleted, and what OVS itself says",
    [
        Row(
            "Flows",
            [
                _lines(
                    "Flows by table and instance",
                    "By the table's name and number",
                    f"sum by (table_name, table_id, instance) ({antrea.OVS_FLOWS.of(_TABLE)})",
                    "{{table_name}} ({{table_id}}) {{instance}}",
                ),
                _lines(
                    "Flows by instance",
                    "Of the chosen tables together",
                    f"sum by (instance) ({antrea.OVS_FLOWS.of(_TABLE)})",
                    "{{instance}}",
                ),
                _lines(
                    "Flows by table",
                    "Of the chosen instances together",
                    f"sum by (table_name, table_id) ({antrea.OVS_FLOWS.of(_TABLE)})",
                    "{{table_name}} ({{table_id}})",
                ),
                _lines(
                    "Packets that meters dropped",
                    "Of those that OVS hands to the agent, since OVS started, by meter",
                    f"sum by (instance, meter_id) ({antrea.OVS_METERS.of()})",
                    "{{instance}} {{meter_id}}",
                ),
            ],
        ),
        Row(
            "Operations",
            [
                _operations(
                    "Operations by instance",
                    "Flows added, modified and deleted a minute",
                    antrea.OVS_OPERATIONS,
                    "instance",
                ),
                _operations(
                    "Operations by type",
                    "Flows added, modified and deleted a minute",
                    antrea.OVS_OPERATIONS,
                    "operation",
                ),
                _operations(
                    "Operations that failed",
                    "A minute, by type: 0 while all is well",
                    antrea.OVS_ERRORS,
                    "operation",
                ),
                _lines(
                    "Time of an operation",
                    "Mean, by type",
                    antrea.OVS_LATENCY.mean("operation", _OPERATION),
                    "{{operation}}",
                    "ms",
                ),
            ],
        ),
        Row(
            "What our exporters read of the datapath",
            [
                Lines(
                    title="Connections listed",
                    about="Of the kernel's table or OVS's, by each exporter, a second",
                    of=(Metric(_ENTRIES.rate(), "{{instance}}"),),
                    unit="cps",
                    stacked=False,
                    console=console.nodes(),
                ),
                Lines(
                    title="Listings during which the table changed",
                    about="A second: connections may lack, or be there twice, until the next",
                    of=(Metric(_INTERRUPTED.rate(), "{{instance}}"),),
                    unit="cps",
                    stacked=False,
                    console=console.nodes(),
                ),
            ],
        ),
        Row("Log", [lines.per_second(Stream.OVS), lines.lines(Stream.OVS)]),
    ],
    [
        variables.metrics(),
        variables.logs(),
        variables.instance(
            antrea.OVS_FLOWS.name,
            _ENTRIES.name,
            label="Instance",
            description="Antrea's agents and our exporters",
        ),
        variables.labelled(
            "table", "Table", "Of OVS, by its number", "table_id", antrea.OVS_FLOWS.name
        ),
        variables.labelled(
            "operation", "Operation", "Of flows", "operation", antrea.OVS_OPERATIONS.name
        ),
        *lines.variables(Stream.OVS),
        variables.console(),
    ],
)
