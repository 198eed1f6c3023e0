"""How the console asks: answers that are slow, late, refused, cut off, or of a question before."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from waiting import PATIENCE_S, block_until

from . import read
from .opened import TOKEN, Console, Visit, log_in, new_context

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]

AWAY = {"error": {"code": "unavailable", "message": "The store is away."}}
MANY = {"error": {"code": "too-many", "message": "Others ask."}}
STRANGER = {"error": {"code": "unauthorized", "message": "Who are you?"}}


def refuse(page: Page, path: str, status: int, answer: dict[str, Any], times: int) -> None:
    page.route(path, lambda route: route.fulfill(status=status, json=answer), times=times)


class Held:
    """Questions that wait until they are let go; who gives one up is noted."""

    def __init__(self, page: Page, path: str, holds: Callable[[Request], bool]) -> None:
        self.given_up: list[str] = []
        self.waiting: list[Route] = []
        self._page = page
        self._holds = holds
        page.on("requestfailed", self._note)
        page.route(path, self._take)

    def _note(self, request: Request) -> None:
        if self._holds(request):
            self.given_up.append(request.url)

    def _take(self, route: Route) -> None:
        if self._holds(route.request):
            self.waiting.append(route)
        else:
            route.continue_()

    def come(self, count: int = 1) -> None:
        """Wait until so many are there."""

        def there() -> bool:
            self._page.wait_for_timeout(1)  # what happens is heard of in calls only
            return len(self.waiting) >= count

        block_until(there)

    def let_go(self) -> None:
        """Have all of them answered, and those that come."""
        self._holds = lambda _: False
        for route in self.waiting:
            route.continue_()


def measured(request: Request) -> str:
    return parse_qs(urlparse(request.url).query).get("measure", [""])[0]


def count(page: Page, part: str) -> list[str]:
    """Requests with a part in their address, as they come."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url) if part in request.url else None)
    return seen


def until_more(page: Page, seen: list[str], than: int) -> None:
    block_until(lambda: page.evaluate("1") and len(seen) > than, lambda: seen)


def test_who_answers_slowly_is_waited_for(shown: Console, visit: Visit) -> None:
    """What the others of the page would be asked next does not end its question."""
    page = visit.page
    page.clock.install()
    held = Held(page, "**/api/v1/query*", lambda request: measured(request) == "denied")
    nodes = count(page, "/api/v1/nodes")
    page.goto(f"{shown.url}/?from=-30m")
    held.come()
    expect(page.get_by_role("table", name="Nodes")).to_be_visible()
    expect(page.get_by_role("table", name="Top workloads")).to_be_visible()
    asked = len(nodes)
    for _ in range(3):
        page.clock.fast_forward(20_000)
    assert (held.given_up, len(nodes)) == ([], asked)
    held.let_go()
    expect(page.get_by_role("table", name="Denied connections")).to_be_visible()
    until_more(page, nodes, asked)


