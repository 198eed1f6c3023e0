"""Text that peers, objects and files give, as people may see it: on one line, in its own order.

What Unicode does not call printable is written as an escape, like `\\x1b` or `\\u202e`: controls
and ESC, C1, line and paragraph separators, bidi overrides, zero-width characters, lone surrogates.
"""

import json
from typing import Any


def visible(text: str) -> str:
    """Return a text with what cannot be seen, or acts on what shows it, as escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def visible_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that says the same, and is as harmless to a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    if indent is None and text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]
        for letter in text
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
