"""What is shown says what was answered: numbers, times, names, charts of little, tables of much."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from waiting import block_until

from . import read
from .opened import PAGES, Console, Visit, new_context, now_s
from .traffic import Connection

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]


def change(page: Page, path: str, how: Callable[[Any], None]) -> None:
    """Have answers changed on their way."""

    def pass_on(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        how(body)
        route.fulfill(response=answer, json=body)

    page.route(path, pass_on)


def test_a_change_is_said_in_words(shown: Console, visit: Visit) -> None:
    def had_little(body: Any) -> None:
        body["compared"]["rows"] = [[1, 1] for _ in body["rows"]]

    change(visit.page, "**/query?*octets%2Cconnections*", had_little)
    page = visit.open(shown.address(compare="-1d"))
    changes = page.get_by_role("table", name="Top workloads").locator("td:nth-child(4)")
    expect(changes.first).to_contain_text("\u00d7")
    assert not any("e+" in text for text in changes.all_inner_texts())


def test_what_is_left_over_is_not_new(shown: Console, visit: Visit) -> None:
    page = visit.open(
        shown.address("explore", by="src.pod", measure="octets", compare="-1d", limit=20)
    )
    rows = read.table(page, "Groups")
    assert (len(rows), rows[-1][0], rows[-1][3]) == (21, "other", "\u2013")
    assert rows[0][3] == "new"
    expect(page.get_by_label("Top")).to_have_value("20")  # none of those that are offered


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        ("-900s", "Last 15 minutes"),
        ("now-2h", "Last 2 hours"),
        ("-90m", "Last 90 minutes"),
        ("-24h", "Last 24 hours"),
        ("2026-01-31T12:00:00Z", "2026-01-31 12:00:00 \u2013 now"),
    ],
)
def test_a_range_that_moves_has_a_name_that_stays(
    shown: Console, visit: Visit, beginning: str, name: str
) -> None:
    page = visit.open(f"{shown.url}/?page=nodes&from={beginning.replace('+', '%2B')}")
    expect(page.get_by_role("button", name="Time range:")).to_contain_text(name)
    tip = page.get_by_role("button", name="Hold", exact=True).get_attribute("data-tip")
    assert tip is not None
    assert "." not in tip


def test_days_are_said_where_there_are_several(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("map", **{"from": shown.to_ms - 3 * 86_400_000}))
    page.get_by_role("slider", name="Moment of the range").press("Home")
    begin = page.evaluate("ms => new Date(ms).getDate()", shown.to_ms - 3 * 86_400_000)
    expect(page.locator(".playback .num")).to_contain_text(f"-{begin:02} ")
    page = visit.open(shown.address("explore", **{"from": shown.to_ms - 3 * 86_400_000}))
    page.get_by_role("button", name="Answers:").click()
    expect(page.get_by_role("table", name="Answers")).to_contain_text(f"-{begin:02} ")


def test_what_was_not_looked_through_is_not_said_to_be_old(shown: Console, visit: Visit) -> None:
    def all_known(body: Any) -> None:
        body["compared"]["rows"] = [[1] for _ in body["rows"]]
        body["other"] = [5]

    change(visit.page, "**/query?*bothOctets*", all_known)
    page = visit.open(shown.address())
    expect(page.get_by_role("main")).to_contain_text("that talk most, nothing talks that did not")


def test_policies_that_are_not_listed_are_said(shown: Console, visit: Visit) -> None:
    def more(body: Any) -> None:
        policy = body["policies"][0]
        rule = policy["rules"][0]
        policy["rules"] = [rule, rule | {"name": "second", "octets": 10**9}]
        body["more"] = 7

    change(visit.page, "**/api/v1/policies*", more)
    page = visit.open(shown.address("policies"))
    expect(page.get_by_role("main")).to_contain_text("And 7 further policies")
    # A rule is seen to be of its policy in any order.
    page.get_by_role("button", name="Bytes").click()
    first = page.locator('table[aria-label="Policies and rules"] tbody tr').first
    expect(first).to_contain_text("second")
    assert "deny-others" in first.inner_text()


def test_an_order_is_what_it_is_said_to_be(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("map"))
    head = page.get_by_role("table", name="On the map").get_by_role("columnheader", name="Name")

    def names() -> list[str]:
        return [row[0] for row in read.table(page, "On the map")]

    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert names() == sorted(names())
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    assert names() == sorted(names(), reverse=True)


def test_each_measure_is_called_what_it_is(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore"))
    measures = {each["name"] for each in shown.api("fields")["measures"]}
    options = page.get_by_label("Measure").locator("option")
    called = dict(zip(options.evaluate_all("all => all.map((each) => each.value)"),
                      options.all_inner_texts(), strict=True))  # fmt: skip
    assert measures == set(called)
    assert not measures & set(called.values())
    assert called["live"] == "Connections seen"  # those that ended are among them


def test_a_chart_of_one_interval_shows_it(shown: Console, visit: Visit) -> None:
    second = shown.connections[0].end_s // 10 * 10
    span: dict[str, Any] = {"from": second * 1000, "to": second * 1000 + 10_000}
    page = visit.open(shown.address("explore", by="none", measure="octets", interval="10s", **span))
    (row,) = read.table(page, "Groups")
    assert row[0] > 0
    height = page.locator(".chart svg g rect").first.evaluate("bar => bar.getBBox().height")
    assert height > 50
    page.get_by_role("button", name="Lines").click()
    line = page.locator(".chart svg path[stroke-width]").first
    assert line.evaluate("line => line.getTotalLength()") > 500
    page = visit.open(shown.address(**span))
    lines = page.locator(".tiles .spark path").evaluate_all(
        "all => all.map(each => each.getTotalLength())"
    )
    assert all(length > 0 for length in lines)


def test_a_chart_waits_for_its_series(shown: Console, visit: Visit) -> None:
    """An answer that is of a table has none; its times are not 1970 until now."""
    page = visit.open(shown.address("explore", chart="table"))
    page.route("**/query?*", lambda _: None)
    page.get_by_role("button", name="Lines").click()
    expect(page.get_by_role("button", name="Lines")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".chart text")).to_have_count(0)


def test_what_is_under_the_pointer_is_of_the_chart(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore", interval="10s"))
    box = page.locator(".chart .plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    expect(page.locator(".chart-tip")).to_be_visible()
    page.get_by_label("Interval").select_option("5m")  # the pointer stays where it is
    page = visit.answered()
    expect(page.locator("body")).not_to_contain_text("1970-")


def test_a_sankey_comes_after_nothing_flowed(shown: Console, visit: Visit) -> None:
    page = visit.open(
        shown.address(
            "explore",
            by="src.namespace,dst.namespace",
            chart="sankey",
            measure="denied",
            filter="dst.port = 80",
        )
    )
    expect(page.get_by_role("main")).to_contain_text("Nothing flows")
    page.get_by_label("Measure").select_option("octets")
    expect(page.locator(".sankey path.link")).not_to_have_count(0)


def test_sql_shows_what_is_more_than_one_value(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("sql", query="SELECT map('a', 1) AS m, [1, 2] AS a, 'x' AS s"))
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("table", name="Rows of the query")).to_be_visible()
    expected = ['{"a":1}', "[1,2]", "x"]
    assert read.table(page, "Rows of the query") == [expected]
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    text = download.value.path().read_text()
    assert list(csv.reader(io.StringIO(text)))[1] == expected


def test_sql_shows_all_of_a_long_text(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("sql", query="SELECT repeat('long ', 100) AS text"))
    page.get_by_role("button", name="Run").click()
    page.get_by_role("table", name="Rows of the query").locator("tbody td").hover()
    expect(page.get_by_role("tooltip")).to_have_text(("long " * 100).strip())


def test_a_link_to_a_record_leads_to_that_one(shown: Console, visit: Visit) -> None:
    """Whatever the range is by then, and not to another interval of its connection."""
    one = next(each for each in shown.connections if "/" in each.target and not each.denied)

    def flow(end_s: int) -> str:
        source = f"10.1.0.{one.number},{30_000 + one.number}"
        return f"{source},10.2.0.{one.number},{one.port},6,{end_s * 1000}"

    later = {"from": shown.to_ms, "to": shown.to_ms + 1000}
    page = visit.open(shown.address("flows", flow=flow(one.end_s), **later))
    side = page.get_by_role("complementary", name="Flow record")
    expect(side.get_by_role("table", name="Counters")).to_be_visible()
    assert read.table(page, "Counters")[0][1] == one.octets
    page = visit.open(shown.address("flows", flow=flow(one.end_s - 1)))
    expect(side).to_contain_text("There is no such record any more")
    assert read.table(page, "Intervals")[0][1] == one.octets


@pytest.mark.parametrize("range_of_it", [True, False])
def test_the_intervals_beside_a_record_are_of_what_began_with_it(
    shown: Console, visit: Visit, range_of_it: bool
) -> None:
    """Others had the same ports before; pings between two ends have none at all."""
    one = next(each for each in shown.connections if "/" in each.target and not each.denied)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    source = f"10.1.0.{one.number},{30_000 + one.number}"
    flow = f"{source},10.2.0.{one.number},{one.port},6,{one.end_s * 1000}"
    span = {} if range_of_it else {"from": shown.to_ms, "to": shown.to_ms + 1000}
    page = visit.open(shown.address("flows", flow=flow, filter=f"dst.port = {one.port}", **span))
    expect(page.get_by_role("table", name="Counters")).to_be_visible()
    begins = f"flowStartSeconds = {(one.end_s - 10 * one.intervals) * 1000}"
    filters = [parse_qs(urlparse(url).query).get("filter", [""])[0] for url in asked]
    (its,) = {each for each in filters if begins in each}
    assert len(shown.asked("flows", filter=its)["rows"]) > 0
    other = its.replace(begins, f"flowStartSeconds = {(one.end_s - 31) * 1000}")
    assert shown.asked("flows", filter=other)["rows"] == []


def recorded(number: int, end_s: int, **fields: object) -> dict[str, Any]:
    (record,) = Connection(number, "shop/a", "data/b", 6001, 10, end_s).records()
    return record | {f"{key}": value for key, value in fields.items()}


def events(records: list[dict[str, Any]], last: str) -> str:
    return f"event: flows\nid: {last}\ndata: {json.dumps(records)}\n\n"


def test_a_live_record_stays_the_same_row(shown: Console, visit: Visit) -> None:
    """Also when there are as many as are kept, and as one goes when one comes."""
    now = now_s()
    many = [recorded(number, now - 10) for number in range(2100)]
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/api/v1/stream*", hold)
    visit.page.route(
        "**/api/v1/stream*",
        lambda route: route.fulfill(body=events(many, "a-1"), content_type="text/event-stream"),
        times=1,
    )
    page = visit.open(f"{shown.url}/?page=flows&live=1&columns=sourceTransportPort")
    rows = page.get_by_role("table", name="Live flow records").locator("tbody tr")
    expect(rows.first).to_contain_text("32099")
    rows.nth(3).focus()
    visit.until("document.activeElement.textContent === '32096'")
    block_until(lambda: page.evaluate("1") and held)
    held[0].fulfill(
        body=events([recorded(9000, now), recorded(9001, now)], "a-2"),
        content_type="text/event-stream",
    )
    expect(rows.first).to_contain_text("39001")
    assert page.evaluate("document.activeElement.textContent") == "32096"


def test_a_record_with_no_time_has_none(shown: Console, visit: Visit) -> None:
    odd = recorded(1, now_s(), flowEndMilliseconds=1 << 62)
    visit.page.route("**/api/v1/explain*", lambda _: None)  # the store does not have it
    visit.page.route("**/api/v1/stream*", lambda _: None)
    visit.page.route(
        "**/api/v1/stream*",
        lambda route: route.fulfill(body=events([odd], "a-1"), content_type="text/event-stream"),
        times=1,
    )
    page = visit.open(f"{shown.url}/?page=flows&live=1")
    page.get_by_role("table", name="Live flow records").locator("tbody tr").first.click()
    facts = page.locator(".record .facts").first
    expect(facts).to_contain_text("Record's end")
    expect(facts).not_to_contain_text("1970")
    expect(facts).not_to_contain_text("after")


def test_what_waits_while_the_page_is_held_is_counted(shown: Console, visit: Visit) -> None:
    """Also beyond what is kept; and what went by while there was no connection is said."""
    now = now_s()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/api/v1/stream*", hold)
    page = visit.open(f"{shown.url}/?page=flows&live=1&columns=sourceTransportPort")
    page.locator("main").get_by_role("button", name="Hold").click()
    block_until(lambda: page.evaluate("1") and held)
    many = [recorded(number, now - 10) for number in range(2300)]
    lost = 'event: lost\ndata: {"lost": 7}\n\n'
    held[0].fulfill(
        body=events(many[:300], "a-1") + lost + events(many[300:], "a-2"),
        content_type="text/event-stream",
    )
    expect(page.locator("main")).to_contain_text("2300 waiting")
    expect(page.locator("main")).to_contain_text("7 lost")
    page.locator("main").get_by_role("button", name="Go on").click()
    rows = page.get_by_role("table", name="Live flow records").locator("tbody tr")
    expect(rows.first).to_contain_text("32299")
    expect(page.locator("main")).not_to_contain_text("waiting")


def test_a_table_that_is_short_and_long_again_has_its_rows(shown: Console, visit: Visit) -> None:
    answer = shown.asked("flows", limit=1, columns="*")
    names = [each["name"] for each in answer["columns"]]
    port = names.index("sourceTransportPort")

    def page_of(route: Route) -> None:
        cursor = parse_qs(urlparse(route.request.url).query).get("cursor", ["0"])[0]
        first = int(cursor)
        rows = []
        for number in range(first, first + 200):
            row = list(answer["rows"][0])
            row[port] = number
            rows.append(row)
        cut = {"rows": rows, "cursor": str(first + 200) if first < 800 else None}
        route.fulfill(json=answer | cut)

    visit.page.route("**/api/v1/flows*", page_of)
    page = visit.open(shown.address("flows", columns="sourceTransportPort"))
    box = page.locator(".table-box.scrolls")
    status = page.locator(".panel header .aside")

    def to_the_end(rows: int) -> None:
        def there() -> bool:
            box.evaluate("box => box.scrollTo(0, box.scrollHeight)")
            # Who stays at the end gets the next page as well.
            return int(status.locator("[data-value]").get_attribute("data-value") or 0) >= rows

        block_until(there, status.inner_text)

    to_the_end(1000)
    visit.until(
        """(box => {
            box.scrollTo(0, box.scrollHeight);
            return box.textContent.includes("999");
        })(document.querySelector(".table-box.scrolls"))"""
    )
    page.get_by_role("button", name="Ask again").click()
    shown_rows = "Number(document.querySelector('.panel header .aside [data-value]').dataset.value)"
    visit.until(f"{shown_rows} < 1000")
    to_the_end(400)
    visit.until(
        """(box => {
            const {top, bottom} = box.getBoundingClientRect();
            return [...box.querySelectorAll("tbody tr[tabindex]")].filter(row => {
                const at = row.getBoundingClientRect();
                return at.bottom > top && at.top < bottom;
            }).length > 10;
        })(document.querySelector(".table-box.scrolls"))"""
    )


def test_keys_of_the_browser_stay_the_browser_s(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("map"))
    pressed = """([key, ctrlKey]) => document.querySelector("canvas").dispatchEvent(
        new KeyboardEvent("keydown", {key, ctrlKey, bubbles: true, cancelable: true}))"""
    assert page.evaluate(pressed, ["0", True])
    assert not page.evaluate(pressed, ["0", False])


def test_the_focus_goes_on_where_it_was(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    row = page.locator('table[aria-label="Flow records"] tbody tr').nth(2)
    row.press("Enter")
    page.get_by_role("button", name="Close").press("Enter")
    expect(row).to_be_focused()
    page.get_by_role("button", name="Time range:").press("Enter")
    page.get_by_role("button", name="Last hour").press("Enter")
    expect(page.get_by_role("button", name="Time range:")).to_be_focused()
    page = visit.open(shown.address("map"))
    page.locator('table[aria-label="On the map"] tbody tr').first.press("Enter")
    expect(page.get_by_role("complementary", name="What is chosen")).to_be_focused()
    page = visit.open(shown.address("explore", filter="namespace = shop"))
    page.get_by_role("button", name="Without src.namespace").press("Enter")
    expect(page.get_by_label("Add a dimension")).to_be_focused()
    page.get_by_role("button", name="Clear the filter").press("Enter")
    expect(page.get_by_role("combobox", name="Filter")).to_be_focused()


def test_the_way_back_is_asked_as_it_was(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("policies", would="203.0.113.7,198.51.100.9:443"))
    page.get_by_label("Destination and port").fill("198.51.100.9:80")
    page.get_by_role("button", name="Explain").click()
    visit.until("location.search.includes('9:80')")
    page.go_back()
    expect(page.get_by_label("Destination and port")).to_have_value("198.51.100.9:443")


def test_what_is_wrong_far_in_a_filter_is_marked_where_it_is(shown: Console, visit: Visit) -> None:
    long = " or ".join(f"dst.port = {port}" for port in range(1000, 1040))
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.fill(f"{long} or verdict = droped")
    box.press("Enter")
    mark = page.locator(".underline u")
    expect(mark).to_have_text("droped")
    box.press("End")
    field = box.bounding_box()
    assert field is not None
    visit.until(
        "document.querySelector('.underline u').getBoundingClientRect().right"
        f" < {field['x'] + field['width']}"
    )
    place = mark.bounding_box()
    assert place is not None
    assert place["x"] > field["x"]


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_page_is_as_wide_as_its_window(
    shown: Console, chromium: Browser, session: Any, name: str
) -> None:
    context = new_context(chromium, storage_state=session, viewport={"width": 420, "height": 800})
    visit = Visit(context)
    page = visit.open(shown.link(name))
    # What is wider than it may be scrolls in its own place, and nothing is beyond the edge.
    beyond = """() => [...document.querySelectorAll("main .panel, .tile, header.bar > *")]
        .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
        .map(each => each.className)"""
    assert page.evaluate(beyond) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    assert (
        page.evaluate(
            "(main => main.scrollWidth - main.clientWidth)(document.querySelector('main'))"
        )
        == 0
    )
    context.close()
    assert visit.problems == []


def test_days_are_days_over_the_setting_of_clocks(
    shown: Console, chromium: Browser, session: Any
) -> None:
    """On 25 October 2026 clocks in Berlin are set back."""
    context = new_context(chromium, storage_state=session, timezone_id="Europe/Berlin")
    visit = Visit(context)
    begin, hour = 1_792_792_800_000, 3_600_000  # 2026-10-24T00:00 there

    def of_days(body: Any) -> None:
        times = [begin + each * hour for each in range(120)]
        body["times"] = times
        body["series"] = [[[1 for _ in times] for _ in group] for group in body["series"]]
        body["answer"] |= {"from": begin, "to": begin + 120 * hour}

    change(visit.page, "**/api/v1/query*", of_days)
    page = visit.open(shown.address("explore"))
    labels = page.locator(".chart svg > text").all_text_contents()
    assert [each for each in labels if "-" in each] == [f"10-{day}" for day in range(24, 29)]
    assert all("-" in each or each == "12:00" for each in labels)
    context.close()


def test_who_marks_a_part_of_a_row_does_not_open_it(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    before = page.url
    time = page.locator('table[aria-label="Flow records"] tbody td').first
    box = time.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 14, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, middle, steps=4)
    page.mouse.up()
    assert page.evaluate("String(document.getSelection()).length > 0")
    assert page.url == before
    time.click()
    visit.until("location.search.includes('flow=')")


def test_no_character_is_cut_in_two(shown: Console, visit: Visit) -> None:
    faces = "\U0001f600" * 20

    def with_faces(body: Any) -> None:
        body["rows"][0][0] = f"x{faces}"

    change(visit.page, "**/api/v1/query*", with_faces)
    page = visit.open(shown.address("explore", by="src.namespace", chart="heat"))
    name = page.get_by_role("table", name="Groups").locator("tbody .name").first
    assert name.locator("[aria-hidden]").all_text_contents() == [f"x{faces[:13]}", faces[:7]]
    expect(page.locator(".heat svg text").first).to_have_text(f"x{faces}")


def test_long_names_stay_within_their_place(shown: Console, visit: Visit) -> None:
    name = "long-name" * 20

    def long(body: Any) -> None:
        body["connections"][0]["source"]["text"] = name.replace("-", "")

    change(visit.page, "**/api/v1/explain*", long)
    page = visit.open(shown.address("policies"))
    page.locator('table[aria-label="Denied connections"] tbody tr').first.click()
    told = page.locator(".explained")
    expect(told).to_contain_text(name.replace("-", ""))
    assert told.evaluate("told => told.scrollWidth <= told.clientWidth")
    right = "each => each.getBoundingClientRect().right"
    assert told.locator("h3").evaluate(right) <= told.evaluate(right)


def test_a_name_is_written_in_its_own_direction(shown: Console, visit: Visit) -> None:
    name = "\u05e9\u05dc\u05d5\u05dd-\u05e2\u05d5\u05dc\u05dd-\u05d0\u05d1\u05d2\u05d3-\u05d4\u05d5"

    def leftwards(body: Any) -> None:
        body["rows"][0][0] = name

    change(visit.page, "**/api/v1/query*", leftwards)
    page = visit.open(shown.address("explore", by="src.namespace"))
    shown_name = page.get_by_role("table", name="Groups").locator("tbody .name").first
    assert shown_name.locator("span").all_text_contents() == [name]
