"""The dashboards as files: current, in Grafana's form, and whole in themselves."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from tools.dashboards.__main__ import files, main
from tools.dashboards.chosen import ALL_WRITTEN, CHOICES
from tools.dashboards.looked import ALL, Looked
from tools.dashboards.manifests import LABEL
from tools.dashboards.page import Page
from tools.dashboards.pages import PAGES
from tools.dashboards.pages.health import PAGES as HEALTH
from tools.dashboards.panels import Shares
from tools.dashboards.queries import Records
from tools.dashboards.ranges import BRANCHES, THERE
from tools.dashboards.seen import LARGEST, PLACE, SEEN
from tools.dashboards.sources import CLICKHOUSE_PLUGIN

from deploy.rendered import DEPLOY, ROOT, objects, of, workload
from flowvis.filters import parse
from flowvis.filters.vocabulary import expression

CORE = {
    "bargauge", "dashlist", "gauge", "logs", "nodeGraph", "piechart", "row", "stat",
    "state-timeline", "table", "text", "timeseries",
}  # fmt: skip
"""Panels that are in Grafana itself, from 10 to 12."""
APPLIED = 262_144
"""Bytes of a ConfigMap that kubectl apply can keep in its annotation."""
BUILT_IN = {"__all", "__from", "__to", "__field", "__rate_interval", "__interval", "__range"}
BRANCH_NAMES = {each.name for each in BRANCHES}
MACROS = {"__fromTime", "__toTime", "__interval_s", "__conditionalAll"}
"""Of the ClickHouse data source, which Grafana does not know."""
UNITS = {value for name, value in vars(units).items() if name[0].isupper()}


FILES = files()


def written(page: Page) -> str:
    return FILES[f"deploy/grafana/dashboards/{page.name}.json"]


def read(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(written(page))
    return found


def panels_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all panels, those of closed rows as well."""
    return [panel for top in made["panels"] for panel in (top, *top.get("panels", ()))]


def variables_of(kind: str) -> list[dict[str, Any]]:
    """Return the variables of a kind, of all dashboards."""
    listed = (each for page in PAGES for each in read(page)["templating"]["list"])
    return [each for each in listed if each["type"] == kind]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)


@pytest.mark.parametrize("path", FILES)
def test_they_are_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == FILES[path], "run `make docs`"


def test_nothing_else_is_there(tmp_path: Path) -> None:
    """A dashboard that is gone leaves no file."""
    there = {path.relative_to(ROOT) for path in (DEPLOY / "grafana").rglob("*") if path.is_file()}
    assert {str(path) for path in there} == {name for name in FILES if name.startswith("deploy/")}
    assert main([str(tmp_path)]) == 0
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")} == set(FILES)


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    register_default_plugins()


def without_nothing(value: Any) -> Any:
    """What two documents have in common that differ in what they leave out."""
    if isinstance(value, dict):
        return {k: without_nothing(v) for k, v in value.items() if v not in (None, [], {}, False)}
    return [without_nothing(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_grafana_s_types_take_all_of_it(page: Page) -> None:
    """What the SDK reads, it writes again: no field that Grafana does not know."""
    given = read(page)
    for panel in panels_of(given):
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] == CLICKHOUSE_PLUGIN:
                target.clear()  # of a plugin that the SDK does not know
    again = json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))
    assert without_nothing(again) == without_nothing(given)
    given["panels"][1]["gridPosition"] = {"h": 1}
    again = json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))
    assert without_nothing(again) != without_nothing(given)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_dashboard_is_whole(page: Page) -> None:
    made = read(page)
    panels = panels_of(made)
    assert {panel["type"] for panel in panels} <= CORE
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(page.uid) <= 40
    assert all(
        panel.get("title") and panel.get("description")
        for panel in panels
        if panel["type"] != "row"
    )
    for together in (made["panels"], *(panel.get("panels", []) for panel in made["panels"])):
        cells = [
            (x, y)
            for each in (panel["gridPos"] for panel in together)
            for x in range(each["x"], each["x"] + each["w"])
            for y in range(each["y"], each["y"] + each["h"])
        ]
        assert len(set(cells)) == len(cells)
        assert max((x for x, _ in cells), default=0) < 24
    assert all(panel["collapsed"] for panel in panels if panel.get("panels"))
    variables = {each["name"] for each in made["templating"]["list"]}
    assert len(variables) == len(made["templating"]["list"])
    used = {name for text in texts(made) for name in re.findall(r"\$\{?([a-z_]\w*)", text)}
    assert used - BUILT_IN - MACROS <= variables
    chosen = {each["name"] for each in made["templating"]["list"] if each["type"] == "query"}
    assert chosen <= used, "a variable that changes nothing"
    assert set(units_of(panels)) <= UNITS
    # What is lost or dropped is not written: a number a second of anything is "cps".
    assert not {"wps", "rps", "ops", "iops", "reqps"} & set(units_of(panels))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_leaves_branches_out_is_asked_with_the_range_and_seen_by_nobody(page: Page) -> None:
    variables = {each["name"]: each for each in read(page)["templating"]["list"]}
    for name in BRANCH_NAMES & variables.keys():
        found = variables[name]
        assert (found["refresh"], found["hide"], found["skipUrlSync"]) == (2, 2, True)
        assert found["current"]["value"] == THERE


