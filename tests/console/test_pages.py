"""Each page: numbers of the API and the store, links to it and back, for those who see little."""

import csv
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Route, expect

from flowvis.ipfix.occupancy import Occupant

from . import read
from .opened import PAGES, PARTNERS, Console, Visit, photograph
from .traffic import total

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]

AXE = Path(__file__).parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible(shown: Console, visit: Visit, name: str) -> None:
    page = visit.open(shown.link(name))
    page.evaluate(AXE.read_text())  # by the debugger: the page's policy allows no foreign script
    found = {}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        violations = page.evaluate(
            "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"
        )
        found[theme] = [
            (each["id"], [node["html"][:200] for node in each["nodes"]])
            for each in violations
            if each["impact"] in {"serious", "critical"}
        ]
    assert found == {"light": [], "dark": []}
    photograph(visit, shown, [name], "sixty")


def test_overview_counts_what_the_store_has(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address())
    tiles = read.tiles(page)
    answer = shown.asked("query", measure="throughput,connections,denied,unanswered")
    assert list(tiles.values()) == answer["total"]
    ((octets, begun, denied),) = shown.aggregator.sql(
        "SELECT sum(octetDeltaCount), count(DISTINCT sourceIP, sourceTransportPort),"
        " uniqExactIf(sourceIP, ingressNetworkPolicyRuleAction = 2) FROM flows"
    )
    assert int(octets) == total(shown.connections)
    assert int(begun) == tiles["Connections begun"] == len(shown.connections)
    assert int(denied) == tiles["Denied by a policy"]
    workloads = shown.asked("query", by="src.workload", measure="octets,connections", limit=10)
    rows = read.table(page, "Top workloads")
    assert [[row[0], row[2], row[3]] for row in rows] == workloads["rows"]


def test_overview_says_which_edges_are_new(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address())
    rows = read.table(page, "New since yesterday")
    edges = shown.asked(
        "query", by="src.workload,dst.workload,dst.port", measure="bothOctets", limit=10
    )
    assert len(rows) == 10  # yesterday there was nothing
    assert [row[3] for row in rows] == [row[3] for row in edges["rows"]]


def test_books_are_on_every_page_as_the_api_has_them(shown: Console, visit: Visit) -> None:
    def asked() -> Any:
        return shown.asked("query", by="src.namespace", measure="throughput")["answer"]

    before = asked()
    page = visit.open(shown.address("explore"))
    answer = asked()
    button = page.get_by_role("button", name="Answers:")
    expect(button).to_contain_text("Complete" if answer["complete"] else "ncomplete")
    button.click()
    body = page.locator(".books-body")
    for each in answer["missing"]:
        expect(body).to_contain_text(each["text"])
    # Records may have been rolled up between the two.
    tables = sorted({before["table"], answer["table"]}, key=len, reverse=True)
    expect(body).to_contain_text(re.compile("|".join(map(re.escape, tables))))


