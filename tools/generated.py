"""Files that `make docs` makes."""

from collections.abc import Mapping
from pathlib import Path


def write(directory: Path, texts: Mapping[str, str]) -> None:
    """Write the text of each file, by its path below `directory`, and say which."""
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path)
