"""An aggregator with a store and its API on TCP, and pages of it in a browser."""

import contextlib
import json
import os
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from aggregator.harness import Aggregator, deliver, exported, running
from waiting import PATIENCE_S, block_until

from .traffic import OUTSIDE, Connection

TOKEN = "token-of-the-console-tests-1234567890"
TOKEN_OF_SHOP = "token-of-who-may-see-shop-1234567890"
CHROMIUM = "/usr/bin/chromium"
PARTNERS = "partners/eu (old)"
"""What the configuration calls the network outside."""
DATACENTRE = "dc"
"""And another one, by a name that might be a piece of an address."""
PATIENCE_MS = PATIENCE_S * 1000
BATCH = 500

expect.set_options(timeout=PATIENCE_MS)

PAGES: dict[str, dict[str, str]] = {
    "overview": {},
    "map": {},
    "map-workloads": {"page": "map", "level": "workload"},
    "flows": {},
    "explore": {"by": "src.namespace,dst.namespace"},
    "explore-sankey": {"page": "explore", "by": "src.namespace,dst.namespace", "chart": "sankey"},
    "explore-heat": {"page": "explore", "by": "src.workload", "chart": "heat"},
    "policies": {},
    "nodes": {},
    "sql": {},
}
"""What there is to look at, and what is asked on it; a name is the page's unless it says so."""


@dataclass(frozen=True)
class Console:
    """Where an aggregator's console is, and what it was given to show."""

    aggregator: Aggregator
    connections: Sequence[Connection]
    from_ms: int
    to_ms: int

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self.aggregator.control.get('status')['apiPort']}"

    def api(self, path: str, token: str = TOKEN, **parameters: object) -> Any:
        """What the API answers to whoever has a token."""
        query = urllib.parse.urlencode({k: v for k, v in parameters.items() if v != ""})
        request = Request(f"{self.url}/api/v1/{path}?{query}")
        request.add_header("Authorization", f"Bearer {token}")
        with urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def asked(self, path: str, **parameters: object) -> Any:
        """The same over the range that the connections are in."""
        return self.api(path, TOKEN, **{"from": self.from_ms, "to": self.to_ms, **parameters})

    def address(self, page: str = "overview", **parameters: object) -> str:
        """A link to a page that shows the connections' range."""
        given = {"page": page, "from": self.from_ms, "to": self.to_ms} | parameters
        return f"{self.url}/?{urllib.parse.urlencode(given)}"

    def link(self, name: str) -> str:
        """A link to one of the pages."""
        given: dict[str, object] = {"page": name, **PAGES[name]}
        return self.address(str(given.pop("page")), **given)


@contextlib.contextmanager
def console(path: Path, connections: Sequence[Connection], now_s: int) -> Iterator[Console]:
    """Run an aggregator that has got the connections' records and stored them."""
    tokens = path / "tokens"
    tokens.write_text(f"{TOKEN} tester\n{TOKEN_OF_SHOP} sam shop\n")
    tokens.chmod(0o600)
    settings = {
        "clickHouse": {
            "enable": True,
            "databaseURL": f"embedded://{path / 'store'}",
            "commitInterval": "1s",
        },
        "networks": [
            {"name": PARTNERS, "cidrs": [f"{OUTSIDE}/30"]},
            {"name": DATACENTRE, "cidrs": ["192.0.2.8/29"]},
        ],
        "apiServer": {"apiPort": 0, "tls": False, "tokenFile": str(tokens)},
    }
    records = [record for each in connections for record in each.records()]
    with running(path / "aggregator", settings) as aggregator:
        for first in range(0, len(records), BATCH):
            report(aggregator, *records[first : first + BATCH])
        aggregator.settled(len(records))
        made = Console(aggregator, connections, (now_s - 900) * 1000, now_s * 1000)
        if records:
            block_until(
                lambda: aggregator.sql("SELECT count() FROM flows") == [[stored(aggregator)]],
                aggregator.log,
            )
        yield made


def report(aggregator: Aggregator, *records: dict[str, Any]) -> None:
    """Send records as an exporter does; in a thread, as Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(deliver, aggregator, exported(*records)).result()


def stored(aggregator: Aggregator) -> int:
    """How many records the aggregator says that the store has."""
    books = aggregator.books()
    (sink,) = [books[name] for name in books if "clickhouse" in name.lower()]
    return int(sink["sent"])


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        # Tests run as root, where Chromium's own sandbox does not.
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield chromium
        finally:
            chromium.close()


def new_context(chromium: Browser, **options: Any) -> BrowserContext:
    """Return a context of a browser, in which all is waited for as long as elsewhere."""
    made = chromium.new_context(**options)
    made.set_default_timeout(PATIENCE_MS)
    return made


class Visit:
    """A page of the console; notes what goes wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "console",
            lambda message: (
                self.problems.append(message.text) if message.type in {"error", "warning"} else None
            ),
        )

    def open(self, address: str) -> Page:
        """Go to an address and wait until its answers are there."""
        self.page.goto(address)
        return self.answered()

    def answered(self) -> Page:
        """Wait until nothing on the page waits for an answer."""
        expect(self.page.locator("main h1")).to_be_attached()
        expect(self.page.locator(".skeleton, [aria-busy=true]")).to_have_count(0)
        return self.page

    def until(self, script: str) -> None:
        """Wait until an expression holds in the page (by the debugger: pages may not eval)."""
        block_until(lambda: bool(self.page.evaluate(script)), lambda: f"{script}: {self.page.url}")


def log_in(context: BrowserContext, url: str, token: str = TOKEN) -> None:
    """Give a browser's context the session of a token, as the link with it does."""
    page = context.new_page()
    page.goto(f"{url}/#token={token}")
    expect(page.locator(".who")).to_be_visible(timeout=PATIENCE_MS)  # pages are listed before that
    page.close()


def photograph(visit: Visit, shown: Console, names: Iterable[str], of: str) -> None:
    """Take pictures of pages, light and dark, narrow and wide, where FLOWVIS_PICTURES says."""
    directory = os.environ.get("FLOWVIS_PICTURES")
    if not directory:
        return
    for name in names:
        page = visit.open(shown.link(name))
        for width, height in ((1280, 900), (1920, 1080)):
            for theme in ("light", "dark"):
                page.set_viewport_size({"width": width, "height": height})
                page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
                page.wait_for_timeout(700)  # drawn anew, and what moves has moved
                page.screenshot(path=Path(directory) / f"{name}-{of}-{width}-{theme}.png")


def now_s() -> int:
    """Seconds since the epoch."""
    return int(time.time())
