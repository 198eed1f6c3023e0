"""Who comes in, what is seen of what one may see, and what is shown where nothing can be."""

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Browser, Route, expect

from waiting import block_until

from . import read
from .opened import (
    PAGES,
    TOKEN,
    TOKEN_OF_SHOP,
    Console,
    Visit,
    console,
    log_in,
    new_context,
    now_s,
    photograph,
    report,
)
from .traffic import Connection, cluster

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]


def test_a_link_with_a_token_logs_in_and_forgets_it(shown: Console, chromium: Browser) -> None:
    context = new_context(chromium)
    visit = Visit(context)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    page = visit.open(f"{shown.address('flows')}#token={TOKEN}")
    expect(page.get_by_role("table", name="Flow records")).to_be_visible()
    assert "#" not in page.url
    assert TOKEN not in page.evaluate("JSON.stringify([history.state, {...localStorage}])")
    assert not any(TOKEN in url for url in asked)
    (cookie,) = context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    context.close()
    assert visit.problems == []


def test_nobody_is_asked_for_a_token(shown: Console, chromium: Browser) -> None:
    context = new_context(chromium)
    page = context.new_page()
    page.goto(f"{shown.url}/#token=wrong")
    box = page.get_by_label("Token")
    box.fill("wrong as well")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert context.cookies() == []
    box.fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_visible()
    context.close()


def test_who_may_see_one_namespace_sees_that_one(shown: Console, chromium: Browser) -> None:
    context = new_context(chromium)
    log_in(context, shown.url, TOKEN_OF_SHOP)
    visit = Visit(context)
    page = visit.open(shown.address("flows"))
    rows = read.table(page, "Flow records")
    assert rows
    assert all("shop/" in f"{row[1]} {row[2]}" for row in rows)
    assert len(rows) < len(shown.connections)
    for hidden in ("Nodes", "SQL"):
        expect(page.get_by_role("link", name=hidden)).to_have_count(0)
    page = visit.open(shown.address("map", level="workload"))
    page.get_by_role("table", name="On the map").wait_for()
    edges = shown.api(
        "graph", TOKEN_OF_SHOP, **{"from": shown.from_ms, "to": shown.to_ms},
        source="src.workload", target="dst.workload",
    )  # fmt: skip
    assert len(read.table(page, "On the map")) == len(edges["nodes"])
    context.close()
    assert visit.problems == []


def test_where_nothing_is_it_says_so(shown: Console, visit: Visit) -> None:
    empty = {"filter": "namespace = nobody"}
    texts = {
        "overview": "No flow in this range matches the filter",
        "map": "Nobody talks",
        "flows": "No record in this range matches the filter",
        "explore": "No flow in this range matches the filter",
    }
    for name, text in texts.items():
        page = visit.open(shown.address(name, **empty))
        expect(page.get_by_role("main")).to_contain_text(text)


def test_a_range_that_is_not_over_is_not_said_to_be_all(shown: Console, visit: Visit) -> None:
    page = visit.open(f"{shown.url}/?page=overview&from=2099-01-01&to=2099-01-02")
    expect(page.locator(".books-tile")).to_contain_text("This range is not over")
    page.locator(".books").click()
    expect(page.locator(".books-body")).to_contain_text("what comes after is not known yet")
    page = visit.open(shown.address("overview"))
    expect(page.locator(".books-tile .tile-text")).not_to_be_empty()
    expect(page.locator(".books-tile")).not_to_contain_text("not over")


def test_a_server_that_is_gone_is_said_and_what_was_there_stays(
    shown: Console, visit: Visit
) -> None:
    page = visit.open(shown.address("explore", by="src.namespace", measure="octets"))
    before = read.table(page, "Groups")
    visit.context.set_offline(True)
    page.get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(page.locator(".books.lost")).to_be_visible()
    assert read.table(page, "Groups") == before
    visit.context.set_offline(False)
    page.get_by_role("button", name="Ask again").first.click()
    expect(page.get_by_role("alert")).to_have_count(0)
    visit.problems.clear()  # the browser's own lines about failed requests


def test_an_answer_that_is_cut_off_or_refused_is_no_answer(shown: Console, visit: Visit) -> None:
    def cut(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.body()[:-40])

    visit.page.route("**/api/v1/query*", cut)
    page = visit.open(shown.address("explore"))
    expect(page.get_by_role("alert")).to_contain_text("cut off")
    costly = {"error": {"code": "too-costly", "message": "reads too much"}}
    page.unroute("**/api/v1/query*")
    page.route("**/api/v1/query*", lambda route: route.fulfill(status=422, json=costly))
    page.get_by_role("button", name="Ask again").first.click()
    expect(page.get_by_role("alert")).to_contain_text("a shorter range")
    visit.problems.clear()


