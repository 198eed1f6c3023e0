"""A Sankey diagram in Vega: bands from sources to destinations, as thick as what passed.

The largest sources are shown, and of each its largest destinations; all else is in bands of its own
(`OTHER`), so that the bands together are everything. A click shows what an end has alone, the text
above brings back the rest.
"""

from dataclasses import dataclass
from typing import Any

from tools.kibana.index import PATTERN, TIME, Sum

SHOWN = 30
PER_SHARD = 1000
"""How many terms each shard hands in: fewer, and of several days the largest may be missed."""
OTHER = "other"
_ALL = "length(data('bands')) ? data('bands')[0].all : 1"
_PAIR = (
    "length(datum.target.source.buckets) && length(datum.target.source.buckets[0].target.buckets)"
    " ? datum.target.source.buckets[0].key + ' → '"
    " + datum.target.source.buckets[0].target.buckets[0].key : ''"
)
_SHARE = 0.06  # of the width, for the bars of either side


@dataclass(frozen=True, slots=True)
class Bands:
    """What a diagram is of."""

    source: str
    target: str
    summed: Sum
    query: str
    missing: str = ""
    """What an end is called that a record does not have; "": such records are left out."""
    inside: tuple[str, str] | None = None
    """Fields of whose values the largest pair within a band is told."""


def asked(of: Bands) -> dict[str, Any]:
    """Return the body of the search."""
    inner: dict[str, Any] = {"octets": {"sum": {"field": of.summed.field}}}
    pair = {}
    if of.inside:
        source, target = (_largest(field, 1) for field in of.inside)
        ends = {"target": {"terms": target, "aggs": inner}}
        pair = {"source": {"terms": source, "aggs": inner | ends}}
    to = {"terms": _largest(of.target, SHOWN, of.missing), "aggs": inner | pair}
    return {
        "size": 0,
        "aggs": {
            "chosen": {
                "filter": {"query_string": {"query": of.query}},
                "aggs": inner
                | {
                    "from": {
                        "terms": _largest(of.source, SHOWN, of.missing),
                        "aggs": inner | {"to": to},
                    },
                },
            }
        },
    }


def spec(of: Bands) -> dict[str, Any]:
    """Return the specification of the diagram."""
    body = asked(of)
    return {
        "$schema": "https://vega.github.io/schema/vega/v5.json",
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"top": 24, "left": 8, "right": 8, "bottom": 8},
        "signals": [
            {
                "name": "only",
                "value": {},
                "on": [
                    {"events": "@end:click", "update": "{side: datum.side, name: datum.name}"},
                    {"events": "@all:click", "update": "{}"},
                    {"events": "dblclick", "update": "{}"},
                ],
            }
        ],
        "data": [
            {
                "name": "found",
                "url": {"%context%": True, "%timefield%": TIME, "index": PATTERN, "body": body},
                "format": {"property": "aggregations.chosen"},
            },
            *_bands(of),
            *_ends(),
        ],
        "scales": [
            {"name": "y", "domain": [0, {"signal": _ALL}], "range": "height", "reverse": True},
            {"name": "color", "type": "ordinal", "range": {"scheme": "tableau20"}}
            | {"domain": {"data": "ends", "field": "name", "sort": True}},
        ],
        "marks": [
            {
                "type": "group",
                "clip": True,  # or Vega makes room for what thick bands might take
                "encode": {
                    "update": {"width": {"signal": "width"}, "height": {"signal": "height"}}
                },
                "marks": _marks(),
            },
            _all(),
        ],
    }


def _largest(field: str, size: int, missing: str = "") -> dict[str, Any]:
    found = {
        "field": field,
        "size": size,
        "shard_size": PER_SHARD,
        "order": {"octets": "desc"},
    }
    return found | ({"missing": missing} if missing else {})


def _formula(name: str, expression: str) -> dict[str, str]:
    return {"type": "formula", "as": name, "expr": expression}


def _bands(of: Bands) -> list[dict[str, Any]]:
    """The bands with their places at both sides, from what the search found."""
    summed = {"type": "aggregate", "fields": ["octets"], "ops": ["sum"], "as": ["shown"]}
    sources = [
        {"type": "flatten", "fields": ["from.buckets"], "as": ["source"]},
        _formula("from", "datum.source.key"),
        _formula("octets", "datum.source.octets.value"),
    ]
    pairs = [
        {"type": "flatten", "fields": ["source.to.buckets"], "as": ["target"]},
        _formula("to", "datum.target.key"),
        _formula("octets", "datum.target.octets.value"),
        *([_formula("inside", _PAIR)] if of.inside else ()),
    ]
    rest = [
        {"type": "lookup", "from": "shown", "key": "from", "fields": ["from"]}
        | {"values": ["shown"], "as": ["shown"], "default": 0},
        _formula("to", f"'{OTHER}'"),
        _formula("octets", "datum.octets - datum.shown"),
    ]
    beyond = [
        _formula("from", f"'{OTHER}'"),
        _formula("to", f"'{OTHER}'"),
        _formula(
            "octets",
            "datum.octets.value - (length(data('named')) ? data('named')[0].shown : 0)",
        ),
    ]
    placed = [
        {
            "type": "filter",
            "expr": "datum.octets > 0 && (!only.side || datum[only.side] === only.name)",
        },
        {"type": "joinaggregate", "groupby": ["from"], "fields": ["octets"], "ops": ["sum"]}
        | {"as": ["sent"]},
        {"type": "joinaggregate", "groupby": ["to"], "fields": ["octets"], "ops": ["sum"]}
        | {"as": ["got"]},
        {"type": "joinaggregate", "fields": ["octets"], "ops": ["sum"], "as": ["all"]},
        _stack("from", "sent", "to"),
        _stack("to", "got", "from"),
    ]
    return [
        {"name": "sources", "source": "found", "transform": sources},
        {"name": "named", "source": "sources", "transform": [summed]},
        {"name": "pairs", "source": "sources", "transform": pairs},
        {"name": "shown", "source": "pairs", "transform": [summed | {"groupby": ["from"]}]},
        {"name": "rest", "source": "sources", "transform": rest},
        {"name": "beyond", "source": "found", "transform": beyond},
        {"name": "bands", "source": ["pairs", "rest", "beyond"], "transform": placed},
    ]


