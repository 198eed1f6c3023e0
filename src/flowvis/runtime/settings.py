"""Configuration as one pure function: bytes and environment in, settings or all problems out.

A key without a value means its default, of which some are others in a Pod, as does an empty text
where the option is not a text. Environment variables win over the document. Documents of earlier
generations are made today's first, by what the settings class has as `older`.
"""

import difflib
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import yaml

from flowvis.errors import SettingsError
from flowvis.runtime import documents
from flowvis.runtime.older import MAX_KEY_CHARS, Older
from flowvis.runtime.options import POD, Duration, Slot, option, section, slots
from flowvis.runtime.values import HIDDEN, allowed, convert, from_environment, plain

__all__ = [
    "Duration", "Loaded", "effective", "load", "one_line", "option", "problems", "read",
    "reference", "section",
]  # fmt: skip

T = TypeVar("T")

_SHOWN = reprlib.Repr()  # bounded in width and depth: the value is somebody else's
_SHOWN.maxstring = _SHOWN.maxother = 60
_SHOWN.maxlevel = 2

MAX_PROBLEMS = 100
"""Lines about one document: a log has them all, at each attempt."""


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Settings, and what people should know of the document that they are from."""

    settings: T
    warnings: tuple[str, ...] = ()


def load(cls: type[T], data: bytes, env: Mapping[str, str]) -> T:
    """Read settings as `read` does, where nobody is there to be warned."""
    return read(cls, data, env).settings


def read(cls: type[T], data: bytes, env: Mapping[str, str]) -> Loaded[T]:
    """Read settings of class `cls` from a YAML document and the environment.

    SettingsError has one line for each unknown key and bad value: path, value, what is allowed; at
    most MAX_PROBLEMS and how many more there are.
    A settings class may have `check(self) -> Iterator[tuple[str, str]]`, which yields the key and
    the problem where options do not go together; it runs when each value is good by itself. It may
    have `older`, a static method that makes an `Older` document today's.
    """
    older = Older(documents.parse(data), (slot.key for slot in slots(cls)))
    translate = getattr(cls, "older", None)
    if translate is not None:
        translate(older)
    reader = _Reader(env)
    settings = reader.section(cls, older.document, "")
    found = reader.problems or problems(settings)
    if found:
        more = reader.more + len(found[MAX_PROBLEMS:])
        lines = [older.as_written(problem) for problem in found[:MAX_PROBLEMS]]
        raise SettingsError([*lines, *[f"document: and {more} more problems"] * bool(more)])
    return Loaded(settings, tuple(older.warnings))


def problems(settings: Any) -> list[str]:
    """Return a line for each option that does not go together with others."""
    return [f"{path}: {problem}" for path, problem in _cross_checks(settings, "")]


def effective(settings: Any) -> str:
    """Return the settings as the YAML document that would give them; secrets are hidden."""
    return yaml.safe_dump(_document(settings), sort_keys=False, allow_unicode=True)


def reference(cls: type) -> str:
    """Return a Markdown table of all options of a settings class."""
    lines = ["| Key | Default | Allowed | Meaning | Change |", "|---|---|---|---|---|"]
    for path, slot in _leaves(cls, ""):
        environment = f" (environment: `{slot.about.env}`)" if slot.about.env else ""
        cells = (
            f"`{path}`",
            _default(slot),
            f"list of {allowed(slot)}" if slot.item is not None else allowed(slot),
            slot.about.doc + environment,
            "live" if slot.about.live else "restart",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(slot: Slot) -> str:
    """Say what holds without a value, as Markdown."""
    texts = [
        "" if value in {None, ""} else f"`{one_line(slot, value)}`"
        for value in dict.fromkeys(slot.default_where(in_pod=in_pod) for in_pod in (False, True))
    ]
    return "; in a Pod ".join(texts)


class _Reader:
    """Goes through a document beside its settings class, collects problems and counts the rest."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.in_pod = bool(env.get(POD))
        self.problems: list[str] = []
        self.more = 0
        """Problems that have no line."""

    def section(self, cls: type[T], document: Any, path: str) -> T:
        """Read one mapping; what is bad is noted and left out."""
        if not isinstance(document, dict):
            self._problem(path, document, "a mapping of keys to values")
            document = {}
        known = {slot.key: slot for slot in slots(cls)}
        for key in document:
            if key not in known and self._has_room():
                self.problems.append(f"{_join(path, key)}: unknown key{_guess(key, known)}")
        values = {
            slot.attribute: self._option(slot, document.get(key), _join(path, key))
            for key, slot in known.items()
        }
        return cls(**values)

    def _option(self, slot: Slot, raw: Any, path: str) -> Any:
        if slot.about.env is not None and slot.about.env in self.env:
            raw = from_environment(slot, self.env[slot.about.env])
        is_text = slot.hint is str and slot.about.parse is None
        if raw is None or (raw == "" and not is_text):
            if slot.nested is None or slot.item is not None or slot.optional:
                return slot.default_where(in_pod=self.in_pod)
            raw = {}
        if slot.item is not None:
            return self._items(slot, raw, path)
        return self._value(slot, raw, path)

    def _items(self, slot: Slot, raw: Any, path: str) -> Any:
        if not isinstance(raw, list):
            kind = "sections" if slot.nested else allowed(slot)
            return self._problem(path, raw, f"a list of {kind}")
        return tuple(self._value(slot, item, f"{path}[{at}]") for at, item in enumerate(raw))

    def _value(self, slot: Slot, raw: Any, path: str) -> Any:
        if slot.nested:
            return self.section(slot.nested, raw, path)
        try:
            return convert(slot, raw)
        except ValueError as error:
            return self._problem(path, HIDDEN if slot.about.secret else raw, str(error))

    def _problem(self, path: str, raw: Any, problem: str) -> None:
        """Note a problem: what is allowed, or a phrase about the value."""
        if not self._has_room():
            return
        verb = "" if problem.startswith(("is ", "has ", "names ")) else "is not allowed here: "
        self.problems.append(f"{path or 'document'}: {_SHOWN.repr(raw)} {verb}{problem}")

    def _has_room(self) -> bool:
        """Whether one more problem has a line; if not, it is counted."""
        full = len(self.problems) >= MAX_PROBLEMS
        self.more += full
        return not full