def test_what_too_many_asked_is_asked_again_by_itself(shown: Console, visit: Visit) -> None:
    """Also where the range has ended, so that nothing else would ask; SQL by its button."""
    many = {"error": {"code": "too-many", "message": "others ask"}}

    def refuse(path: str) -> None:
        visit.page.route(path, lambda route: route.fulfill(status=429, json=many), times=1)

    refuse("**/api/v1/query*")
    page = visit.open(shown.address("explore"))
    expect(page.get_by_role("alert")).to_contain_text("asked again in a moment")
    expect(page.get_by_role("table", name="Groups")).to_be_visible()
    refuse("**/api/v1/sql")
    page = visit.open(shown.address("sql", query="SELECT count() AS records FROM flows"))
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("others ask")
    expect(page.get_by_role("alert")).not_to_contain_text("asked again")
    page.get_by_role("button", name="Ask again").last.click()
    expect(page.get_by_role("columnheader", name="records")).to_be_visible()
    visit.problems.clear()


def live(number: int) -> dict[str, Any]:
    """A record of now."""
    (record,) = Connection(number, "shop/live-1", "data/live-2", 6000, 1234, now_s()).records()
    return record


def test_live_flows_come_as_they_are_written_and_wait_while_held(
    chromium: Browser, tmp_path: Path
) -> None:
    # An aggregator of its own, as others count what they have got.
    with console(tmp_path, [], now_s()) as own:
        context = new_context(chromium)
        log_in(context, own.url)
        visit = Visit(context)
        photograph(visit, own, PAGES, "none")
        page = visit.open(f"{own.url}/?page=flows&live=1&filter=dst.port+%3D+6000")
        expect(page.get_by_role("main")).to_contain_text("as they come")
        report(own.aggregator, live(40_001), live(40_002) | {"destinationTransportPort": 1})
        table = page.get_by_role("table", name="Live flow records")
        expect(table.locator("tbody tr")).to_have_count(1)
        assert read.table(page, "Live flow records")[0][7] == 1234
        page.get_by_role("button", name="Hold").click()
        report(own.aggregator, live(40_003))
        expect(page.get_by_role("main")).to_contain_text("1 waiting")
        expect(table.locator("tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Go on").click()
        expect(table.locator("tbody tr")).to_have_count(2)
        assert visit.problems == []
        # An exporter may say any time, and no Date has this one.
        report(own.aggregator, live(40_004) | {"flowEndMilliseconds": 1 << 62})
        expect(table.locator("tbody tr")).to_have_count(3)
        assert read.table(page, "Live flow records")[0][0] == "\u2013"
        assert visit.problems == []

        # Who is no longer known is asked who they are, and then is where they were.
        tokens = tmp_path / "tokens"
        known = tokens.read_text()
        tokens.write_text(known.replace(TOKEN, "another-token-of-some-length-0987654321"))
        page = context.new_page()
        page.goto(f"{own.url}/?page=explore&by=dst.port")
        page.get_by_label("Token").wait_for()
        tokens.write_text(known)
        block_until(lambda: own.api("me"), own.aggregator.log, despite=(HTTPError,))
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Throughput by dst.port")).to_be_visible()
        context.close()


FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Whatever moves has moved when this comes true, on a busy machine as well."""


def settled(visit: Visit, picture: str) -> str:
    """Wait until a picture of the map stays the same while it is drawn; return it."""
    seen = [""]

    def same() -> str:
        seen.append(str(visit.page.evaluate(f"{FRAMES}.then(() => {picture})")))
        return seen[-1] if seen[-1] == seen[-2] else ""

    return block_until(same, lambda: "the map does not come to rest")


@pytest.mark.slow
def test_two_thousand_workloads_are_a_map_of_some_hundreds(
    chromium: Browser, tmp_path: Path
) -> None:
    now = now_s()
    with console(tmp_path, cluster(2000, now), now) as large:
        context = new_context(chromium, viewport={"width": 1280, "height": 900})
        log_in(context, large.url)
        visit = Visit(context)
        page = visit.open(large.address("map", level="workload"))
        expect(page.locator("canvas")).to_have_attribute("data-ready", "|workload")
        rows = read.table(page, "On the map")
        assert 200 <= len(rows) <= 301
        expect(page.get_by_role("complementary")).to_contain_text("smaller ones are not")
        # A refresh leaves what is there where it was.
        places = "document.querySelector('canvas').toDataURL()"
        before = settled(visit, places)
        with page.expect_response("**/api/v1/graph*"):
            page.get_by_role("button", name="Ask again").click()
        assert settled(visit, places) == before
        photograph(visit, large, PAGES, "thousands")
        page = visit.open(large.address("flows"))
        assert page.locator("table tbody tr").count() < 220  # those in view, and a few
        context.close()
        assert visit.problems == []


HELD_LAYOUT = """
const Plain = Worker;
window.heard = 0;
window.Worker = class extends Plain {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", () => { window.heard += 1; });
  }
  postMessage(question) {
    const send = () => super.postMessage(question);
    if (window.hold) window.letGo = send;
    else send();
  }
};
"""


def test_places_that_come_late_are_not_of_another_map(shown: Console, visit: Visit) -> None:
    """Somebody looks at workloads and comes back before these have their places."""
    visit.page.add_init_script(HELD_LAYOUT)
    visit.page.emulate_media(reduced_motion="reduce")
    page = visit.open(shown.address("map"))
    canvas = page.locator("canvas")
    expect(canvas).to_have_attribute("data-ready", "|namespace")
    places = "document.querySelector('canvas').toDataURL()"
    before = settled(visit, places)
    page.evaluate("window.hold = true")
    page.get_by_role("button", name="Workloads").click()
    visit.until("window.letGo !== undefined")
    page.get_by_role("button", name="Namespaces").click()
    visit.answered()
    page.mouse.move(0, 0)
    assert settled(visit, places) == before
    heard = page.evaluate("window.heard")
    page.evaluate("window.letGo()")
    visit.until(f"window.heard > {heard}")
    assert settled(visit, places) == before


def test_a_map_that_one_goes_to_is_all_in_view(shown: Console, visit: Visit) -> None:
    visit.page.emulate_media(reduced_motion="reduce")
    page = visit.open(shown.address("map"))
    canvas = page.locator("canvas")
    places = "document.querySelector('canvas').toDataURL()"
    for name, of in (("Pods", "|pod"), ("Namespaces", "|namespace"), ("Workloads", "|workload")):
        page.get_by_role("button", name=name).click()
        visit.answered()
        expect(canvas).to_have_attribute("data-ready", of)
        seen = settled(visit, places)
        canvas.press("0")  # all into view
        assert settled(visit, places) == seen


def test_numbers_are_under_the_name_of_what_they_are(shown: Console, visit: Visit) -> None:
    """Also while the answer to another question is on its way, and when it is a refusal."""
    page = visit.open(shown.address("explore", by="src.namespace", measure="octets"))
    rows = read.table(page, "Groups")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/query?*", hold)
    page.get_by_label("Measure").select_option("connections")
    expect(page.locator("[aria-busy=true]")).to_have_count(1)
    heads = page.get_by_role("table", name="Groups").get_by_role("columnheader")
    expect(heads.nth(1)).to_contain_text("Bytes")
    expect(page.get_by_role("heading", name="Bytes by src.namespace")).to_be_visible()
    assert read.table(page, "Groups") == rows
    problem = {"error": {"code": "unavailable", "message": "the store is away"}}
    for one in held:
        one.fulfill(status=503, json=problem)
    expect(page.get_by_role("alert")).to_contain_text("the store is away")
    expect(page.get_by_role("table", name="Groups")).to_have_count(0)
    expect(page.get_by_role("heading", name="Connections by src.namespace")).to_be_visible()
    visit.problems.clear()  # the browser's own lines about the status


@pytest.mark.parametrize(
    ("where", "ids", "detail"),
    [
        ("map", ("namespace:shop", "namespace:payments"), "Throughput"),
        ("nodes", ("node-0", "node-1"), "Workloads of the node"),
    ],
)
def test_what_is_known_of_one_is_not_shown_of_another(
    shown: Console, visit: Visit, where: str, ids: tuple[str, str], detail: str
) -> None:
    """While the answer for the one that was chosen next is on its way."""
    first, second = (shown.address(where, chosen=one, node=one) for one in ids)
    page = visit.open(first)
    side = page.get_by_role("complementary")
    expect(side.get_by_label(detail)).to_have_count(1)
    page.route("**/query?*", lambda _: None)
    page.evaluate("url => history.pushState(null, '', url)", second)
    page.evaluate("dispatchEvent(new PopStateEvent('popstate'))")
    expect(side.get_by_role("heading", name=ids[1].split(":")[-1])).to_be_visible()
    expect(side.get_by_label(detail)).to_have_count(0)


def test_a_stream_that_lost_records_says_so_where_they_are_missing(
    shown: Console, visit: Visit
) -> None:
    (record,) = Connection(1, "shop/a", "data/b", 6001, 10, now_s()).records()
    flows = json.dumps([record])
    body = (
        f"event: flows\nid: a-1\ndata: {flows}\n\n"
        'event: lost\ndata: {"lost": 7}\n\n'
        "event: unheard-of\ndata: {}\n\n"
        f"event: flows\nid: a-2\ndata: {flows}\n\n"
    )
    seen: list[str] = []
    visit.page.on(
        "request",
        lambda request: (
            seen.append(request.headers.get("last-event-id", ""))
            if "/stream" in request.url
            else None
        ),
    )
    # Last come, first asked: whoever comes again waits, so that nothing else is in the table.
    visit.page.route("**/api/v1/stream*", lambda _: None)
    visit.page.route(
        "**/api/v1/stream*",
        lambda route: route.fulfill(body=body, content_type="text/event-stream"),
        times=1,
    )
    page = visit.open(f"{shown.url}/?page=flows&live=1&filter=dst.port+%3D+6001")
    rows = page.get_by_role("table", name="Live flow records").locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("7 records lost")
    expect(page.get_by_text("7 lost")).to_be_visible()
    # It comes back and says what it has.
    block_until(lambda: page.evaluate("1") and len(seen) > 1, lambda: seen)
    assert seen[:2] == ["", "a-2"]
