"""Text that peers, objects and files give, as people may see it: on one line, in its own order.

What Unicode does not call printable (controls and ESC, C1, line and paragraph separators, bidi
overrides, zero-width characters, lone surrogates) is written as an escape, like `\\x1b` or `\\u202e`.
"""


def visible(text: str) -> str:
    """Return a text with what cannot be seen, or acts on what shows it, as escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
