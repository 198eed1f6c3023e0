"""Panels: a question, its shape on the screen, and where the console answers the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboardlist,
    gauge,
    logs,
    nodegraph,
    piechart,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.nodegraph import ArcOption
from grafana_foundation_sdk.models.piechart import PieChartLegendValues, PieChartType
from grafana_foundation_sdk.models.text import TextMode

from tools.dashboards.queries import Graph, Ranked, Series, Written
from tools.dashboards.sources import CLICKHOUSE, SERIES, TABLE, Asked, ClickHouseQuery

Built = Any
"""A builder of the SDK: its panels have no class in common."""
OCTETS, RATE, COUNT, SHARE = "decbytes", "bps", "short", "percentunit"
WIDTH = 24
"""Of a dashboard."""
LARGEST = 50
"""Bars, parts or gauges of an answer of Prometheus or Loki, which queries do not bound."""
POINTS = 300
"""Of a series at most: more than that nobody sees on half a screen."""


@dataclass(frozen=True, slots=True)
class Question:
    """The same question at the console."""

    page: str
    filter: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def address(self) -> str:
        """The address, below the one that the variable `console` has, for the dashboard's range."""
        return self.at("${console}", "${__from}", "${__to}")

    def at(self, console: str, begin: str, end: str = "") -> str:
        """Return the address at a console, for a range."""
        given = [("page", self.page), *self.parameters, ("filter", self.filter)]
        pairs = [
            f"{name}={quote(value, safe='/,:${}')}"  # variables are put in by Grafana
            for name, value in (*given, ("from", begin), ("to", end))
            if value
        ]
        return f"{console}/?{'&'.join(pairs)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What all panels have."""

    title: str
    about: str
    """What it answers, for people."""
    width: int = 12
    height: int = 9
    console: Question | None = None
    of: tuple[Asked, ...] = ()
    """What is asked of Prometheus or Loki, where it is not the store."""

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store: each query's id, SQL and format."""
        return []

    def built(self, number: int) -> Built:
        """Return the SDK's panel."""
        panel = self._made().id(number).title(self.title).description(self.about)
        panel.span(self.width).height(self.height)
        for ref_id, sql, format_ in self.queries():
            panel.datasource(CLICKHOUSE).with_target(ClickHouseQuery(sql, format_, ref_id))
        for place, asked in enumerate(self.of):
            panel.datasource(asked.source).with_target(asked.query(chr(ord("A") + place)))
        if self.console is not None:
            link = sdk.DashboardLink("In the console").type(model.DashboardLinkType.LINK)
            panel.links([link.url(self.console.address).target_blank(True)])
        return panel

    def _made(self) -> Built:
        raise NotImplementedError


