"""Kibana's dashboards: each panel's search, on OpenSearch, of records that the aggregator sent.

What is expected is what the connections had when they ended: the exporters' counters.
"""

import asyncio
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tools.kibana import __main__ as written
from tools.kibana.boards import BOARDS

from deploy.kibana import (
    OTHER,
    Keys,
    Range,
    SavedObjects,
    Shown,
    choices,
    pairs,
    rows,
    shown,
    state,
)
from deploy.lived import FIRST_MS, MINUTE_MS, MINUTES, Connection, connections, events, lived
from deploy.logstash import Pipeline, get
from deploy.opensearch import OpenSearch
from deploy.rendered import DEPLOY, ROOT
from flowvis.fields import FlowType
from flowvis.filters import parse
from flowvis.questions.dimensions import parse_dimensions
from flowvis.questions.measures import parse_measures

OBJECTS = SavedObjects(DEPLOY / "logstash" / "kibana.ndjson")
OVER = Range(FIRST_MS, FIRST_MS + (MINUTES + 1) * MINUTE_MS)
FIRST_DAY = Range(FIRST_MS, FIRST_MS + 5 * MINUTE_MS)
"""For lines: of several shards their server finds the largest nearly."""


@dataclass(frozen=True)
class World:
    """What there was, and the index of what was sent of it."""

    connections: list[Connection]
    documents: list[dict[str, Any]]
    server: OpenSearch

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.server.ask("POST", "/flow-*/_search", body)
        assert not answer["timed_out"]
        assert not answer["_shards"]["failed"]
        return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = OpenSearch(tmp_path_factory.mktemp("opensearch"))
    try:
        server.start()
        template = json.loads((DEPLOY / "logstash" / "flow.json").read_text())
        server.ask("PUT", "/_index_template/flow", template)
        made = connections()
        pipeline = Pipeline(DEPLOY / "logstash" / "logstash.conf")
        documents = [pipeline.through(event) for event in asyncio.run(events(lived(made)))]
        (index,) = re.findall(r'index => "(flow-)%\{\+YYYY\.MM\.dd\}"', pipeline_text())
        server.write(
            (f"{index}{each['@timestamp'][:10].replace('-', '.')}", each) for each in documents
        )
        yield World(made, documents, server)
    finally:
        server.kill()


def pipeline_text() -> str:
    return (DEPLOY / "logstash" / "logstash.conf").read_text()


# What is expected

Of = Callable[[Connection], Any]


def pod(end: str) -> Of:
    return lambda c: getattr(c, end).pod


def address(end: str) -> Of:
    return lambda c: getattr(c, end).ip


def node(end: str) -> Of:
    return lambda c: getattr(c, end).node


def policy(direction: str) -> Of:
    return lambda c: "/".join(filter(None, getattr(c, direction)))


def service(c: Connection) -> str:
    return c.service


def pod_key(c: Connection) -> str:
    return c.key(c.destination.name, 5432)


def external_key(c: Connection) -> str:
    return c.key(c.destination.ip, 5432)


def service_key(c: Connection) -> str:
    return c.key(c.service, 80)


SIZES = {"octets": 1, "packets": 1 / 100, "reverse": 1 / 2}


