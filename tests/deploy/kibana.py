"""What Kibana asks of an index for a panel, and what it shows of the answer.

A model, as the program is in no package registry. All comes of the saved objects: the query, the
aggregations, the specification. What it does not know it refuses.
"""

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.lived import MINUTE_MS

Object = dict[str, Any]
Search = Callable[[Object], Object]
"""Of a body, over the indices of the pattern: the answer."""
Keys = tuple[str | int, ...]
Shown = dict[Keys, float]
"""Numbers by what they stand at: the panel's terms and times (ms), outer ones first."""

OTHER = "Other"


@dataclass(frozen=True)
class Range:
    """From when to when is looked, ms."""

    start: int
    end: int

    def clause(self, field: str) -> Object:
        bounds = {"gte": self.start, "lt": self.end, "format": "epoch_millis"}
        return {"range": {field: bounds}}


class SavedObjects:
    """A file that was imported."""

    def __init__(self, path: Path) -> None:
        self.all: list[Object] = [json.loads(line) for line in path.read_text().splitlines()]
        self.by_id = {(each["type"], each["id"]): each for each in self.all}

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.all if each["type"] == kind]

    def dashboard(self, title: str) -> Object:
        (found,) = [each for each in self.of("dashboard") if each["attributes"]["title"] == title]
        return found

    def panels(self, title: str) -> dict[str, Object]:
        """What a dashboard shows, by title, in order."""
        made = self.dashboard(title)
        referred = {each["name"]: each for each in made["references"]}
        shown = json.loads(made["attributes"]["panelsJSON"])
        found = [referred[each["panelRefName"]] for each in shown]
        objects = [self.by_id[each["type"], each["id"]] for each in found]
        return {each["attributes"]["title"]: each for each in objects}


def state(panel: Object) -> Object:
    found: Object = json.loads(panel["attributes"]["visState"])
    return found


def shown(panel: Object, over: Range, search: Search) -> Shown:
    """The numbers of a visualization."""
    kind = state(panel)["type"]
    of = {"metrics": _lines, "vega": _bands}.get(kind, _aggregated)
    return of(panel, over, search)


def choices(panel: Object, search: Search) -> dict[str, set[Any]]:
    """What the lists of a panel of controls offer, by field."""
    found = {}
    for control in state(panel)["params"]["controls"]:
        assert (control["type"], control["options"]["type"]) == ("list", "terms")
        terms = {"field": control["fieldName"], "size": control["options"]["size"]}
        answer = search({"size": 0, "aggs": {"values": {"terms": terms}}})
        buckets = answer["aggregations"]["values"]["buckets"]
        found[control["fieldName"]] = {bucket["key"] for bucket in buckets}
    return found


def rows(panel: Object, over: Range, search: Search, most: int = 500) -> list[Object]:
    """Documents of a saved search, as many as a page has."""
    query = _query(panel)
    body = {
        "size": most,
        "query": {"bool": {"filter": [query, over.clause("@timestamp")]}},
        "sort": [{field: order} for field, order in panel["attributes"]["sort"]],
    }
    return [hit["_source"] for hit in search(body)["hits"]["hits"]]