def units_of(value: Any) -> Iterator[str]:
    """Yield what is said to be a unit, of fields or of columns."""
    if isinstance(value, dict):
        if value.get("id") == "unit":
            yield value["value"]
        for name, each in value.items():
            if isinstance(each, str) and name.lower().endswith("unit"):
                yield each
            yield from units_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from units_of(each)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_whom_it_asks_can_be_chosen(page: Page) -> None:
    """Each data source is a variable of its kind, one for all queries of a panel; none is idle."""
    made = read(page)
    sources = {
        f"${{{each['name']}}}": each["query"]
        for each in made["templating"]["list"] if each["type"] == "datasource"
    }  # fmt: skip
    asked = set()
    for panel in panels_of(made):
        if targets := panel.get("targets"):
            (of,) = {json.dumps(target["datasource"]) for target in targets}
            assert json.loads(of) == panel["datasource"]
            ids = [target["refId"] for target in targets]
            assert len(set(ids)) == len(ids)
            asked.add((panel["datasource"]["uid"], panel["datasource"]["type"]))
    for variable in made["templating"]["list"]:
        if "datasource" in variable:
            of = variable["datasource"]
            assert sources[of["uid"]] == of["type"]
    assert asked == set(sources.items())


def test_parts_are_of_a_whole() -> None:
    """Percentages of a pie are right only where all that is not shown by itself is a part, too."""
    pies = [panel for page in PAGES for panel in page.panels if isinstance(panel, Shares)]
    asked = [panel.asks for panel in pies if panel.asks is not None]
    assert asked
    assert all(asks.others for asks in asked)


def test_their_names_are_their_own() -> None:
    assert len({page.name for page in PAGES}) == len({page.title for page in PAGES}) == len(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_ask_the_console_what_it_understands(page: Page) -> None:
    values = {name: [ALL] for name in CHOICES} | {"console": "https://c:1", "level": "workload"}
    look = Looked(10, 20, values=values, all_values=dict.fromkeys(CHOICES, ALL_WRITTEN))
    for panel in page.panels:
        if panel.console is None:
            continue
        address = urlsplit(look.replaced(unquote(panel.console.address)))
        asked = {name: value for name, (value,) in parse_qs(address.query).items()}
        assert (address.netloc, asked["from"], asked["to"]) == ("c:1", "10000", "20000")
        parse(asked.get("filter", ""))
        for name in filter(None, asked.get("by", "").split(",")):
            assert expression(name)


def test_pictures_are_there_small_and_shown() -> None:
    """Of each dashboard but those of health; what they show the console understands."""
    assert SEEN.keys() == {page.name for page in PAGES} - {page.name for page in HEALTH}
    pictures = {picture.name: picture for picture in SEEN.values()}
    assert {path.stem for path in PLACE.glob("*.png")} == set(pictures)
    document = FILES["docs/dashboards.md"]
    for name, picture in pictures.items():
        assert document.count(f"](pictures/{name}.png)") == sum(
            each is picture for each in SEEN.values()
        )
        data = (PLACE / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n")
        assert len(data) < LARGEST
        parse(picture.of.filter)
        for by in filter(None, dict(picture.of.parameters).get("by", "").split(",")):
            assert expression(by)


def test_what_is_chosen_is_the_same_in_both_languages() -> None:
    values = {name: ["a", "b"] for name in CHOICES}
    written = Looked(1, 2, values=values).replaced(Records(choices=tuple(CHOICES.values())).written)
    assert "not namespace in (a,b)" in written
    assert parse(written)


def test_config_maps_are_those_that_sidecars_find() -> None:
    maps = {item["metadata"]["name"]: item for item in objects("grafana/dashboards")}
    assert len(maps) == len(PAGES)
    for page in PAGES:
        item = maps[f"flowvis-dashboard-{page.name}"]
        assert item["metadata"]["labels"][LABEL] == "1"
        assert item["data"] == {f"{page.name}.json": written(page)}
        kept = json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()
        escaped = sum(map(kept.count, (b"<", b">", b"&")))  # as \u003c, by Go
        assert len(kept) + 5 * escaped < APPLIED - 4096  # and what others may note there


def test_the_overlay_s_grafana_has_all_of_them_and_reads_as_who_may_only_read() -> None:
    overlay = "overlays/grafana"
    pod = workload("grafana", overlay)["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    sources = volumes["dashboards"]["projected"]["sources"]
    mounted = {source["configMap"]["name"] for source in sources}
    assert mounted == {f"flowvis-dashboard-{page.name}" for page in PAGES}
    (home,) = (
        each["value"] for each in pod["containers"][0]["env"] if "HOME_DASHBOARD" in each["name"]
    )
    assert home == f"/etc/grafana/dashboards/{PAGES[0].name}.json"
    (provisioning,) = (
        item["data"] for item in of(overlay, "ConfigMap")
        if item["metadata"]["name"].startswith("grafana-provisioning")
    )  # fmt: skip
    sources = yaml.safe_load(provisioning["datasource.yaml"])["datasources"]
    kinds = {each["query"] for each in variables_of("datasource")}
    assert [each["type"] for each in sources] == [CLICKHOUSE_PLUGIN, "prometheus", "loki"]
    assert kinds == {each["type"] for each in sources}
    assert len({each["uid"] for each in sources}) == 3
    (source,) = (each for each in sources if each.get("isDefault"))
    assert source["type"] == CLICKHOUSE_PLUGIN
    given = {each["name"] for each in pod["containers"][0]["env"]}
    assert set(re.findall(r"\$(\w+)", provisioning["datasource.yaml"])) <= given
    assert source["secureJsonData"] == {"password": "$CH_QUERY_PASSWORD"}
    secrets = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
        for each in pod["containers"][0]["env"] if "valueFrom" in each
    }  # fmt: skip
    assert secrets["CH_QUERY_PASSWORD"] == secrets["CH_QUERY_USERNAME"] == "clickhouse-queries"
    assert secrets["GF_SECURITY_ADMIN_PASSWORD"] == "grafana-admin"
    assert "admin" not in json.dumps(provisioning)
