"""Writes deploy/grafana: `python -m tools.dashboards [DIRECTORY]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tools.dashboards.pages import PAGES


def files() -> dict[str, str]:
    """Return the text of each file by its path below deploy/grafana."""
    return {f"dashboards/{page.name}.json": page.json() for page in PAGES}


def main(arguments: Sequence[str]) -> int:
    """Write the files."""
    directory = Path(arguments[0] if arguments else "deploy/grafana")
    for path, text in files().items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)
        print(directory / path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
