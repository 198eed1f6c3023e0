"""Writes deploy/logstash/kibana.ndjson and docs/kibana.md: `python -m tools.kibana [DIRECTORY]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tools.generated import write
from tools.kibana.board import objects
from tools.kibana.boards import BOARDS
from tools.kibana.document import document
from tools.kibana.index import pattern
from tools.kibana.saved import ndjson


def files() -> dict[str, str]:
    """Return the text of each file by its path."""
    return {
        "deploy/logstash/kibana.ndjson": ndjson(objects(BOARDS, pattern())),
        "docs/kibana.md": document(BOARDS),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the files."""
    write(Path(arguments[0] if arguments else "."), files())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