@dataclass(frozen=True)
class Expected:
    """Which connections a panel is of, by what (so many, and the rest), and which number."""

    by: tuple[Of, ...]
    most: tuple[int, ...]
    measure: str = "octets"
    of: Of = lambda _: True
    shape: str = "sum"

    @property
    def over(self) -> Range:
        return FIRST_DAY if self.shape in {"rate", "running"} else OVER

    def numbers(self, found: list[Connection]) -> Shown:
        """Of what the connections were: numbers by what they stand at."""
        sums: Shown = defaultdict(float)
        for each in found:
            if not self.of(each):
                continue
            keys = tuple(by(each) for by in self.by)
            for minute, grown, ended in each.growth:
                at = FIRST_MS + minute * MINUTE_MS
                if at < self.over.end and (ended or self.measure != "ended"):
                    sums[(*keys, at)] += self._number(grown)
        shaped: Shown = getattr(self, f"_{self.shape}")(sums)
        return shaped

    def _number(self, grown: int) -> float:
        counts = {"octets": grown, "reverse": grown // 2, "packets": grown // 100}
        return counts.get(self.measure, 1)

    def _count(self, sums: Shown) -> Shown:
        return {(): sum(sums.values())}

    def _minutes(self, sums: Shown) -> Shown:
        return sums

    def _sum(self, sums: Shown) -> Shown:
        return largest(without_time(sums), self.most)

    def _bands(self, sums: Shown) -> Shown:
        named = {tuple(key or "none" for key in keys): n for keys, n in without_time(sums).items()}
        found = largest(named, self.most)
        return {keys * 2 if keys == (OTHER,) else keys: n for keys, n in found.items()}

    def _heat(self, sums: Shown) -> Shown:
        """A minute's largest."""
        found: Shown = {}
        for at in {keys[-1] for keys in sums}:
            minute = {keys[:-1]: number for keys, number in sums.items() if keys[-1] == at}
            found |= {(at, *keys): n for keys, n in largest(minute, self.most).items()}
        return found

    def _rate(self, sums: Shown) -> Shown:
        return {
            (line, at): sums.get((line, at), 0) * 8 / 60 / 1e6
            for line in self._lines(sums)
            for at in range(self.over.start, self.over.end, MINUTE_MS)
        }

    def _running(self, sums: Shown) -> Shown:
        found: Shown = {}
        for line in self._lines(sums):
            so_far = 0.0
            for at in range(self.over.start, self.over.end, MINUTE_MS):
                so_far += sums.get((line, at), 0)
                found[line, at] = so_far
        return found

    def _lines(self, sums: Shown) -> list[Any]:
        return [keys[0] for keys in largest(without_time(sums), self.most) if keys != (OTHER,)]


def without_time(sums: Shown) -> Shown:
    found: Shown = defaultdict(float)
    for keys, number in sums.items():
        found[keys[:-1]] += number
    return found


def largest(sums: Shown, most: tuple[int, ...]) -> Shown:
    """The largest of the first key, of each the largest of the next, and what the others are."""
    totals: dict[Any, float] = defaultdict(float)
    for keys, number in sums.items():
        totals[keys[0]] += number
    named = sorted(totals, key=lambda key: (-totals[key], key))[: most[0]]
    found: Shown = {}
    for key in named:
        inside = {keys[1:]: number for keys, number in sums.items() if keys[0] == key}
        below = largest(inside, most[1:]) if most[1:] else inside
        found |= {(key, *keys): number for keys, number in below.items()}
    if len(totals) > len(named):
        found[OTHER,] = sum(number for key, number in totals.items() if key not in named)
    return found


def both_pods(c: Connection) -> bool:
    return bool(c.source.name and c.destination.name)


def external(c: Connection) -> bool:
    return c.type == FlowType.TO_EXTERNAL


def called(c: Connection) -> bool:
    return bool(c.source.name and c.service)


def overview() -> Iterator[tuple[str, Expected]]:
    for end in ("source", "destination"):
        for what in ("Bytes", "Packets"):
            measure = "octets" if what == "Bytes" else "packets"
            title = f"{end.capitalize()} Pod {what}"
            yield title, Expected((pod(end),), (30,), measure, pod(end))
            yield f"{title} (IP)", Expected((address(end),), (20,), measure)
        counted_ = Expected((pod(end),), (20,), "ended", pod(end))
        yield f"{end.capitalize()} Pod Flow Count", counted_


def lines(what: str, name: str, by: Of, of: Of) -> Iterator[tuple[str, Expected]]:
    """Both directions."""
    shape = "running" if what == "Cumulative Bandwidth" else "rate"
    ways = ("Tx Mbps", "Rx Mbps")
    ways = {"Cumulative Bandwidth": ("Cumulative Bandwidth", "Reverse Cumulative Bandwidth"),
            "Aggregated": ("Aggregated Tx Mbps", "Aggregated Rx Mbps")}.get(what, ways)  # fmt: skip
    for way, measure in zip(ways, ("octets", "reverse"), strict=True):
        yield f"{way} by {name}", Expected((by,), (30,), measure, of, shape)


def bands(name: str, source: Of, target: Of, of: Of) -> Iterator[tuple[str, Expected]]:
    for way, measure in (("", "octets"), ("Reverse ", "reverse")):
        found = Expected((source, target), (30, 30), measure, of, "bands")
        yield f"{name} {way}Cumulative Bytes", found


def flows(name: str, key: Of, of: Of) -> Iterator[tuple[str, Expected]]:
    yield from lines("Mbps", f"{name} Flow", key, of)
    yield from lines("Cumulative Bandwidth", f"{name} Flow", key, of)


def policies() -> Iterator[tuple[str, Expected]]:
    for direction in ("ingress", "egress"):
        for what, measure in (("Bytes", "octets"), ("Packets", "packets")):
            by = (
                lambda c, d=direction: getattr(c, d)[0] or "N/A",
                lambda c, d=direction: getattr(c, d)[1],
            )
            of = policy(direction)
            title = f"{direction.capitalize()} Network Policy {what}"
            yield title, Expected(by, (20, 5), measure, of)
    ends = (policy("egress"), policy("ingress"))
    of = lambda c: any(each(c) for each in ends)  # noqa: E731
    yield "Network Policy Flow Throughput Diagram", Expected(ends, (30, 30), "octets", of, "bands")


SOURCE, DESTINATION = "Pod Acting as Source", "Pod Acting as Destination"

EXPECTED: dict[str, dict[str, Expected]] = {
    "Overview": dict(overview()),
    "Pod-to-Pod Flow": {
        **dict(bands("Pod-to-Pod Traffic", pod("source"), pod("destination"), both_pods)),
        **dict(flows("Pod-to-Pod", pod_key, both_pods)),
        **dict(lines("Aggregated", SOURCE, pod("source"), both_pods)),
        **dict(lines("Aggregated", DESTINATION, pod("destination"), both_pods)),
    },
    "Pod-to-External Flow": {
        **dict(bands("Pod-to-External Traffic", pod("source"), address("destination"), external)),
        **dict(flows("Pod-to-External", external_key, external)),
        **dict(lines("Aggregated", SOURCE, pod("source"), external)),
    },
    "Pod-to-Service Flow": {
        **dict(bands("Pod-to-Service Flow", pod("source"), service, called)),
        **dict(lines("Aggregated", "Service Acting as Destination", service, called)),
        **dict(flows("Pod-to-Service", service_key, called)),
    },
    "Flow Record": {
        "Flow Record Count": Expected((), (), "records", shape="count"),
        "Flow Record Graph": Expected((), (), "records", shape="minutes"),
    },
    "Node Throughput": {
        **dict(bands("Node", node("source"), node("destination"), both_pods)),
        **dict(lines("Aggregated", "Node Acting as Source", node("source"), node("source"))),
        **{
            f"Aggregated {way} Bytes by Node Acting as Source (heat map)": Expected(
                (node("source"),), (10,), measure, node("source"), "heat"
            )
            for way, measure in (("Tx", "octets"), ("Rx", "reverse"))
        },
    },
    "Network Policy": dict(policies()),
}

PANELS = [(board, title) for board, panels in EXPECTED.items() for title in panels]


@pytest.mark.opensearch
@pytest.mark.parametrize(("board", "title"), PANELS)
def test_a_panel_shows_what_the_connections_had(world: World, board: str, title: str) -> None:
    expected = EXPECTED[board][title]
    numbers = expected.numbers(world.connections)
    found = shown(OBJECTS.panels(board)[title], expected.over, world.search)
    assert found == pytest.approx(numbers, rel=1e-9)
    assert sum(numbers.values())


def test_every_panel_is_looked_at() -> None:
    assert list(EXPECTED) == [each["attributes"]["title"] for each in OBJECTS.of("dashboard")]
    for board, expected in EXPECTED.items():
        panels = OBJECTS.panels(board)
        numbers = {
            title
            for title, each in panels.items()
            if each["type"] == "visualization"
            and state(each)["type"] not in {"input_control_vis", "markdown"}
        }
        assert numbers == expected.keys()


@pytest.mark.opensearch
@pytest.mark.parametrize(
    ("board", "title", "within"),
    [
        ("Node Throughput", "Node Cumulative Bytes", (address("source"), address("destination"))),
        (
            "Network Policy",
            "Network Policy Flow Throughput Diagram",
            (pod("source"), pod("destination")),
        ),
    ],
)
def test_a_band_tells_of_its_largest_pair(
    world: World, board: str, title: str, within: tuple[Of, Of]
) -> None:
    expected = EXPECTED[board][title]
    found = pairs(OBJECTS.panels(board)[title], OVER, world.search)
    assert len(found) > 20
    for ends, pair in found.items():

        def of_band(c: Connection, ends: Keys = ends) -> bool:
            own = tuple(by(c) or "none" for by in expected.by)
            return own == ends and all(by(c) for by in within)

        of = replace(expected, by=within, shape="sum", most=(1, 1), of=of_band)
        assert pair in of.numbers(world.connections), ends


@pytest.mark.opensearch
def test_totals_are_not_what_is_added_up(world: World) -> None:
    """The documents tempt to: sums of totals and of one node's counters are others."""
    deltas, totals, nodes = (
        sum(get(each, f"[ipfix][{name}]") for each in world.documents)
        for name in ("octetDeltaCount", "bytes", "octetDeltaCountFromSourceNode")
    )
    assert deltas == sum(each.total for each in world.connections)
    assert len({deltas, totals, nodes}) == 3


@pytest.mark.opensearch
def test_lists_offer_each_value(world: World) -> None:
    seen = 0
    for board in EXPECTED:
        for panel in OBJECTS.panels(board).values():
            if panel["type"] == "visualization" and state(panel)["type"] == "input_control_vis":
                for name, values in choices(panel, world.search).items():
                    ours = {get(each, f"[{name.replace('.', '][')}]") for each in world.documents}
                    assert values == ours - {None}, name
                    seen += 1
    assert seen == 9 + 8 + 5 + 7 + 9 + 4


@pytest.mark.opensearch
def test_records_are_shown_with_all_columns(world: World) -> None:
    panel = OBJECTS.panels("Flow Record")["Antrea: Flow Record Table"]
    found = rows(panel, OVER, world.search, 10_000)
    times = [each["@timestamp"] for each in found]
    assert times == sorted(times, reverse=True)
    assert len(found) == len(world.documents)
    columns = panel["attributes"]["columns"]
    assert len(columns) == 6
    for name in columns:
        assert all(get(each, f"[{name.replace('.', '][')}]") is not None for each in found)


def commands() -> Iterator[list[str]]:
    for board in BOARDS:
        for panel in board.panels:
            if panel.equal:
                yield shlex.split(panel.equal)


def test_commands_beside_panels_are_understood() -> None:
    top = [words[2:] for words in commands() if words[1] == "top"]
    assert len(top) > 30
    for words in top:
        options = dict(zip(words[-4::2], words[-3::2], strict=True))
        assert [each.name for each in parse_measures(options["--measure"])]
        assert parse_dimensions("by", options["--by"])
        assert all(parse(each) for each in words[:-4])


# The file


def test_files_are_up_to_date(tmp_path: Path) -> None:
    assert written.main([str(tmp_path)]) == 0
    for path in written.files():
        assert (tmp_path / path).read_text() == (ROOT / path).read_text(), "run `make docs`"


def test_ids_are_unique_and_references_are_there() -> None:
    assert len(OBJECTS.by_id) == len(OBJECTS.all)
    for each in OBJECTS.all:
        assert each["id"].startswith("flowvis-")
        text = json.dumps(each["attributes"])
        for reference in each["references"]:
            assert (reference["type"], reference["id"]) in OBJECTS.by_id
            assert reference["name"] in text
        named = set(
            re.findall(
                r'\\"(?:panelRefName|indexRefName|indexPatternRefName)\\": ?\\"([^"\\]+)', text
            )
        )
        assert named == {reference["name"] for reference in each["references"]}


def test_forms_are_those_of_kibana_7_10() -> None:
    """A newer one is refused by it and by OpenSearch Dashboards 2; 8 brings these to its own."""
    forms = {"index-pattern": "7.6.0", "visualization": "7.10.0", "search": "7.9.3"}
    forms["dashboard"] = "7.9.3"
    for each in OBJECTS.all:
        assert each["migrationVersion"] == {each["type"]: forms[each["type"]]}
        assert each.keys() == {"id", "type", "attributes", "references", "migrationVersion"}
    assert [len(OBJECTS.of(kind)) for kind in ("dashboard", "index-pattern", "search")] == [7, 1, 1]


def test_panels_fill_the_grid_without_overlap() -> None:
    for each in OBJECTS.of("dashboard"):
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(each["attributes"]["panelsJSON"]):
            at = panel["gridData"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not taken & cells
            assert at["x"] + at["w"] <= 48
            taken |= cells
        assert len(taken) == 48 * (1 + max(y for _, y in taken))


def test_each_dashboard_leads_to_all() -> None:
    ids = [each["id"] for each in OBJECTS.of("dashboard")]
    for title in EXPECTED:
        links = OBJECTS.panels(title)["Flow dashboards"]
        assert re.findall(r"\(#/view/([\w-]+)\)", state(links)["params"]["markdown"]) == ids


def test_fields_are_those_of_the_index() -> None:
    template = json.loads((DEPLOY / "logstash" / "flow.json").read_text())
    known = template["template"]["mappings"]["properties"]["ipfix"]["properties"].keys()
    named = set(re.findall(r"ipfix\.(\w+)", (DEPLOY / "logstash" / "kibana.ndjson").read_text()))
    assert named <= known
    assert len(named) > 20
