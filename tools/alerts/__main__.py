"""Writes deploy/prometheus and docs/alerts.md: `python -m tools.alerts [DIRECTORY]`.

`python -m tools.alerts --runbooks URL` prints the rules with runbooks there, `--scale N` with N
times as long times, for a run of seconds.
"""

import argparse
import sys
from pathlib import Path

from tools.alerts.document import document
from tools.alerts.rules import RUNBOOKS, groups, plain, prometheus_rule
from tools.alerts.table import ALERTS
from tools.generated import write
from tools.kustomize import dump

_BELOW = "deploy/prometheus"


def files() -> dict[str, str]:
    """Return the text of each file by its path."""
    return {
        f"{_BELOW}/flowvis.rules.yml": plain(ALERTS),
        f"{_BELOW}/prometheusrule.yaml": prometheus_rule(ALERTS),
        "docs/alerts.md": document(ALERTS),
    }


def main() -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path())
    parser.add_argument("--scale", type=float, help="print the rules, with other times")
    parser.add_argument("--runbooks", help="print the rules, with this page of runbooks")
    options = parser.parse_args()
    if options.scale is not None or options.runbooks:
        scale, runbooks = options.scale or 1.0, options.runbooks or RUNBOOKS
        sys.stdout.write(dump([groups(ALERTS, scale=scale, runbooks=runbooks)]))
        return 0
    write(options.directory, files())
    return 0


if __name__ == "__main__":
    sys.exit(main())
