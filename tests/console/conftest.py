"""One aggregator and one browser for all tests of the console."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from .opened import Console, Visit, browser, console, log_in, new_context, now_s
from .traffic import cluster

PODS = 60


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """What is looked at: an aggregator with the traffic of sixty Pods."""
    now = now_s()
    with console(tmp_path_factory.mktemp("console"), cluster(PODS, now), now) as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for a module: while it is there, its loop runs in this thread, and no other can."""
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def session(shown: Console, chromium: Browser) -> Any:
    """The cookie of somebody who is logged in."""
    context = new_context(chromium)
    log_in(context, shown.url)
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def visit(chromium: Browser, session: Any) -> Iterator[Visit]:
    """A page of somebody who is logged in; whatever goes wrong in it is a test's failure."""
    context = new_context(
        chromium,
        storage_state=session,
        viewport={"width": 1280, "height": 900},
        accept_downloads=True,
    )
    made = Visit(context)
    yield made
    context.close()
    assert made.problems == []