def _query(panel: Object) -> Object:
    source = json.loads(panel["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    assert (source["query"]["language"], source["filter"]) == ("lucene", [])
    return {"query_string": {"query": source["query"]["query"], "analyze_wildcard": True}}


# Panels of listed aggregations


def _aggregated(panel: Object, over: Range, search: Search) -> Shown:
    aggregations = state(panel)["aggs"]
    (metric,) = [each for each in aggregations if each["schema"] == "metric"]
    buckets = [each for each in aggregations if each["schema"] in {"segment", "group"}]
    assert len(buckets) + 1 == len(aggregations)
    assert metric["type"] in {"sum", "count"}
    asked = _Asked(metric, buckets, [_query(panel), over.clause("@timestamp")], search)
    return dict(asked.found())


@dataclass(frozen=True)
class _Asked:
    metric: Object
    buckets: list[Object]
    filters: list[Object]
    search: Search

    def found(self) -> Iterator[tuple[Keys, float]]:
        answer = self._ask(self.filters, self.buckets)
        yield from self._read(answer, self.buckets, (), self.filters)

    def _ask(self, filters: list[Object], buckets: list[Object]) -> Object:
        body = {"size": 0, "query": {"bool": {"filter": filters}}, "track_total_hits": True}
        if aggs := self._nested(buckets):
            body["aggs"] = aggs
        answer = self.search(body)
        found: Object = answer.get("aggregations", {})
        return found | {"doc_count": answer["hits"]["total"]["value"]}

    def _nested(self, buckets: list[Object]) -> Object:
        made: Object = {}
        if self.metric["type"] == "sum":
            made[self.metric["id"]] = {"sum": {"field": self.metric["params"]["field"]}}
        if buckets:
            first, *rest = buckets
            made[first["id"]] = self._bucket(first) | {"aggs": self._nested(rest)}
        return made

    def _bucket(self, one: Object) -> Object:
        params = one["params"]
        if one["type"] == "date_histogram":
            assert params["interval"] == "m"
            times = {"field": params["field"], "fixed_interval": "1m"}
            return {"date_histogram": times | {"min_doc_count": params["min_doc_count"]}}
        assert one["type"] == "terms", one
        assert not params["missingBucket"]
        assert params["orderBy"] == self.metric["id"]
        by = "_count" if self.metric["type"] == "count" else params["orderBy"]
        terms = {"field": params["field"], "size": params["size"], "order": {by: params["order"]}}
        return {"terms": terms | json.loads(params["json"])}

    def _read(
        self, answer: Object, buckets: list[Object], keys: Keys, filters: list[Object]
    ) -> Iterator[tuple[Keys, float]]:
        if not buckets:
            yield keys, self._number(answer)
            return
        first, *rest = buckets
        found = answer[first["id"]]["buckets"]
        for bucket in found:
            inside = [*filters, _within(first, bucket["key"])]
            yield from self._read(bucket, rest, (*keys, bucket["key"]), inside)
        if first["type"] == "terms" and first["params"]["otherBucket"]:
            yield from self._others(first, [bucket["key"] for bucket in found], keys, filters)

    def _others(
        self, one: Object, named: list[str], keys: Keys, filters: list[Object]
    ) -> Iterator[tuple[Keys, float]]:
        """A search of its own: of what has another value."""
        field = one["params"]["field"]
        rest = {
            "bool": {"filter": [{"exists": {"field": field}}],
                     "must_not": [{"terms": {field: named}}]}
        }  # fmt: skip
        answer = self._ask([*filters, rest], [])
        if answer["doc_count"]:
            yield (*keys, OTHER), self._number(answer)

    def _number(self, bucket: Object) -> float:
        if self.metric["type"] == "count":
            return float(bucket["doc_count"])
        return float(bucket[self.metric["id"]]["value"])


def _within(one: Object, key: Any) -> Object:
    """What a bucket is of."""
    field = one["params"]["field"]
    if one["type"] == "date_histogram":
        return Range(key, key + MINUTE_MS).clause(field)
    return {"term": {field: key}}


# Lines of the time series builder


def _lines(panel: Object, over: Range, search: Search) -> Shown:
    params = state(panel)["params"]
    (series,) = params["series"]
    assert (params["type"], series["split_mode"]) == ("timeseries", "terms")
    assert params["interval"] == ">=1m"
    assert over.end - over.start <= 100 * MINUTE_MS  # else the intervals would be longer
    metrics = {each["id"]: each for each in series["metrics"]}
    order = metrics[series["terms_order_by"]]
    times = {
        "field": params["time_field"],
        "fixed_interval": "1m",
        "min_doc_count": 0,
        "extended_bounds": {"min": over.start, "max": over.end - 1},
    }
    inner = {name: made for name, each in metrics.items() if (made := _metric(each))}
    terms = {
        "field": series["terms_field"],
        "size": int(series["terms_size"]),
        "order": {"sort": series["terms_direction"]},
    }
    body = {
        "size": 0,
        "query": {
            "bool": {
                "filter": [
                    over.clause(params["time_field"]),
                    {"query_string": {"query": params["filter"]["query"]}},
                ]
            }
        },
        "aggs": {
            "line": {
                "terms": terms,
                "aggs": {
                    "sort": _metric(order),
                    "timeseries": {"date_histogram": times, "aggs": inner},
                },
            }
        },
    }
    assert params["filter"]["language"] == "lucene"
    last = series["metrics"][-1]
    found: Shown = {}
    for line in search(body)["aggregations"]["line"]["buckets"]:
        buckets = line["timeseries"]["buckets"]
        dropped = params["drop_last_bucket"] + series["series_drop_last_bucket"]
        for bucket in buckets[: len(buckets) - dropped]:
            found[line["key"], bucket["key"]] = _value(last, bucket)
    return found


def _metric(one: Object) -> Object | None:
    if one["type"] == "sum":
        return {"sum": {"field": one["field"]}}
    if one["type"] == "cumulative_sum":
        return {"cumulative_sum": {"buckets_path": one["field"]}}
    assert one["type"] == "math", one
    return None  # Kibana's own


def _value(metric: Object, bucket: Object) -> float:
    if metric["type"] != "math":
        return float(bucket[metric["id"]]["value"])
    params = {each["name"]: bucket[each["field"]]["value"] for each in metric["variables"]}
    formula = ast.parse(metric["script"], mode="eval").body
    return _computed(formula, params | {"_interval": MINUTE_MS})


def _computed(node: ast.expr, params: dict[str, float]) -> float:
    if isinstance(node, ast.Constant):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Attribute):
        assert isinstance(node.value, ast.Name)
        assert node.value.id == "params"
        return params[node.attr]
    assert isinstance(node, ast.BinOp)
    left, right = _computed(node.left, params), _computed(node.right, params)
    return left * right if isinstance(node.op, ast.Mult) else left / right


# Diagrams of Vega


def _bands(panel: Object, over: Range, search: Search) -> Shown:
    """Of each pair of ends; what has no bucket of its own is others'."""
    found = _found(panel, over, search)
    shown: Shown = {}
    rest = found["octets"]["value"]
    for source in found["from"]["buckets"]:
        rest -= source["octets"]["value"]
        beyond = source["octets"]["value"]
        for target in source["to"]["buckets"]:
            shown[source["key"], target["key"]] = target["octets"]["value"]
            beyond -= target["octets"]["value"]
        if beyond:
            shown[source["key"], OTHER] = beyond
    if rest:
        shown[OTHER, OTHER] = rest
    return shown


def pairs(panel: Object, over: Range, search: Search) -> dict[Keys, Keys]:
    """The pair of ends that has most of each band, where one is told."""
    found: dict[Keys, Keys] = {}
    for source in _found(panel, over, search)["from"]["buckets"]:
        for target in source["to"]["buckets"]:
            for first in target["source"]["buckets"]:
                for last in first["target"]["buckets"]:
                    found[source["key"], target["key"]] = (first["key"], last["key"])
    return found


def _found(panel: Object, over: Range, search: Search) -> Any:
    spec = json.loads(state(panel)["params"]["spec"])
    (url,) = [each["url"] for each in spec["data"] if "url" in each]
    assert url["%context%"] is True
    assert "query" not in url["body"]  # which Kibana does not allow beside the context
    (first,) = [each for each in spec["data"] if "url" in each]
    body = url["body"] | {"query": {"bool": {"filter": [over.clause(url["%timefield%"])]}}}
    found: Any = search(body)
    for name in first["format"]["property"].split("."):
        found = found[name]
    return found
