"""What is wrong with a question, in words for whoever asked."""

import difflib
from collections.abc import Iterable


class QuestionError(ValueError):
    """A parameter that cannot be used; str() names it, its value and the remedy."""

    def __init__(self, code: str, message: str, *, suggestion: str = "") -> None:
        super().__init__(message)
        self.code = code
        """As the API's errors have it: bad-range, bad-query."""
        self.suggestion = suggestion
        """The nearest value that would do; "" where there is none."""


def shown(value: str) -> str:
    """Return what somebody wrote as it stands in a message: in quotes, and not too much of it."""
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")


_SHOWN = 80


def unknown(parameter: str, value: str, known: Iterable[str], listed: str) -> QuestionError:
    """Make the error of a name that there is none of; `listed` says where all of them are."""
    near = difflib.get_close_matches(value, list(known), 1)
    remedy = f"did you mean {near[0]}?" if near else f"use {listed}"
    return QuestionError(
        "bad-query", f"{parameter} {shown(value)}: {remedy}", suggestion=near[0] if near else ""
    )


def number(parameter: str, text: str, default: int, most: int, *, least: int = 1) -> int:
    """Read a whole number within bounds; "" is the default."""
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise QuestionError("bad-query", f"{parameter} {shown(text)}: a whole number")
    value = int(text)
    if not least <= value <= most:
        raise QuestionError(
            "bad-query", f"{parameter} {text}: a whole number from {least} to {most}"
        )
    return value
