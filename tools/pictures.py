"""Takes the README's pictures of the console, from the lab: `python -m tools.pictures` (as root).

Runs the demo with its usual traffic, and Debian's Chromium on the link that it prints.
"""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PLACE = Path(__file__).parents[1] / "docs" / "pictures"
PICTURES = {
    "overview": ("?from=-5m", "light"),
    "map": ("?page=map&level=workload&from=-5m&chosen=workload:shop/cart", "dark"),
}
TRAFFIC_S = 60  # until there is something to look at
SETTLED_MS = 4000
DEMO = [sys.executable, "-m", "flowvis.cli.flowctl", "lab", "demo", "--keep"]


def main() -> int:
    """Write the pictures."""
    PLACE.mkdir(exist_ok=True)
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as demo:
        try:
            link = _link(demo)
            time.sleep(TRAFFIC_S)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path="/usr/bin/chromium", args=["--no-sandbox"]
                )
                for name in PICTURES:
                    print(_take(browser, link, name))
                browser.close()
        finally:
            demo.send_signal(signal.SIGINT)
    return 0


def _link(demo: "subprocess.Popen[str]") -> str:
    for line in demo.stdout or ():
        if found := re.search(r"http://\S+#token=\S+", line):
            return found[0]
    raise SystemExit("tools.pictures: the demo printed no link")


def _take(browser: Browser, link: str, name: str) -> Path:
    query, theme = PICTURES[name]
    context = browser.new_context(
        viewport={"width": 1280, "height": 760},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(link)
    page.get_by_role("navigation", name="Pages").wait_for()
    page.goto(link.partition("#")[0] + query)
    page.wait_for_timeout(SETTLED_MS)
    path = PLACE / f"{name}.png"
    page.screenshot(path=path)
    context.close()
    return path


if __name__ == "__main__":
    sys.exit(main())