class Asks(Protocol):
    """What has a statement."""

    @property
    def sql(self) -> str:
        """The statement."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat(Panel):
    """One number, or one of each."""

    asks: Asks | None = None
    unit: str = COUNT
    width: int = 4
    height: int = 4
    thresholds: tuple[tuple[float, str], ...] = ()
    """From which value on it has which colour."""
    each: bool = False
    """Whether each row of the answer has a number, under its name."""

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store."""
        return [("A", self.asks.sql, TABLE)] if self.asks else []

    def _made(self) -> Built:
        reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(self.each)
        shown = looks.BigValueTextMode
        return (
            stat.Panel()
            .unit(self.unit)
            .no_value("none")
            .reduce_options(reduced)
            .graph_mode(looks.BigValueGraphMode.NONE)
            .text_mode(shown.VALUE_AND_NAME if self.each else shown.VALUE)
            .color_mode(looks.BigValueColorMode.VALUE)
            .color_scheme(sdk.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
            .thresholds(_thresholds(self.thresholds))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines(Panel):
    """Series over time, stacked where they are parts of a whole."""

    asks: Series | None = None
    written: Written | None = None
    """Another statement of columns time, series and Value."""
    unit: str = RATE
    bars: bool = False
    stacked: bool = True
    highest: float | None = None

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store."""
        asks = self.asks or self.written
        return [("A", asks.sql, SERIES)] if asks else []

    def _made(self) -> Built:
        legend = (
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.TABLE)
            .placement(looks.LegendPlacement.BOTTOM)
            .calcs(["mean", "max"])
        )
        tooltip = common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI)
        panel = (
            timeseries.Panel()
            .unit(self.unit)
            .no_value("none")
            .min(0)
            .interval("1m")
            .max_data_points(POINTS)
            .legend(legend)
            .tooltip(tooltip.sort(looks.SortOrder.DESCENDING))
            .line_width(1)
            .fill_opacity(80 if self.bars else 20 if self.stacked else 10)
            .show_points(looks.VisibilityMode.NEVER if self.bars else looks.VisibilityMode.AUTO)
        )
        if self.bars:
            panel.draw_style(looks.GraphDrawStyle.BARS)
        if self.stacked:
            panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
        if self.highest is not None:
            panel.max(self.highest)
        if self.asks is not None and self.asks.label is None:
            panel.display_name(self.asks.column.title)
        elif not self.of:
            panel.display_name("${__field.labels.series}")
        return panel


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares(Panel):
    """Parts of a whole, as a pie; what is not among the largest is one part."""

    asks: Ranked | None = None
    unit: str = OCTETS
    donut: bool = False
    width: int = 12

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store."""
        return [("A", self.asks.sql, TABLE)] if self.asks else []

    def _made(self) -> Built:
        legend = (
            piechart.PieChartLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.TABLE)
            .placement(looks.LegendPlacement.RIGHT)
            .values([PieChartLegendValues.PERCENT, PieChartLegendValues.VALUE])
        )
        kind = PieChartType.DONUT if self.donut else PieChartType.PIE
        return (
            piechart.Panel()
            .unit(self.unit)
            .no_value("none")
            .reduce_options(_rows(self.asks.limit + 1 if self.asks else LARGEST))
            .legend(legend)
            .pie_type(kind)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(Panel):
    """The largest, as bars."""

    asks: Ranked | None = None
    unit: str = OCTETS

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store."""
        return [("A", self.asks.sql, TABLE)] if self.asks else []

    def _made(self) -> Built:
        return (
            bargauge.Panel()
            .unit(self.unit)
            .no_value("none")
            .min(0)
            .reduce_options(_rows(self.asks.limit if self.asks else LARGEST))
            .orientation(looks.VizOrientation.HORIZONTAL)
            .display_mode(looks.BarGaugeDisplayMode.GRADIENT)
            .color_scheme(sdk.FieldColor().mode(model.FieldColorModeId.CONTINUOUS_BL_PU))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges(Panel):
    """Numbers on a scale with an end, one of each row of the answer."""

    unit: str = COUNT
    highest: float | None = None
    thresholds: tuple[tuple[float, str], ...] = ()

    def _made(self) -> Built:
        panel = (
            gauge.Panel()
            .unit(self.unit)
            .no_value("none")
            .min(0)
            .reduce_options(_rows(LARGEST))
            .show_threshold_markers(True)
            .color_scheme(sdk.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
            .thresholds(_thresholds(self.thresholds, "green"))
        )
        return panel if self.highest is None else panel.max(self.highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class States(Panel):
    """What each was over time: of the answer's numbers, as texts with their colours."""

    texts: dict[str, tuple[str, str]]
    """Text and colour of each number."""

    def _made(self) -> Built:
        options = {
            value: model.ValueMappingResult(text=name, color=color, index=place)
            for place, (value, (name, color)) in enumerate(self.texts.items())
        }
        return (
            statetimeline.Panel()
            .no_value("none")
            .mappings([model.ValueMap(options)])
            .merge_values(True)
            .fill_opacity(70)
            .line_width(0)
            .show_value(looks.VisibilityMode.NEVER)
            .interval("1m")
            .max_data_points(POINTS)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs(Panel):
    """Lines of logs, the newest first."""

    height: int = 14
    width: int = WIDTH

    def _made(self) -> Built:
        return (
            logs.Panel()
            .show_time(True)
            .show_labels(False)
            .show_common_labels(False)
            .wrap_log_message(True)
            .prettify_log_message(False)
            .enable_log_details(True)
            .dedup_strategy(looks.LogsDedupStrategy.NONE)
            .sort_order(looks.LogsSortOrder.DESCENDING)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Panel):
    """A table."""

    asks: Asks
    units: dict[str, str] = field(default_factory=dict)
    """Units of columns, by their titles."""
    gauges: tuple[str, ...] = ()
    """Columns that are drawn as bars in their cells."""
    names: dict[str, str] = field(default_factory=dict)
    """What columns are called."""
    mapped: dict[str, dict[int, str]] = field(default_factory=dict)
    """What numbers of a column mean."""
    colors: dict[str, dict[str, str]] = field(default_factory=dict)
    """Colours of a column's values."""
    filterable: bool = True

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store."""
        return [("A", self.asks.sql, TABLE)]

    def _made(self) -> Built:
        panel = table.Panel().no_value("none").show_header(True)
        properties: dict[str, list[model.DynamicConfigValue]] = {}

        def of(column: str) -> list[model.DynamicConfigValue]:
            return properties.setdefault(column, [])

        for column, unit in self.units.items():
            of(column).append(model.DynamicConfigValue("unit", unit))
        for column in self.gauges:
            look = {"type": "gauge", "mode": "gradient", "valueDisplayMode": "text"}
            of(column).append(model.DynamicConfigValue("custom.cellOptions", look))
            of(column).append(model.DynamicConfigValue("color", {"mode": "continuous-BlPu"}))
            of(column).append(model.DynamicConfigValue("min", 0))
        for column, name in self.names.items():
            of(column).append(model.DynamicConfigValue("displayName", name))
        for column, texts in self.mapped.items():
            options = {
                str(value): model.ValueMappingResult(text=name, index=place)
                for place, (value, name) in enumerate(texts.items())
            }
            of(column).append(model.DynamicConfigValue("mappings", [model.ValueMap(options)]))
        for column, colors in self.colors.items():
            options = {
                value: model.ValueMappingResult(color=color, text=value, index=place)
                for place, (value, color) in enumerate(colors.items())
            }
            of(column).append(model.DynamicConfigValue("mappings", [model.ValueMap(options)]))
            look = {"type": "color-text"}
            of(column).append(model.DynamicConfigValue("custom.cellOptions", look))
        for column, values in properties.items():
            panel.override_by_name(column, values)
        if self.filterable:
            panel.override_by_regexp(".*", [model.DynamicConfigValue("custom.filterable", True)])
        return panel


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Panel):
    """Who talks to whom, as a node graph."""

    asks: Graph
    height: int = 14
    width: int = WIDTH

    def queries(self) -> list[tuple[str, str, int]]:
        """Return what is asked of the store."""
        return [("nodes", self.asks.nodes, TABLE), ("edges", self.asks.edges, TABLE)]

    def _made(self) -> Built:
        arcs: list[Builder[ArcOption]] = [
            nodegraph.ArcOption().field("arc__denied").color("red"),
            nodegraph.ArcOption().field("arc__allowed").color("green"),
        ]
        units = (OCTETS, COUNT)
        nodes = nodegraph.NodeOptions().main_stat_unit(units[0]).secondary_stat_unit(units[1])
        edges = nodegraph.EdgeOptions().main_stat_unit(units[0]).secondary_stat_unit(units[1])
        return nodegraph.Panel().nodes(nodes.arcs(arcs)).edges(edges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Panel):
    """Words, in Markdown."""

    content: str

    def _made(self) -> Built:
        return text.Panel().mode(TextMode.MARKDOWN).content(self.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Links(Panel):
    """The other dashboards."""

    tag: str

    def _made(self) -> Built:
        return (
            dashboardlist.Panel()
            .tags([self.tag])
            .show_search(True)
            .show_starred(False)
            .show_recently_viewed(False)
            .show_headings(False)
            .keep_time(True)
            .max_items(20)
        )


def _rows(limit: int) -> common.ReduceDataOptions:
    """Return that each row of an answer is shown, under what it has beside the number."""
    return common.ReduceDataOptions().values(True).fields("").calcs([]).limit(limit)


def _thresholds(steps: Sequence[tuple[float, str]], lowest: str = "text") -> sdk.ThresholdsConfig:
    first = model.Threshold(value=None, color=lowest)
    given = [model.Threshold(value=value, color=color) for value, color in steps]
    return sdk.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps([first, *given])
