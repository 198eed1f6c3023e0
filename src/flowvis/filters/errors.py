"""What is wrong with a filter, and where."""

import difflib
from collections.abc import Iterable, Sequence
from enum import Enum

_SHOWN = 12  # of what was expected: more helps nobody


class FilterError(ValueError):
    """A text that is no filter. `str` of it is a sentence with all that is known."""

    def __init__(
        self,
        message: str,
        position: int = 0,
        length: int = 0,
        expected: Sequence[str] = (),
        suggestion: str | None = None,
    ) -> None:
        self.message = message
        self.position = position
        """Where it is in the text, in characters from 0."""
        self.length = length
        """How many characters of the text are meant; 0 at its end."""
        self.expected = tuple(expected)
        """What could stand there."""
        self.suggestion = suggestion
        """What may have been meant, to be put in place of the characters that are meant."""
        super().__init__(self._sentence())

    def at(self, position: int, length: int) -> "FilterError":
        """Return the same error, of a value or name alone, at its place in a text."""
        return FilterError(self.message, position, length, self.expected, self.suggestion)

    def _sentence(self) -> str:
        text = f"{self.message} (at character {self.position + 1})"
        joint = ": " if self.expected else "; "
        return joint.join(filter(None, (text, remedy(self.expected, self.suggestion))))


def remedy(expected: Sequence[str], suggestion: str | None) -> str:
    """Say what could stand at a place, and what may have been meant; "" if neither is known."""
    more = ", ..." if len(expected) > _SHOWN else ""
    could = f"expected {', '.join(expected[:_SHOWN])}{more}" if expected else ""
    return "; ".join(filter(None, (could, f"did you mean {suggestion}?" if suggestion else "")))


class Place(Enum):
    """What a text that ends too early could go on with."""

    CONDITION = "a condition"
    NAME = "what follows a name"
    VALUE = "a value"
    WORD = "one of a few words or signs"


class UnfinishedError(FilterError):
    """A text that is no filter, and the beginning of one."""

    def __init__(
        self, message: str, position: int, expected: Sequence[str], place: Place, name: str = ""
    ) -> None:
        super().__init__(message, position, 0, expected)
        self.place = place
        """What comes next."""
        self.name = name
        """The name that is to be compared, where one is."""


def nearest(written: str, known: Iterable[str]) -> str | None:
    """Return the one of the known words that looks most like what was written, if any does."""
    by_folded = {word.lower(): word for word in known}
    found = difflib.get_close_matches(written[:64].lower(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None
