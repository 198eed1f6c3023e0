"""The filter of the bar: completed, applied, and wrong in its place."""

from contextlib import nullcontext
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, Route, expect

from waiting import block_until

from . import read
from .opened import Console, Visit

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]


def query(url: str, name: str) -> str:
    return parse_qs(urlparse(url).query).get(name, [""])[0]


def asked(page: Page) -> str:
    return query(page.url, "filter")


def test_names_and_values_are_completed_by_keyboard(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    page.locator("body").press("/")
    box = page.get_by_role("combobox", name="Filter")
    expect(box).to_be_focused()
    page.keyboard.type("src.names")
    expect(page.get_by_role("option").first).to_contain_text("src.namespace")
    page.keyboard.press("Tab")
    expect(box).to_have_value("src.namespace ")
    page.keyboard.type("= sho")
    expect(page.get_by_role("option", name="shop").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box).to_have_value("src.namespace = shop ")
    page.keyboard.press("Enter")
    page.wait_for_url("**filter=*")
    assert asked(page) == "src.namespace = shop"
    page = visit.answered()
    answer = shown.asked("flows", filter="src.namespace = shop", columns="octetDeltaCount")
    rows = read.table(page, "Flow records")
    assert [row[7] for row in rows] == [row[0] for row in answer["rows"]]
    assert rows
    page.get_by_role("button", name="Clear the filter").click()
    visit.until("!location.search.includes('filter')")


def test_who_types_faster_than_the_answers_gets_the_word(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("src.na")
    expect(page.get_by_role("option").first).to_contain_text("src.namespace")
    page.route("**/complete?*", lambda _: None)  # no answer any more
    page.keyboard.type("mezp")
    expect(page.get_by_role("listbox", name="Completions")).to_have_count(0)
    for _ in "zp":
        page.keyboard.press("Backspace")
    page.unroute("**/complete?*")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").first).to_contain_text("src.namespace")
    page.route("**/complete?*", lambda _: None)
    page.keyboard.type("sp")
    page.keyboard.press("Tab")
    expect(box).to_have_value("src.namespace ")


class Held:
    """Answers of completions that wait until they are let go."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._waiting: list[Route] = []
        self._let_go: set[str] = set()
        page.route("**/complete?*", self._hold)

    def _hold(self, route: Route) -> None:
        if query(route.request.url, "text") in self._let_go:
            route.continue_()
        else:
            self._waiting.append(route)

    def of(self, text: str) -> list[Route]:
        """Return those that wait of a text."""
        return [one for one in self._waiting if query(one.request.url, "text") == text]

    def come(self, text: str) -> Route:
        """Wait for a question of a text."""

        def waits() -> list[Route]:
            self._page.wait_for_timeout(1)  # what happens is heard of in calls only
            return self.of(text)

        return block_until(waits)[0]

    def let_go(self, text: str) -> None:
        """Wait for a question of a text, and have it answered, and others of that text.

        What was typed may have been asked about before Enter asked the same once more.
        """
        self.come(text)
        self._let_go.add(text)
        for one in self.of(text):
            self._waiting.remove(one)
            one.continue_()


def test_what_is_chosen_stays_so_when_an_answer_comes(shown: Console, visit: Visit) -> None:
    """One of a text that somebody has gone on with is offered at once, and answered later."""
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("src.na")
    listed = page.get_by_role("listbox", name="Completions")
    expect(listed).to_contain_text("src.namespace")
    held = Held(page)
    page.keyboard.type("m")
    page.keyboard.press("ArrowDown")
    chosen = listed.get_by_role("option", selected=True)
    expect(chosen).to_contain_text("src.namespace")
    offered = [{"text": text, "help": "answered"} for text in ("src.name", "src.namespace")]
    held.come("src.nam").fulfill(json={"from": 0, "to": 7, "options": offered, "error": None})
    expect(listed).to_contain_text("answered")
    expect(chosen).to_contain_text("src.namespace")
    page.keyboard.press("Enter")
    expect(box).to_have_value("src.namespace ")


def test_what_is_offered_stays_when_a_question_is_given_up(shown: Console, visit: Visit) -> None:
    """As by who types on while the answer to the text before is on its way."""
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("src.na")
    offered = page.get_by_role("listbox", name="Completions")
    expect(offered).to_contain_text("src.namespace")
    held = Held(page)
    text = "src.na"
    for key in "mes":
        with page.expect_event("requestfailed") if text != "src.na" else nullcontext():
            page.keyboard.type(key)
        text += key
        held.come(text)
        expect(offered).to_be_visible()
    page.keyboard.press("Tab")
    expect(box).to_have_value("src.namespace ")


def test_the_last_enter_counts_and_what_is_typed_after_it_stays(
    shown: Console, visit: Visit
) -> None:
    """Whichever answer comes first, and however late."""
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    held = Held(page)
    for text in ("port = 1", "port = 80"):
        box.fill(text)
        box.press("Enter")
    box.press("End")
    page.keyboard.type(" or x")
    held.let_go("port = 80")
    page.wait_for_url("**filter=*")
    assert asked(page) == "port = 80"
    expect(box).to_have_value("port = 80 or x")
    for one in held.of("port = 1"):
        one.continue_()
    box.press("Escape")
    expect(box).to_have_value("port = 80")
    assert asked(page) == "port = 80"


def test_what_completes_another_text_is_not_inserted(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.fill("src.namespce = sho")
    box.press("Enter")
    use = page.get_by_role("button", name="Use src.namespace")
    expect(use).to_be_visible()
    box.press("Home")
    for _ in "src.nam":
        page.keyboard.press("ArrowRight")
    box.press("ArrowDown")
    expect(page.get_by_role("option").first).to_contain_text("src.namespace")
    held = Held(page)
    use.click()
    expect(box).to_have_value("src.namespace = sho")
    held.come("src.namespace = sho")
    box.press("Tab")
    expect(box).to_have_value("src.namespace = sho")


def test_a_wrong_name_is_marked_and_repaired(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("flows"))
    box = page.get_by_role("combobox", name="Filter")
    box.fill("src.namespce = shop")
    box.press("Enter")
    problem = page.locator(".filter-problem")
    expect(problem).to_contain_text("src.namespce")
    expect(page.locator(".underline u")).to_have_text("src.namespce")
    assert asked(page) == ""  # what is wrong is not asked
    problem.get_by_role("button", name="Use src.namespace").click()
    expect(box).to_have_value("src.namespace = shop")
    box.press("Enter")
    page.wait_for_url("**filter=*")
    expect(problem).to_have_count(0)


def test_a_link_with_a_wrong_filter_says_so(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore", filter='"\u00fc" and verdict = droped'))
    expect(page.locator(".underline u")).to_have_text("droped")
    expect(page.locator(".filter-problem")).to_contain_text("dropped")
    expect(page.get_by_role("main")).to_contain_text("marked in the filter above")
    visit.problems.clear()  # the browser's own lines about statuses of 400


def test_what_is_clicked_becomes_a_filter(shown: Console, visit: Visit) -> None:
    page = visit.open(shown.address("explore", by="src.namespace", measure="octets"))
    first = read.table(page, "Groups")[0]
    page.locator('table[aria-label="Groups"] tbody tr').first.click()
    page.wait_for_url("**filter=*")
    assert asked(page) == f"src.namespace = {first[0]}"
    page = visit.answered()
    rows = read.table(page, "Groups")
    assert [row[:2] for row in rows] == [first[:2]]


@pytest.mark.parametrize("name", ["service", "dst.policy", "type", "dst.ip", "verdict", "dst.pod"])
def test_a_row_s_filter_chooses_the_row_s_records(shown: Console, visit: Visit, name: str) -> None:
    asking = {"by": name, "measure": "octets", "chart": "table", "limit": 50}
    page = visit.open(shown.address("explore", **asking, filter="port = 80 or port != 80"))
    groups = read.table(page, "Groups")
    places = {0, len(groups) - 1, *(at for at, row in enumerate(groups) if row[0] == "none")}
    for at in places & set(range(50)):
        row = groups[at]
        page.locator('table[aria-label="Groups"] tbody tr').nth(at).click()
        visit.until("location.search.includes('%29+and+')")
        page = visit.answered()
        assert read.table(page, "Groups") == [row]
        page.go_back()
        visit.until("!location.search.includes('%29+and+')")
        page = visit.answered()
