"""Documents of earlier generations, made into today's before anything is validated.

    older = Older(document, known)
    older.move("flowPollInterval", "flowExporter.flowPollInterval")
    older.document, older.warnings, older.origins

Pure. Values are carried over unchecked: what is wrong with them is found where it is for all
documents; `origins` has the keys that they were under, to name them by.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MAX_NAMED = 60  # keys in one warning: more than any published document has
MAX_KEY_CHARS = 80
RESEMBLING = 0.8  # of difflib: `flowExporters`, `LOG`; not `ipsec` for `tls`

Translation = Callable[["Older"], None]
"""What a settings class has as `older`: takes its older keys out of the document."""


class Older:
    """A document on its way to today's form."""

    def __init__(self, document: Mapping[Any, Any], known: Iterable[str]) -> None:
        """Begin with a copy; `known` are today's keys of the outermost level."""
        self.document: dict[Any, Any] = {
            key: dict(value) if isinstance(value, dict) else value
            for key, value in document.items()
        }
        self.warnings: list[str] = []
        """A line for each older key: what it is today, or that it means nothing here."""
        self.origins: dict[str, str] = {}
        """By today's path, the path that the document has it under."""
        self._known = frozenset(known)

    def move(self, old: str, new: str) -> None:
        """Carry a value of the outermost level over to today's path, unless one is there."""
        if old not in self.document:
            return
        value = self.document.pop(old)
        if not is_blank(self.value(new)) and not is_blank(value):
            self.warnings.append(f"{old}: not used, as {new} is given, which is today's key")
            return
        self.warnings.append(f"{old}: today's key is {new}")
        if not is_blank(value):
            self.put(new, value, old)

    def put(self, path: str, value: Any, origin: str) -> None:
        """Set today's path, of one or two keys; what stands in its way is left to be refused."""
        first, _, second = path.partition(".")
        if not second:
            self.document[first] = value
        elif is_blank(self.document.get(first)):
            self.document[first] = {second: value}
        elif isinstance(self.document[first], dict):
            self.document[first][second] = value
        self.origins[path] = origin

    def value(self, path: str) -> Any:
        """Return what today's path has, None if nothing."""
        first, _, second = path.partition(".")
        found = self.document.get(first)
        if not second:
            return found
        return found.get(second) if isinstance(found, dict) else None

    def leave(self, keys: frozenset[str], whose: str) -> None:
        """Take out what is `whose` and not ours.

        One of these keys shows that the document is theirs, of a release that may have others,
        which are taken out as well unless they look like a misspelt one of ours.
        """
        foreign = [key for key in self.document if key not in self._known]
        if not keys.intersection(foreign):
            return
        foreign = [key for key in foreign if key in keys or not self._resembles(key)]
        values = {key: self.document.pop(key) for key in foreign}
        given = [key for key, value in values.items() if not is_blank(value)]
        if given:
            self.warnings.append(f"of {whose}, without a meaning here: {named(given)}")

    def as_written(self, problem: str) -> str:
        """Put the path that the document has in front of a problem that has today's."""
        path, colon, rest = problem.partition(": ")
        origin = self.origins.get(path)
        return f"{origin} (today {path}){colon}{rest}" if origin else problem

    def _resembles(self, key: Any) -> bool:
        folded = [name.casefold() for name in self._known]
        text = str(key)[:MAX_KEY_CHARS].casefold()
        return bool(difflib.get_close_matches(text, folded, n=1, cutoff=RESEMBLING))


def is_blank(value: Any) -> bool:
    """Whether a value means the default: nothing, or an empty text."""
    return value is None or value == ""


def named(keys: Iterable[Any]) -> str:
    """Name keys in a line of bounded length."""
    texts = [str(key)[:MAX_KEY_CHARS] for key in keys]
    more = f" and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else ""
    return ", ".join(texts[:MAX_NAMED]) + more
