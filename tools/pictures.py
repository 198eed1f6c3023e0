"""Takes the README's pictures from a demo that runs: `python -m tools.pictures LINK`.

Needs what the tests need (Playwright, Debian's Chromium). LINK is what `make demo` prints.
"""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = {
    "overview": "?from=-5m",
    "map": "?page=map&from=-5m&level=workload",
}
"""Names of files in docs/pictures, and what is shown on each."""

WIDTH, HEIGHT = 1280, 800
SETTLED_MS = 4000  # the map's layout, and the first answers


def main() -> int:
    """Write the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("link", help="the console's, with its token")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="default: %(default)s")
    options = parser.parse_args()
    base = options.link.partition("#")[0]
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(options.link)
        page.wait_for_url(lambda url: "#token" not in url)
        for name, query in PICTURES.items():
            page.goto(base + query)
            page.wait_for_timeout(SETTLED_MS)
            page.screenshot(path=folder / f"{name}.png")
            sys.stdout.write(f"docs/pictures/{name}.png\n")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