def _stack(side: str, size: str, other: str) -> dict[str, Any]:
    """The bands one upon the other, those of an end side by side, the largest end first."""
    return {
        "type": "stack",
        "field": "octets",
        "sort": {
            "field": [size, side, other],
            "order": ["descending", "ascending", "ascending"],
        },
        "as": [f"{side}0", f"{side}1"],
    }


def _ends() -> list[dict[str, Any]]:
    """The bars of both sides: each is as long as its bands are together."""
    found = [
        {
            "name": f"{side}Ends",
            "source": "bands",
            "transform": [
                {
                    "type": "aggregate",
                    "groupby": [side],
                    "fields": [f"{side}0", f"{side}1", "octets", "all"],
                    "ops": ["min", "max", "sum", "max"],
                    "as": ["y0", "y1", "octets", "all"],
                },
                _formula("side", f"'{side}'"),
                _formula("name", f"datum.{side}"),
            ],
        }
        for side in ("from", "to")
    ]
    return [*found, {"name": "ends", "source": ["fromEnds", "toEnds"]}]


def _said(what: str) -> dict[str, str]:
    """What is shown of a mark under the pointer."""
    number = "format(datum.octets, ',') + ' bytes, ' + format(datum.octets / datum.all, '.1%')"
    inside = "(datum.inside ? ', most of it ' + datum.inside : '')"
    return {"signal": f"{what} + ': ' + {number} + {inside}"}


def _marks() -> list[dict[str, Any]]:
    left, right = f"width * {_SHARE}", f"width * {1 - _SHARE}"
    at = "datum.side === 'from'"
    middle = "scale('y', (datum.datum.{0}0 + datum.datum.{0}1) / 2)"  # a mark's transform
    band = {
        "type": "path",
        "name": "band",
        "from": {"data": "bands"},
        "encode": {
            "update": {
                "stroke": {"scale": "color", "field": "from"},
                "strokeWidth": {"signal": "max(1, scale('y', datum.octets) - scale('y', 0))"},
                "strokeOpacity": {"value": 0.4},
                "tooltip": _said("datum.from + ' → ' + datum.to"),
            },
            "hover": {"strokeOpacity": {"value": 0.8}},
        },
        "transform": [
            {
                "type": "linkpath",
                "orient": "horizontal",
                "shape": "diagonal",
                "sourceX": {"expr": left},
                "sourceY": {"expr": middle.format("from")},
                "targetX": {"expr": right},
                "targetY": {"expr": middle.format("to")},
            }
        ],
    }
    bar = {
        "type": "rect",
        "name": "end",
        "from": {"data": "ends"},
        "encode": {
            "update": {
                "x": {"signal": f"{at} ? 0 : {right}"},
                "width": {"signal": left},
                "y": {"signal": "scale('y', datum.y0)"},
                "y2": {"signal": "scale('y', datum.y1)"},
                "fill": {"scale": "color", "field": "name"},
                "stroke": {"value": "white"},
                "tooltip": _said("datum.name"),
                "cursor": {"value": "pointer"},
            }
        },
    }
    name = {
        "type": "text",
        "style": "guide-label",  # which has the theme's color
        "from": {"data": "ends"},
        "interactive": False,
        "encode": {
            "update": {
                "x": {"signal": f"{at} ? {left} + 4 : {right} - 4"},
                "y": {"signal": "scale('y', (datum.y0 + datum.y1) / 2)"},
                "align": {"signal": f"{at} ? 'left' : 'right'"},
                "baseline": {"value": "middle"},
                "limit": {"signal": "width * 0.35"},
                "text": {
                    "signal": "scale('y', datum.y1) - scale('y', datum.y0) > 9 ? datum.name : ''"
                },
            }
        },
    }
    return [band, bar, name]


def _all() -> dict[str, Any]:
    return {
        "type": "text",
        "name": "all",
        "style": "guide-label",
        "encode": {
            "update": {
                "x": {"signal": "width / 2"},
                "y": {"value": -8},
                "align": {"value": "center"},
                "fontWeight": {"value": "bold"},
                "text": {"signal": "only.side ? 'Show All' : ''"},
                "cursor": {"value": "pointer"},
            }
        },
    }
