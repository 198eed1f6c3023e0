"""Takes the documents' pictures of the console, from the lab: `python -m tools.pictures` (as root).

Runs the demo with its usual traffic, and Debian's Chromium on the link that it prints. Names of
pictures have only these taken.
"""

import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tools.dashboards.seen import LARGEST, PLACE, SEEN, Picture

PICTURES = {picture.name: picture for picture in SEEN.values()}
SIZE: ViewportSize = {"width": 1280, "height": 580}
SINCE = "-5m"
TRAFFIC_S = 60  # until there is something to look at
PATIENCE_MS = 120_000
MOVED_MS = 1500
"""Until what was drawn stands still."""
DEMO = [sys.executable, "-m", "flowvis.cli.flowctl", "lab", "demo", "--keep"]


def main(names: Sequence[str]) -> int:
    """Write the pictures."""
    PLACE.mkdir(exist_ok=True)
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as demo:
        try:
            link = _link(demo)
            # Whoever does not read what it prints has it wait.
            threading.Thread(target=deque, args=(demo.stdout, 0), daemon=True).start()
            time.sleep(TRAFFIC_S)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                )
                for name in names or PICTURES:
                    print(_take(browser, link, PICTURES[name]))
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
    return 0


def _link(demo: "subprocess.Popen[str]") -> str:
    for line in demo.stdout or ():
        if found := re.search(r"http://\S+#token=\S+", line):
            return found[0]
    raise SystemExit("tools.pictures: the demo printed no link")


def _take(browser: Browser, link: str, picture: Picture) -> Path:
    context = browser.new_context(
        viewport=SIZE,
        color_scheme="dark" if picture.dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(link)
    pages = page.get_by_role("navigation", name="Pages")
    pages.wait_for()
    page.goto(picture.of.at(link.partition("/#")[0], SINCE))
    pages.wait_for()
    _answered(page)
    page.wait_for_timeout(MOVED_MS)
    path = PLACE / f"{picture.name}.png"
    path.write_bytes(page.screenshot())
    context.close()
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"tools.pictures: {path} is of {path.stat().st_size} bytes")
    return path


def _answered(page: Page) -> None:
    expect(page.locator("main h1")).to_be_attached(timeout=PATIENCE_MS)
    waiting = page.locator(".skeleton, [aria-busy=true]")
    expect(waiting).to_have_count(0, timeout=PATIENCE_MS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