def test_flows_are_those_of_the_store(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    rows = read.table(page, "Flow records")
    answer = shown.asked("flows", limit=200, columns="octetDeltaCount,reverseOctetDeltaCount")
    assert [[row[7], row[8]] for row in rows] == answer["rows"]
    assert sum(row[7] for row in rows) == total(shown.connections)


def test_a_record_opens_into_what_is_known_of_it(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows", filter="verdict = dropped"))
    page.locator('table[aria-label="Flow records"] tbody tr').first.click()
    side = page.get_by_role("complementary", name="Flow record")
    expect(side).to_contain_text("deny-others")
    expect(side).to_contain_text("dropped")
    counters = read.table(page, "Counters")
    assert counters[0][:2] == ["Bytes", 180]
    address = page.url
    assert "flow=" in address
    page.go_back()
    expect(side).to_have_count(0)
    # The link alone leads there as well.
    page = visit.open(address)
    expect(page.get_by_role("complementary", name="Flow record")).to_contain_text("deny-others")


def test_columns_are_chosen(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    page.get_by_role("button", name="Columns").click()
    page.get_by_label("Source node").check()
    expect(page.get_by_role("columnheader", name="Source node")).to_be_visible()
    page.get_by_placeholder("Any field, by its name").fill("sourceTransportPort")
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="sourceTransportPort")).to_be_visible()
    assert "sourceTransportPort" in parse_qs(urlparse(page.url).query)["columns"][0]


def test_explore_shows_and_exports_what_was_answered(shown: Console, visit: Visit) -> None:
    page = visit.open(
        shown.address("explore", by="src.namespace,dst.namespace", measure="octets", chart="table")
    )
    answer = shown.asked("query", by="src.namespace,dst.namespace", measure="octets", limit=10)
    rows = read.table(page, "Groups")
    dimensioned = [[value or "none" for value in row] for row in answer["rows"]]
    assert rows[: len(dimensioned)] == dimensioned
    if answer["other"]:
        assert rows[-1][-1] == answer["other"][0]
    with page.expect_download() as coming:
        page.get_by_role("button", name="CSV").click()
    lines = list(csv.reader(io.StringIO(Path(coming.value.path()).read_text())))
    assert lines[0] == ["src.namespace", "dst.namespace", "octets"]
    assert [[row[0], row[1], int(row[2])] for row in lines[1:]] == answer["rows"]


def test_explore_makes_a_picture(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore"))
    with page.expect_download() as coming:
        page.get_by_role("button", name="PNG").click()
    content = Path(coming.value.path()).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5000


def test_a_range_is_drawn_over_a_chart(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore"))
    box = page.locator(".chart .plot").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=2*")
    length = shown.to_ms - shown.from_ms
    asked = parse_qs(urlparse(page.url).query)
    begin = page.evaluate("text => Date.parse(text)", asked["from"][0])
    end = page.evaluate("text => Date.parse(text)", asked["to"][0])
    assert abs(begin - shown.from_ms - length / 4) < length / 50
    assert abs(end - shown.from_ms - length / 2) < length / 50


def test_map_has_the_graph_and_goes_in_and_out_by_keyboard(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("map"))
    graph = shown.asked("graph", source="src.namespace", target="dst.namespace", limit=300)
    rows = read.table(page, "On the map")
    expected = {
        (node["names"] or ["outside"])[0]: [node["bothOctets"], node["connections"], node["denied"]]
        for node in graph["nodes"]
    }
    assert {row[0]: row[1:] for row in rows} == expected

    row = page.locator('table[aria-label="On the map"] tbody tr').filter(has_text="shop").first
    row.press("Enter")
    side = page.get_by_role("complementary", name="What is chosen")
    expect(side.get_by_role("heading", name="shop")).to_be_visible()
    page.locator("canvas").press("Enter")
    expect(page.get_by_role("navigation", name="Place on the map")).to_contain_text("shop")
    assert "focus=shop" in page.url
    page = visit.answered()
    names = [row[0] for row in read.table(page, "On the map")]
    assert any(name.startswith("shop/") for name in names)
    assert "payments" in names  # what is elsewhere is one thing
    page.locator("canvas").press("Backspace")
    page = visit.answered()
    assert {row[0] for row in read.table(page, "On the map")} == set(expected)
    page.go_back()
    page.wait_for_url("**focus=shop*")


def test_map_has_the_names_of_networks(shown: Console, visit: Visit) -> None:
    known = f"external:{PARTNERS.replace(' ', '%20')}"
    page = visit.open(shown.address("map", chosen=known))
    side = page.get_by_role("complementary", name="What is chosen")
    expect(side.get_by_role("heading", name=PARTNERS)).to_be_visible()
    side.get_by_role("button", name="Only this").click()
    visit.until("location.search.includes('network')")
    (chosen,) = parse_qs(urlparse(page.url).query)["filter"]
    assert f'dst.network = "{PARTNERS}"' in chosen
    total = shown.asked("query", filter=chosen, measure="octets")["total"]
    assert total == shown.asked("query", filter="ip = 203.0.113.7", measure="octets")["total"]
    assert total != [0]


def test_map_plays_a_range(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("map"))
    slider = page.get_by_role("slider", name="Moment of the range")
    slider.press("Home")
    page.wait_for_url("**at=*")
    begin, end = map(int, parse_qs(urlparse(page.url).query)["at"][0].split(","))
    assert (begin, end) == (shown.from_ms, shown.from_ms + 30_000)
    slider.press("End")
    visit.until("!location.search.includes('at=')")


def test_policies_are_those_of_the_api(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("policies"))
    answer = shown.asked("policies")
    rows = read.table(page, "Policies and rules")
    expected = [
        [rule["name"], rule["connections"], rule["octets"], rule["denied"]]
        for policy in answer["policies"]
        for rule in policy["rules"]
    ]
    assert [[row[3], *row[5:8]] for row in rows] == expected
    assert expected  # the traffic has denied connections
    uncovered = page.get_by_role("link", name="No policy covers")
    assert uncovered.locator("[data-value]").first.get_attribute("data-value") == str(
        answer["uncovered"]["connections"]
    )


def test_nodes_are_those_of_the_api(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("nodes"))
    rows = read.table(page, "Nodes")
    nodes = shown.api("nodes")["nodes"]
    assert [[row[0], row[4], row[5]] for row in rows] == [
        [node["name"], node["received"], node["lost"]] for node in nodes
    ]
    page.locator('table[aria-label="Nodes"] tbody tr').first.click()
    expect(page.get_by_role("heading", name=nodes[0]["name"])).to_be_visible()
    expect(page.get_by_label("What fills its conntrack")).to_have_count(0)  # nobody said it

    def with_occupants(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        told["nodes"][0]["occupants"] = [
            Occupant("shop", "Deployment", "loadgen", True, 700, 690).as_dict(),
            Occupant("", "", "(external)", True, 5, 0).as_dict(),
        ]
        route.fulfill(response=answer, json=told)

    page.route("**/api/v1/nodes*", with_occupants)
    page.reload()
    assert read.table(page, "What fills its conntrack") == [
        ["shop/loadgen", "source", 700, 690],
        ["(external)", "source", 5, 0],
    ]


def test_workloads_of_a_node_are_those_that_the_filter_chooses(
    shown: Console, visit: Visit
) -> None:
    chosen = "dst.port = 443"
    expected = shown.asked(
        "query", by="src.workload", measure="live,octets", limit=15,
        filter=f"src.node = node-1 and {chosen}",
    )  # fmt: skip
    page = visit.open(shown.address("nodes", node="node-1", filter=chosen))
    rows = read.table(page, "Workloads of the node")
    assert {(name, live, octets) for name, live, _, octets in rows} == set(
        map(tuple, expected["rows"])
    )
    page = visit.open(shown.address("nodes", node="node-1", filter="namespace = nobody"))
    side = page.get_by_role("complementary", name="Node node-1")
    expect(side).to_contain_text("in this range matches the filter")


def test_sql_answers_what_the_store_has(shown: Console, visit: Visit) -> None:
    query = "SELECT sourcePodNamespace, sum(octetDeltaCount) AS o FROM flows GROUP BY 1 ORDER BY 2"
    page = visit.open(shown.address("sql", query=query))
    expect(page.locator(".editor")).to_contain_text("octetDeltaCount")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("columnheader", name="sourcePodNamespace")).to_be_visible()
    rows = read.table(page, "Rows of the query")
    assert rows == [[str(cell) for cell in row] for row in shown.aggregator.sql(query)]


def test_sql_runs_as_soon_as_that_can_be_clicked(shown: Console, visit: Visit) -> None:
    visit.page.add_init_script(
        """
        new MutationObserver((_, observer) => {
            const run = document.querySelector(".sql button.primary");
            if (!run) return;
            observer.disconnect();
            run.click();
        }).observe(document, { subtree: true, childList: true });
        """
    )
    page = visit.open(shown.address("sql", query="SELECT 17 AS one"))
    expect(page.get_by_role("table", name="Rows of the query")).to_contain_text("17")


def test_sql_has_all_digits(shown: Console, visit: Visit) -> None:
    numbers = ["18446744073709551615", "-9223372036854775807", "9007199254740993", "0.5"]
    page = visit.open(shown.address("sql", query=f"SELECT {', '.join(numbers)}"))
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("table", name="Rows of the query")).to_be_visible()
    assert read.table(page, "Rows of the query") == [numbers]
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.path().read_text().splitlines()[1] == ",".join(numbers)


@pytest.mark.parametrize("beginning", ["99999999999999999", "-999999999999d"])
def test_a_time_that_is_none_is_said(shown: Console, visit: Visit, beginning: str) -> None:
    page = visit.open(f"{shown.url}/?page=nodes&from={beginning}&to=999999999999999999")
    page.get_by_role("button", name="Time range:").click()
    expect(page.get_by_label("From", exact=True)).to_be_visible()
    page.get_by_role("button", name="Earlier").click()
    expect(page.get_by_role("button", name="Time range:")).to_contain_text(beginning)


def test_sql_says_what_is_wrong(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("sql", query="SELEKT 1"))
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("SELEKT")
    visit.problems.clear()  # the browser's own line about a status of 400


def test_pages_keep_what_the_bar_says(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows", filter="namespace = shop", compare="-1d", flow="x"))
    page.get_by_role("link", name="Explore").click()
    page = visit.answered()
    asked = parse_qs(urlparse(page.url).query)
    assert asked == {
        "page": ["explore"],
        "from": [str(shown.from_ms)],
        "to": [str(shown.to_ms)],
        "filter": ["namespace = shop"],
        "compare": ["-1d"],
    }
    expect(page.get_by_label("Filter", exact=True)).to_have_value("namespace = shop")
    page.go_back()
    expect(page.get_by_role("heading", name="Flows", exact=True).first).to_be_attached()


def test_why_is_told_of_a_stored_connection_and_of_one_that_may_be(
    shown: Console, visit: Visit
) -> None:
    page = visit.open(shown.address("policies"))
    page.locator('table[aria-label="Denied connections"] tbody tr').first.click()
    visit.until("location.search.includes('explain=')")
    page = visit.answered()
    told = page.locator(".explained")
    explained = parse_qs(urlparse(page.url).query)["explain"][0]
    answer = shown.asked("explain", filter=explained)
    expect(told).to_contain_text(answer["verdict"])
    for way in ("egress", "ingress"):
        expect(told).to_contain_text(answer["connections"][0][way]["reported"]["text"])
    page.get_by_label("Source", exact=True).fill("203.0.113.7")
    page.get_by_label("Destination and port").fill("198.51.100.9:443")
    page.get_by_role("button", name="Explain").click()
    visit.until("location.search.includes('would=')")
    answer = shown.api("explain", source="203.0.113.7", destination="198.51.100.9:443")
    expect(told).to_contain_text(answer["connections"][0]["egress"]["text"])


def test_map_shows_what_has_changed(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("map", compare="-1d", chosen="namespace:shop"))
    edges = shown.asked("graph", source="src.namespace", target="dst.namespace")["edges"]
    touching = [each for each in edges if "namespace:shop" in (each["source"], each["target"])]
    rows = read.table(page, "Talks with")
    assert [row[2:] for row in rows] == [
        [each["bothOctets"], "new"]
        for each in sorted(touching, key=lambda each: -each["bothOctets"])
    ]
    expect(page.get_by_role("list", name="Colours")).to_contain_text("gone")


def test_what_explore_offers_can_be_asked(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore"))
    offered = page.locator("#dimensions option").evaluate_all("all => all.map(each => each.value)")
    assert {"dst.workload", "verdict", "service", "egressIP"} <= set(offered)
    for first in range(0, len(offered), 6):
        shown.asked("query", by=",".join(offered[first : first + 6]), limit=1)
    measures = page.get_by_label("Measure").evaluate("list => [...list].map(each => each.value)")
    assert "throughput" in measures
    for first in range(0, len(measures), 8):
        shown.asked("query", measure=",".join(measures[first : first + 8]))
    page.get_by_label("Add a dimension").fill("src.label.app")
    page.keyboard.press("Enter")
    page = visit.answered()
    expect(page.get_by_role("columnheader", name="src.label.app")).to_be_visible()