def test_what_is_kept_of_an_earlier_answer_is_said_to_be(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore", by="src.namespace", measure="octets"))
    before = read.table(page, "Groups")
    page.route("**/api/v1/query*", lambda route: route.fulfill(status=503, json=AWAY))
    page.get_by_role("button", name="Ask again").click()
    said = page.get_by_role("status")
    expect(said).to_contain_text("The store is away. What is shown is of 20")
    assert read.table(page, "Groups") == before
    page.unroute("**/api/v1/query*")
    page.get_by_role("button", name="Ask again").click()
    expect(said).to_have_count(0)
    visit.problems.clear()  # the browser's own lines about statuses


def test_no_books_are_shown_of_what_is_not(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore", measure="octets"))
    expect(page.get_by_role("button", name="Answers:")).to_be_visible()
    costly = {"error": {"code": "too-costly", "message": "It reads too much."}}
    refuse(page, "**/api/v1/query*", 422, costly, 1)
    page.get_by_label("Measure").select_option("packets")
    expect(page.get_by_role("alert")).to_contain_text("too much")
    expect(page.get_by_role("button", name="Answers:")).to_have_count(0)
    visit.problems.clear()


@pytest.mark.parametrize("path", ["me", "fields"])
def test_who_looks_is_asked_until_it_is_answered(shown: Console, visit: Visit, path: str) -> None:
    refuse(visit.page, f"**/api/v1/{path}", 429, MANY, 1)
    page = visit.page
    page.goto(shown.address("nodes"))
    expect(page.get_by_role("alert")).to_contain_text("Others ask.")
    expect(page.get_by_role("table", name="Nodes")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    broken = {"error": {"code": "internal", "message": "It broke."}}
    refuse(page, f"**/api/v1/{path}", 500, broken, 1)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("It broke.")
    page.get_by_role("alert").get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("table", name="Nodes")).to_be_visible()
    visit.problems.clear()


def test_a_link_with_a_token_that_cannot_be_exchanged_yet_is(
    shown: Console, chromium: Browser
) -> None:
    context = new_context(chromium)
    page = context.new_page()
    refuse(page, "**/api/v1/session", 429, MANY, 1)
    page.goto(f"{shown.address('nodes')}#token={TOKEN}")
    expect(page.get_by_role("table", name="Nodes")).to_be_visible()
    context.close()


def test_a_link_with_a_token_opens_where_a_console_already_is(
    shown: Console, chromium: Browser
) -> None:
    context = new_context(chromium)
    page = context.new_page()
    page.goto(shown.address("nodes"))
    page.get_by_label("Token").wait_for()
    page.goto(f"{shown.address('nodes')}#token={TOKEN}")  # no page is loaded anew for it
    expect(page.get_by_role("table", name="Nodes")).to_be_visible()
    assert "#" not in page.url
    context.close()


def _run(page: Page) -> None:
    expect(page.locator(".who")).to_be_visible()
    page.get_by_role("button", name="Run").click()


@pytest.mark.parametrize(
    ("asking", "path", "act"),
    [
        ({"page": "sql"}, "sql", _run),
        ({"page": "flows", "live": 1}, "stream", lambda _: None),
        ({"page": "nodes"}, "nodes", lambda _: None),
    ],
)
def test_whose_session_is_over_is_asked_who_they_are(
    shown: Console, visit: Visit, asking: dict[str, Any], path: str, act: Callable[[Page], None]
) -> None:
    refuse(visit.page, f"**/api/v1/{path}*", 401, STRANGER, 1)
    visit.page.goto(shown.address(**asking))
    act(visit.page)
    expect(visit.page.get_by_label("Token")).to_be_visible()
    visit.problems.clear()


def test_a_stream_that_is_refused_is_begun_anew_when_asked(shown: Console, visit: Visit) -> None:
    costly = {"error": {"code": "too-costly", "message": "It takes too long."}}
    refuse(visit.page, "**/api/v1/stream*", 422, costly, 1)
    page = visit.open(shown.address("flows", live=1))
    expect(page.get_by_role("alert")).to_contain_text("It takes too long.")
    page.get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("main")).to_contain_text("as they come")
    visit.problems.clear()


def test_a_wrong_filter_of_a_stream_is_marked(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows", live=1, filter="verdict = droped"))
    expect(page.locator(".underline u")).to_have_text("droped")
    visit.problems.clear()


def test_nodes_are_those_of_now_whatever_the_range(shown: Console, visit: Visit) -> None:
    visit.page.clock.install()
    asked = count(visit.page, "/api/v1/nodes")
    queries = count(visit.page, "/api/v1/query")
    page = visit.open(shown.address("nodes", node="node-0"))
    before, range_too = len(asked), len(queries)
    page.clock.fast_forward(60_000)
    until_more(page, asked, before)
    assert len(queries) == range_too


def test_a_page_that_could_not_be_loaded_is_no_end_of_the_others(
    shown: Console, visit: Visit
) -> None:
    visit.page.route("**/assets/Explore-*.js", lambda route: route.abort())
    page = visit.open(shown.address("nodes"))
    page.get_by_role("link", name="Explore").click()
    expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    page.get_by_role("link", name="Nodes").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("table", name="Nodes")).to_be_visible()
    visit.problems.clear()


def test_a_map_is_played_no_faster_than_it_is_answered(shown: Console, visit: Visit) -> None:
    visit.page.clock.install()
    page = visit.open(shown.address("map"))
    held = Held(page, "**/api/v1/graph*", lambda _: True)
    page.get_by_role("button", name="Play the range").click()
    held.come()
    for _ in range(3):
        page.clock.fast_forward(5000)
    begin = parse_qs(urlparse(page.url).query)["at"][0].partition(",")[0]
    assert (held.given_up, begin) == ([], str(shown.from_ms))
    held.let_go()
    visit.until(f"!location.search.includes('at={shown.from_ms}')")
    page.get_by_role("button", name="Hold", exact=True).click()


def test_what_is_lost_is_counted_once_for_all_answers(shown: Console, visit: Visit) -> None:
    """Answers of one page are a moment apart, and each counts what is lost by then."""
    told = iter(range(10, 10_000))

    def lose(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        records = next(told)
        body["answer"] |= {
            "complete": False,
            "missing": [
                {
                    "node": None, "stage": "correlator", "reason": "full", "records": records,
                    "from": shown.from_ms, "to": shown.to_ms,
                    "text": f"{records} records were dropped at correlator: full",
                }
            ],
        }  # fmt: skip
        route.fulfill(response=answer, json=body)

    visit.page.route("**/api/v1/query*", lose)
    page = visit.open(shown.address())
    most = next(told) - 1
    button = page.get_by_role("button", name="Answers:")
    expect(button).to_contain_text(f"{most} records missing")
    button.click()
    expect(page.locator(".books-body > p", has_text="at correlator: full")).to_have_count(1)


def test_what_was_to_be_asked_while_nobody_looked_is_asked_then(
    shown: Console, visit: Visit
) -> None:
    page = visit.page
    page.clock.install()
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', {get: () => window.away === true})"
    )
    visit.open(shown.address("explore"))
    refuse(page, "**/api/v1/query*", 429, MANY, 1)
    page.evaluate("window.away = true")
    page.get_by_label("Measure").select_option("packets")
    expect(page.get_by_role("alert")).to_contain_text("asked again in a moment")
    page.clock.fast_forward(60_000)
    expect(page.get_by_role("alert")).to_be_visible()
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_role("heading", name="Packets by")).to_be_visible()
    expect(page.get_by_role("table", name="Groups")).to_be_visible()
    visit.problems.clear()


