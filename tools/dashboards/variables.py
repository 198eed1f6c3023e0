"""The variables of dashboards: data sources, what is chosen, how ends are called, the console."""

from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from flowvis.clickhouse.schema.tables import stored_columns
from flowvis.filters import vocabulary
from tools.dashboards import chosen
from tools.dashboards.chosen import CHOICES, Choice
from tools.dashboards.labels import LEVEL, LEVELS
from tools.dashboards.ranges import HOURS, HOURS_LAG_S, MINUTES, THERE, Branch
from tools.dashboards.sources import CLICKHOUSE, CLICKHOUSE_PLUGIN, LOKI, PROMETHEUS
from tools.dashboards.streams import Stream
from tools.dashboards.streams import chosen as chosen_lines

CONSOLE = "console"
CONSOLE_DEFAULT = "https://localhost:10348"
"""Where `kubectl port-forward` brings the aggregator."""
LISTED = 1000
"""Values of a variable that are offered; others can be typed."""

Listing = dict[str, object]
"""Of what a data source lists the values, in its own form."""
_LABEL_VALUES = 1
"""How Loki's data source numbers this kind of listing."""
Variable = Builder[model.VariableModel]


def store() -> Variable:
    """Return the choice of the ClickHouse data source."""
    return sdk.DatasourceVariable("store").label("Store").type(CLICKHOUSE_PLUGIN)


def metrics() -> Variable:
    """Return the choice of the Prometheus data source."""
    return sdk.DatasourceVariable("metrics").label("Metrics").type(str(PROMETHEUS.type_val))


def logs() -> Variable:
    """Return the choice of the Loki data source."""
    return sdk.DatasourceVariable("logs").label("Logs").type(str(LOKI.type_val))


def listing(choice: Choice) -> str:
    """Return the statement of the values that are offered, those of the range.

    Hours have all but the last ones, which minutes have. No value ends a line, which may be a
    comment (`Branch`).
    """
    sqls = [vocabulary.expression(name) for name in choice.names]
    columns = dict.fromkeys(column for sql in sqls for column in stored_columns(sql))
    begins = {
        HOURS: "toDateTime(intDiv(toUInt32($__fromTime), 3600) * 3600)",
        MINUTES: f"greatest($__fromTime, now() - {HOURS_LAG_S})",
    }
    distinct = "\n  UNION ALL\n  ".join(
        f"SELECT DISTINCT {', '.join(columns)}\n  FROM {table.name}\n"
        f"  WHERE {table.time} >= {begin} AND {table.time} < $__toTime"
        for table, begin in begins.items()
    )
    found = (
        f"SELECT DISTINCT arrayJoin([{', '.join(f'toString({sql})' for sql in sqls)}]) AS value\n"
        f"FROM (\n  {distinct}\n)\nWHERE value != '' AND position(value, char(10)) = 0\n"
        f"ORDER BY value\nLIMIT {LISTED}"
    )
    if not choice.without:
        return found
    first = ", ".join(f"'{each}'" for each in (chosen.NOTHING, *chosen.EXCLUDED_FIRST))
    return (
        f"SELECT arrayJoin([{first}]) AS value\nUNION ALL\n"
        f"SELECT value FROM (\n{found}\n)\nWHERE value NOT IN ({first})"
    )


