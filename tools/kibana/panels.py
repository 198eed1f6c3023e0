"""What a dashboard is made of: each kind of panel, and the visualization that it becomes."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.kibana.index import ID, PATTERN, REFERENCE, TIME, Sum
from tools.kibana.sankey import PER_SHARD, Bands, spec
from tools.kibana.saved import Reference, Saved, compact, searched

WIDTH = 48
EVERYTHING = "*"

State = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel(ABC):
    """Something to look at."""

    title: str
    about: str
    """What it answers and what is added up for it, in a sentence."""
    equal: str = ""
    """What asks the console's store the same: a command."""
    height: int = 15
    width: int = 0
    """Of 48; 0: as wide as the others of its row."""

    def saved(self, prefix: str) -> Saved:
        """Return the object; ids begin with the dashboard's."""
        state = {"title": self.title, **self.state()}
        attributes = {
            "title": self.title,
            "visState": compact(state),
            "uiStateJSON": "{}",
            "description": self.about,
            "version": 1,
            "kibanaSavedObjectMeta": self.source(),
        }
        return Saved("visualization", self.id(prefix), attributes, self.references())

    def id(self, prefix: str) -> str:
        """Return the object's id: it stays as long as the title does."""
        words = "".join(each if each.isalnum() else " " for each in self.title.lower()).split()
        return "-".join((prefix, *words))

    @abstractmethod
    def state(self) -> State:
        """Return type, parameters and aggregations."""

    def source(self) -> dict[str, str]:
        """Return what of the index it is of; a query of its own otherwise."""
        return {"searchSourceJSON": "{}"}

    def references(self) -> tuple[Reference, ...]:
        """Return what else it needs."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregated(Panel, ABC):
    """A panel of which Kibana makes the search itself, from aggregations that are listed."""

    query: str = EVERYTHING

    def source(self) -> dict[str, str]:
        """Return the query."""
        return searched(self.query, indexed=True)

    def references(self) -> tuple[Reference, ...]:
        """Return the index pattern."""
        return (REFERENCE,)


@dataclass(frozen=True, slots=True)
class Terms:
    """The largest of a field's values, by what is added up; the rest together, where it is told."""

    field: str
    label: str
    size: int
    others: bool = True

    def aggregation(self, number: int, schema: str) -> State:
        """Return it as one of a list."""
        return _aggregation(
            number,
            "terms",
            schema,
            field=self.field,
            orderBy="1",
            order="desc",
            size=self.size,
            otherBucket=self.others,
            otherBucketLabel="Other",
            missingBucket=False,
            missingBucketLabel="Missing",
            customLabel=self.label,
            json=compact({"shard_size": PER_SHARD}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pie(Aggregated):
    """Shares of a sum; of several terms the first is the inner ring."""

    summed: Sum
    terms: Sequence[Terms]

    def state(self) -> State:
        """Return type, parameters and aggregations."""
        return {
            "type": "pie",
            "params": {
                "type": "pie",
                "addTooltip": True,
                "addLegend": True,
                "legendPosition": "right",
                "isDonut": True,
                "labels": {"show": False, "values": True, "last_level": True, "truncate": 100},
            },
            "aggs": [
                _sum(self.summed),
                *(each.aggregation(at, "segment") for at, each in enumerate(self.terms, 2)),
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars(Aggregated):
    """How many records there are, by the values of a field or over time."""

    by: Terms | None = None
    """None: by minute."""

    def state(self) -> State:
        """Return type, parameters and aggregations."""
        by = _minutes(2, "segment") if self.by is None else self.by.aggregation(2, "segment")
        label = self.about.split(":")[0]
        return {
            "type": "histogram",
            "params": _axes("histogram", label),
            "aggs": [_count(), by],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Aggregated):
    """How many records there are."""

    def state(self) -> State:
        """Return type, parameters and aggregations."""
        return {
            "type": "metric",
            "params": {
                "addTooltip": True,
                "addLegend": False,
                "type": "metric",
                "metric": {
                    "percentageMode": False,
                    "useRanges": False,
                    "colorSchema": "Green to Red",
                    "metricColorMode": "None",
                    "colorsRange": [{"from": 0, "to": 10000}],
                    "labels": {"show": True},
                    "invertColors": False,
                    "style": {
                        "bgFill": "#000",
                        "bgColor": False,
                        "labelColor": False,
                        "subText": "",
                        "fontSize": 60,
                    },
                },
            },
            "aggs": [_count()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap(Aggregated):
    """A sum of each minute by the values of a field."""

    summed: Sum
    by: Terms

    def state(self) -> State:
        """Return type, parameters and aggregations."""
        return {
            "type": "heatmap",
            "params": {
                "type": "heatmap",
                "addTooltip": True,
                "addLegend": True,
                "enableHover": False,
                "legendPosition": "right",
                "times": [],
                "colorsNumber": 8,
                "colorSchema": "Blues",
                "setColorRange": False,
                "colorsRange": [],
                "invertColors": False,
                "percentageMode": False,
                "valueAxes": [
                    {
                        "show": False,
                        "id": "ValueAxis-1",
                        "type": "value",
                        "scale": {"type": "linear", "defaultYExtents": False},
                        "labels": {
                            "show": False,
                            "rotate": 0,
                            "overwriteColor": False,
                            "color": "black",
                        },
                    }
                ],
            },
            "aggs": [_sum(self.summed), _minutes(2, "segment"), self.by.aggregation(3, "group")],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines(Panel):
    """A sum over time, a line for each of the largest values of a field."""

    summed: Sum
    by: str
    query: str
    cumulative: bool = False
    """What came since the range began; else Mbit/s, the mean of each interval."""
    height: int = 18
    most: int = 30

    def state(self) -> State:
        """Return type and parameters; Kibana's server makes the search of them."""
        shown: State = {
            "id": "shown",
            "type": "math",
            "script": "params.octets * 8000 / params._interval / 1000000",  # ms
            "variables": [{"id": "octets", "name": "octets", "field": "summed"}],
        }
        if self.cumulative:
            shown = {"id": "shown", "type": "cumulative_sum", "field": "summed"}
        line = {
            "id": "line",
            "label": self.summed.label,
            "color": "#006BB4",
            "split_mode": "terms",
            "split_color_mode": "rainbow",
            "terms_field": self.by,
            "terms_size": str(self.most),
            "terms_order_by": "summed",
            "terms_direction": "desc",
            "metrics": [
                {"id": "summed", "type": "sum", "field": self.summed.field},
                shown,
            ],
            "formatter": "bytes" if self.cumulative else "number",
            "value_template": "{{value}}" if self.cumulative else "{{value}} Mbit/s",
            "chart_type": "line",
            "line_width": 1,
            "point_size": 1,
            "fill": 0,
            "stacked": "none",
            "separate_axis": 0,
            "axis_position": "right",
            "override_index_pattern": 0,
            "series_drop_last_bucket": 0,
        }
        return {
            "type": "metrics",
            "params": {
                "id": "lines",
                "type": "timeseries",
                "index_pattern": PATTERN,
                "default_index_pattern": PATTERN,
                "time_field": TIME,
                "default_timefield": TIME,
                "interval": ">=1m",
                "drop_last_bucket": 0,
                "axis_position": "left",
                "axis_formatter": "number",
                "axis_scale": "normal",
                "show_legend": 1,
                "show_grid": 1,
                "tooltip_mode": "show_all",
                "filter": {"query": self.query, "language": "lucene"},
                "series": [line],
            },
            "aggs": [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sankey(Panel):
    """Who sends to whom, as bands."""

    of: Bands
    height: int = 24

    def state(self) -> State:
        """Return type and specification."""
        made = spec(self.of)
        return {
            "type": "vega",
            "params": {"spec": json.dumps(made, indent=1, ensure_ascii=False)},
            "aggs": [],
        }


@dataclass(frozen=True, slots=True)
class Control:
    """A list of a field's values to choose from."""

    label: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls(Panel):
    """Lists to choose from, for the whole dashboard."""

    controls: Sequence[Control]
    about: str = "Chooses what the dashboard is of, several values at once; 1000 are listed"
    height: int = 9
    values: int = 1000

    def state(self) -> State:
        """Return type and parameters."""
        return {
            "type": "input_control_vis",
            "params": {
                "controls": [
                    {
                        "id": f"control-{at}",
                        "fieldName": each.field,
                        "parent": "",
                        "label": each.label,
                        "type": "list",
                        "options": {
                            "type": "terms",
                            "multiselect": True,
                            "dynamicOptions": False,
                            "size": self.values,
                            "order": "desc",
                        },
                        "indexPatternRefName": _pattern_of(at),
                    }
                    for at, each in enumerate(self.controls)
                ],
                "updateFiltersOnChange": True,
                "useTimeFilter": True,
                "pinFilters": False,
            },
            "aggs": [],
        }

    def references(self) -> tuple[Reference, ...]:
        """Return the index pattern of each list."""
        return tuple(
            Reference(_pattern_of(at), "index-pattern", ID) for at in range(len(self.controls))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Links(Panel):
    """The way to the other dashboards."""

    to: Sequence[tuple[str, str]]
    """Titles and ids."""
    title: str = "Flow dashboards"
    about: str = "The way to the other dashboards"
    height: int = 4

    def state(self) -> State:
        """Return type and text."""
        links = " | ".join(f"[{title}](#/view/{id_})" for title, id_ in self.to)
        params = {"markdown": links, "fontSize": 12, "openLinksInNewTab": False}
        return {"type": "markdown", "params": params, "aggs": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Panel):
    """The records themselves: a saved search."""

    columns: Sequence[str]
    height: int = 24

    def saved(self, prefix: str) -> Saved:
        """Return the search."""
        source = searched(EVERYTHING, indexed=True)["searchSourceJSON"]
        attributes = {
            "title": self.title,
            "description": self.about,
            "hits": 0,
            "columns": list(self.columns),
            "sort": [[TIME, "desc"]],
            "version": 1,
            "kibanaSavedObjectMeta": {"searchSourceJSON": source},
        }
        return Saved("search", self.id(prefix), attributes, (REFERENCE,))

    def state(self) -> State:
        """It is no visualization."""
        return {}


def _pattern_of(control: int) -> str:
    return f"control_{control}_index_pattern"


def _aggregation(number: int, kind: str, schema: str, **params: Any) -> State:
    return {
        "id": str(number),
        "enabled": True,
        "type": kind,
        "schema": schema,
        "params": params,
    }


def _sum(summed: Sum) -> State:
    return _aggregation(1, "sum", "metric", field=summed.field, customLabel=summed.label)


def _count() -> State:
    return _aggregation(1, "count", "metric")


def _minutes(number: int, schema: str) -> State:
    return _aggregation(
        number,
        "date_histogram",
        schema,
        field=TIME,
        interval="m",
        drop_partials=False,
        min_doc_count=1,
        extended_bounds={},
    )


def _axes(kind: str, label: str) -> State:
    return {
        "type": kind,
        "grid": {"categoryLines": False},
        "categoryAxes": [
            {
                "id": "CategoryAxis-1",
                "type": "category",
                "position": "bottom",
                "show": True,
                "style": {},
                "scale": {"type": "linear"},
                "labels": {"show": True, "filter": True, "truncate": 100},
                "title": {},
            }
        ],
        "valueAxes": [
            {
                "id": "ValueAxis-1",
                "name": "LeftAxis-1",
                "type": "value",
                "position": "left",
                "show": True,
                "style": {},
                "scale": {"type": "linear", "mode": "normal"},
                "labels": {"show": True, "rotate": 0, "filter": False, "truncate": 100},
                "title": {"text": label},
            }
        ],
        "seriesParams": [
            {
                "show": True,
                "type": kind,
                "mode": "stacked",
                "data": {"label": label, "id": "1"},
                "valueAxis": "ValueAxis-1",
                "drawLinesBetweenPoints": True,
                "lineWidth": 2,
                "showCircles": True,
            }
        ],
        "addTooltip": True,
        "addLegend": True,
        "legendPosition": "right",
        "times": [],
        "addTimeMarker": False,
        "labels": {"show": False},
        "thresholdLine": {
            "show": False,
            "value": 10,
            "width": 1,
            "style": "full",
            "color": "#E7664C",
        },
    }