class Breaking(BaseHTTPRequestHandler):
    """Passes on to an aggregator; what has a word in its path breaks off in its answer, once."""

    to: str
    words: list[str]

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def _pass_on(self, body: bytes | None) -> None:
        request = UrlRequest(f"{self.to}{self.path}", body)
        for name in ("X-Flowvis", "Cookie", "Content-Type", "Last-Event-ID"):
            if value := self.headers.get(name):
                request.add_header(name, value)
        with urlopen(request, timeout=PATIENCE_S) as answer:
            content = answer.read()
            self.send_response(answer.status)
            for name in ("Content-Type", "Set-Cookie"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        broken = [word for word in self.words if word in self.path]
        for word in broken:
            self.words.remove(word)
        self.wfile.write(content[: len(content) // 2] if broken else content)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its own name
        """Say nothing."""


def test_an_answer_whose_connection_ends_is_asked_again(shown: Console, chromium: Browser) -> None:
    """Also of who one is; where only a button asks, that says so."""
    Breaking.to, Breaking.words = shown.url, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as between:
        thread = Thread(target=between.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{between.server_port}"
            context = new_context(chromium)
            log_in(context, url)
            page = context.new_page()
            Breaking.words += ["/me", "/query"]
            asking = shown.address("explore").replace(shown.url, url)
            page.goto(asking)
            expect(page.get_by_role("table", name="Groups")).to_be_visible()
            assert Breaking.words == []
            page.goto(shown.address("sql", query="SELECT 1 AS one").replace(shown.url, url))
            Breaking.words.append("/sql")
            page.get_by_role("button", name="Run").click()
            expect(page.get_by_role("alert")).to_contain_text("cut off")
            page.get_by_role("button", name="Ask again").click()
            expect(page.get_by_role("columnheader", name="one")).to_be_visible()
            context.close()
        finally:
            between.shutdown()
            thread.join()