def of(choice: Choice) -> Variable:
    """Return the variable of a choice."""
    made = (
        sdk.QueryVariable(choice.variable)
        .label(choice.label)
        .description(choice.description)
        .datasource(CLICKHOUSE)
        .query(listing(choice))
        .multi(True)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.DISABLED)
    )
    if choice.without:
        first = list(chosen.EXCLUDED_FIRST)
        return made.current(model.VariableOption(selected=True, text=first, value=first))
    return (
        made.include_all(True)
        .all_value(chosen.ALL_WRITTEN)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


@dataclass(frozen=True, slots=True)
class Unseen(Builder[model.VariableModel]):
    """A variable that is nobody's choice: neither shown nor in addresses."""

    of: sdk.QueryVariable

    def build(self) -> model.VariableModel:
        """Return it as Grafana has it."""
        made = self.of.hide(model.VariableHide.HIDE_VARIABLE).build()
        made.skip_url_sync = True
        return made


def branch(asked: Branch) -> Variable:
    """Return what leaves a branch out of queries where the range has no share for it."""
    return Unseen(
        sdk.QueryVariable(asked.name)
        .description(f"Whether panels read {asked.about}, by the range")
        .datasource(CLICKHOUSE)
        .query(asked.sql)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.DISABLED)
        .current(model.VariableOption(selected=True, text=THERE, value=THERE))
    )


def level(first: str = "workload") -> Variable:
    """Return the choice of what ends of connections are called by."""
    options = [
        model.VariableOption(selected=value == first, text=text, value=value)
        for value, text in LEVELS.items()
    ]
    return (
        sdk.CustomVariable(LEVEL)
        .label("Ends by")
        .description("What the ends of connections are called, and summed, by")
        .values(",".join(f"{text} : {value}" for value, text in LEVELS.items()))
        .options(options)
        .current(model.VariableOption(selected=True, text=LEVELS[first], value=first))
    )


def console() -> Variable:
    """Return where the console is, for links to it."""
    return (
        sdk.TextBoxVariable(CONSOLE)
        .label("Console")
        .description("Where browsers find the aggregator's console, for links to it")
        .default_value(CONSOLE_DEFAULT)
    )


def limit(name: str, rows: tuple[int, ...], first: int) -> Variable:
    """Return the choice of how many rows a table has."""
    return (
        sdk.CustomVariable(name)
        .label("Rows")
        .values(",".join(map(str, rows)))
        .options(
            [
                model.VariableOption(selected=each == first, text=str(each), value=str(each))
                for each in rows
            ]
        )
        .current(model.VariableOption(selected=True, text=str(first), value=str(first)))
    )


ANY = ".*"
"""What stands for all in regular expressions, which Prometheus and Loki take."""


def _any_of(
    name: str, label: str, description: str, source: model.DataSourceRef, query: str | Listing
) -> Variable:
    return (
        sdk.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(source)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(ANY)
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def instance(
    *metrics: str, label: str = "Node", description: str = "Exporters, as Prometheus names them"
) -> Variable:
    """Return the choice of what is scraped, of those that have one of some metrics."""
    return labelled("instance", label, description, "instance", *metrics)


def labelled(name: str, label: str, description: str, of: str, *metrics: str) -> Variable:
    """Return the choice of a label's values, of some metrics."""
    series = metrics[0] if len(metrics) == 1 else f'{{__name__=~"{"|".join(metrics)}"}}'
    return _any_of(name, label, description, PROMETHEUS, f"label_values({series}, {of})")


def of_lines(name: str, label: str, of: str, *streams: Stream) -> Variable:
    """Return the choice of a label's values, of logs."""
    listing: Listing = {
        "refId": "LokiVariableQueryEditor-VariableQuery", "type": _LABEL_VALUES,
        "label": of, "stream": chosen_lines(*streams, **{of: ANY}),
    }  # fmt: skip
    return _any_of(name, label, "Of lines of the logs", LOKI, listing)


def text(name: str, label: str, description: str) -> Variable:
    """Return what people type, nothing at first."""
    return sdk.TextBoxVariable(name).label(label).description(description).default_value("")


def ad_hoc(table: str) -> list[Variable]:
    """Return filters by any column of a table, and what tells the data source which table it is."""
    return [
        sdk.AdHocVariable("Filter").datasource(CLICKHOUSE),
        sdk.TextBoxVariable("clickhouse_adhoc_query")
        .default_value(table)
        .hide(model.VariableHide.HIDE_VARIABLE),
    ]


def common(*names: str) -> list[Variable]:
    """Return the variables of some choices."""
    return [of(CHOICES[name]) for name in names]
