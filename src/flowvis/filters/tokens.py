"""Texts cut into tokens: words, quoted texts, operators, parentheses and commas."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from flowvis.filters.errors import FilterError

MAX_LENGTH = 8 << 10
"""Bytes of a filter's text in UTF-8."""

KEYWORDS = ("and", "or", "not", "in", "is", "empty")
"""Words of the language itself, in capitals or not; as values they are quoted."""


class Kind(Enum):
    """Kinds of tokens."""

    WORD = "a word"
    QUOTED = "a quoted text"
    SIGN = "a sign"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text."""

    kind: Kind
    text: str
    """Of a quoted text what is between the quotes, with escapes undone."""
    start: int
    end: int

    def is_sign(self, *signs: str) -> bool:
        """Whether it is one of these operators, parentheses or commas."""
        return self.kind is Kind.SIGN and self.text in signs

    def is_keyword(self, *words: str) -> bool:
        """Whether it is one of these words, not quoted."""
        return self.kind is Kind.WORD and self.text.lower() in words


_WORD = r"""[^\s\x00-\x1f\x7f()'",=<>~!&|]+"""
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
      | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<sign>!=|!~|<=|>=|==|&&|\|\||[()=<>~!,])
      | (?P<word>{_WORD})""",
    re.VERBOSE | re.DOTALL,
)
_SAME = {"==": "=", "&&": "and", "||": "or", "!": "not"}
_ESCAPED = re.compile(r"\\([\\'\"])")
_PLAIN = re.compile(_WORD)


def tokens(text: str) -> Iterator[Token]:
    """Cut a text; the last token is its end. FilterError where something is none."""
    _check(text)
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _no_token(text, at)
        start, at = match.span()
        if written := match["sign"]:
            same = _SAME.get(written, written)
            yield Token(Kind.WORD if same in KEYWORDS else Kind.SIGN, same, start, at)
        elif match["quoted"]:
            yield Token(Kind.QUOTED, _ESCAPED.sub(r"\1", match["quoted"][1:-1]), start, at)
        elif match["word"]:
            yield Token(Kind.WORD, match["word"], start, at)
    yield Token(Kind.END, "", len(text), len(text))


def is_plain(text: str) -> bool:
    """Whether a text can stand as a word without quotes, and means itself."""
    return _PLAIN.fullmatch(text) is not None and "*" not in text and text.lower() not in KEYWORDS


def quote(text: str) -> str:
    """Write a text as a value of a filter that means exactly it: in quotes where it needs them."""
    return text if is_plain(text) else quoted(text)


def quoted(text: str) -> str:
    """Write a text in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _check(text: str) -> None:
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise FilterError(
            "half of a surrogate pair is no character", error.start, error.end - error.start
        ) from None
    if length > MAX_LENGTH:
        raise FilterError(f"the filter has {length} bytes: {MAX_LENGTH} at most", MAX_LENGTH, 0)


def _no_token(text: str, at: int) -> FilterError:
    sign = text[at]
    if sign in "\"'":
        return FilterError("a quoted text does not end", at, len(text) - at, [sign])
    if sign in "&|":
        return FilterError(f"{sign} alone is no operator", at, 1, ["and", "or"], sign * 2)
    return FilterError(f"{sign!a} stands only in quotes", at, 1)
