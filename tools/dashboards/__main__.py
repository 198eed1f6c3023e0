"""Writes deploy/grafana and docs/dashboards.md: `python -m tools.dashboards [DIRECTORY]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tools.dashboards.document import document
from tools.dashboards.manifests import kustomization
from tools.dashboards.pages import PAGES
from tools.generated import write

_BELOW = "deploy/grafana/dashboards"


def files() -> dict[str, str]:
    """Return the text of each file by its path."""
    return {
        **{f"{_BELOW}/{page.name}.json": page.json() for page in PAGES},
        f"{_BELOW}/kustomization.yaml": kustomization(PAGES),
        "docs/dashboards.md": document(PAGES),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the files."""
    write(Path(arguments[0] if arguments else "."), files())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
