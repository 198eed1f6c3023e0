"""An answer of ovs-vswitchd's control socket as it comes: JSON, of which one text may be long.

A list of connections has 350 bytes for each: what was whole in memory, as text of JSON, as a text
and as bytes, would be several times what becomes of it. Pure.
"""

import contextlib
import json
import re
from collections.abc import Callable

MOST_BESIDE = 1 << 20
"""Bytes of a line, and of all that is not the text."""

_BEGINNING = re.compile(rb'"result"\s*:\s*"')
_LINE_END = rb"\n"
_QUOTE, _BACKSLASH = b'"', ord("\\")


class Answer:
    """Takes pieces of one answer; hands the text of its result on in whole lines, decoded."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        """`take` is given the lines."""
        self._take = take
        self._beside = bytearray()
        """The answer without that text."""
        self._text: bytearray | None = None
        """What has come of it and is not handed on; None before it, and after it."""
        self._looked = 0
        """How much of that has no end."""
        self._ended = False

    def feed(self, piece: bytes) -> object:
        """Take a piece; return the answer, without the lines, when that is whole, else None.

        ValueError if it is no JSON, or has more than MOST_BESIDE bytes without a line's end.
        """
        if self._text is not None:
            self._text += piece
        else:
            self._beside += piece
            if not self._ended and (beginning := _BEGINNING.search(self._beside)):
                self._text = self._beside[beginning.end() :]
                del self._beside[beginning.end() :]
        if self._text is not None:
            self._hand_on(self._text)
        if max(len(self._beside), len(self._text or b"")) > MOST_BESIDE:
            raise ValueError(f"it has more than {MOST_BESIDE >> 20} MiB without a line's end")
        if self._text is None and self._beside.endswith(b"}"):  # it may be the end
            with contextlib.suppress(ValueError, RecursionError):
                answer: object = json.loads(self._beside.decode())
                return answer
        return None

    def _hand_on(self, text: bytearray) -> None:
        """Hand on what is whole of the text, and all of it where it ends."""
        end = text.find(_QUOTE, self._looked)
        while end >= 0 and _is_escaped(text, end):
            end = text.find(_QUOTE, end + 1)
        self._looked = len(text)
        if end >= 0:
            self._take(_decoded(text[:end]))
            self._beside += text[end:]
            self._text, self._ended = None, True
            return
        line = text.rfind(_LINE_END)
        while line >= 0 and _is_escaped(text, line):
            line = text.rfind(_LINE_END, 0, line)
        if line >= 0:
            self._take(_decoded(text[: line + len(_LINE_END)]))
            del text[: line + len(_LINE_END)]
            self._looked = len(text)


def _is_escaped(text: bytearray, at: int) -> bool:
    """Whether an odd number of backslashes is before a place."""
    first = at
    while first and text[first - 1] == _BACKSLASH:
        first -= 1
    return bool((at - first) % 2)


def _decoded(text: bytearray) -> bytes:
    """What JSON's text, without its quotes, means; ValueError if it means nothing."""
    meant: str = json.loads(f'"{text.decode()}"')
    return meant.encode(errors="replace")