def _guess(key: Any, known: Mapping[str, Slot]) -> str:
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(str(key)[:MAX_KEY_CHARS].casefold(), folded, n=1)
    if close:
        return f"; did you mean {folded[close[0]]}?"
    return f"; known here: {', '.join(sorted(known))}"


def _cross_checks(settings: Any, path: str) -> Iterator[tuple[str, str]]:
    """Go through the problems that `check` methods find, innermost sections first."""
    for slot in slots(type(settings)):
        value = getattr(settings, slot.attribute)
        where = _join(path, slot.key)
        if slot.nested and slot.item is not None:
            for at, item in enumerate(value or ()):
                yield from _cross_checks(item, f"{where}[{at}]")
        elif slot.nested and value is not None:
            yield from _cross_checks(value, where)
    check = getattr(settings, "check", None)
    if check is not None:
        for key, problem in check():
            yield _join(path, key), problem


def _leaves(cls: type, path: str, *, live: bool = False) -> Iterator[tuple[str, Slot]]:
    """Go through all options, sections opened."""
    for slot in slots(cls, live=live):
        where = _join(path, slot.key)
        if slot.nested:
            inside = where + ("[]" if slot.item is not None else "")
            yield from _leaves(slot.nested, inside, live=slot.about.live)
        else:
            yield where, slot


def _document(settings: Any) -> dict[str, Any]:
    return {
        slot.key: _plain(slot, getattr(settings, slot.attribute)) for slot in slots(type(settings))
    }


def _plain(slot: Slot, value: Any) -> Any:
    if isinstance(value, tuple) and slot.item is not None:
        return [_document(item) if slot.nested else plain(slot, item) for item in value]
    if slot.nested:
        return None if value is None else _document(value)
    return plain(slot, value)


def one_line(slot: Slot, value: Any) -> str:
    """Write an option's value as YAML takes it on one line; a secret is hidden."""
    text = yaml.safe_dump(_plain(slot, value), default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def _join(path: str, key: Any) -> str:
    text = str(key)
    shown = text if len(text) <= MAX_KEY_CHARS else f"{text[:MAX_KEY_CHARS]}..."
    return f"{path}.{shown}" if path else shown
