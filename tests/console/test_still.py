"""What can be clicked stays where it is while answers come, whichever comes first.

What moves between the press of a button and its release takes the click with it.
"""

import random
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from .opened import PAGES, Console, Visit

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("console")]

CHOSEN = {
    "a node of the map": {"chosen": "node:node-0"},
    "an edge of the map": {"chosen": "node:node-0 node:node-1"},
}
MOVED = 1  # px; what of a place is not whole ones
PLACES = """() => [...document.querySelectorAll("a, button, input, select, textarea, tr[tabindex]")]
    .map(each => [each, each.getBoundingClientRect()])"""
SEEN = f"""() => {{ window.seen = new Map(({PLACES})()) }}"""
# What gets a longer text stays where its end is.
GONE = f"""least => ({PLACES})()
    .map(([each, now]) => [each, window.seen.get(each), now])
    .filter(([, was, now]) => was?.width && now.width
        && Math.hypot(Math.min(Math.abs(now.left - was.left), Math.abs(now.right - was.right)),
            now.y - was.y) > least)
    .map(([each, was, now]) => [each.outerHTML.slice(0, 120), was.x, was.y, now.x, now.y])"""


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [*PAGES, *CHOSEN])
def test_nothing_moves_when_an_answer_comes(
    shown: Console, visit: Visit, name: str, seed: int
) -> None:
    page = visit.page
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/api/v1/*", hold)
    page.goto(
        shown.address("map", level="node", **CHOSEN[name]) if name in CHOSEN else shown.link(name)
    )
    drawn = random.Random(seed)
    moved: list[Any] = []
    answered = 0
    while held or page.locator(".skeleton, [aria-busy=true]").count():
        if not held:
            page.wait_for_timeout(50)
            continue
        page.wait_for_timeout(150)  # for what asks at once as well, and what is drawn with a frame
        page.evaluate(SEEN)
        with page.expect_event("requestfinished"):
            held.pop(drawn.randrange(len(held))).continue_()
        answered += 1
        page.wait_for_timeout(150)
        moved += page.evaluate(GONE, MOVED)
    expect(page.locator("main h1")).to_be_attached()
    assert answered > 1
    assert moved == []
