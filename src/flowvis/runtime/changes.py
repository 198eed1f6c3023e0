"""What differs between two settings of one class, option by option.

An option is named by its path (`clickHouse.commitInterval`); a list of sections is one option.
"""

import dataclasses
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from flowvis.runtime.options import Slot, slots
from flowvis.runtime.settings import one_line

S = TypeVar("S")

SHOWN = 200  # characters of a value in the log


@dataclass(frozen=True)
class Change:
    """One option that has another value; as text, secrets hidden."""

    path: str
    old: str
    new: str
    live: bool
    """Whether it can take effect without a restart."""


def options(cls: type) -> dict[str, bool]:
    """Return the paths of all options, and whether they are live."""
    return {path: slot.about.live for path, slot in _options(cls)}


def changes(old: S, new: S) -> list[Change]:
    """Return what `new` changes, in the order of the settings class."""
    before, after = dict(_values(old)), dict(_values(new))
    return [
        Change(path, _shown(slot, before[path]), _shown(slot, after[path]), slot.about.live)
        for path, slot in _options(type(old))
        if before[path] != after[path]
    ]


def merged(old: S, new: S, paths: Collection[str]) -> S:
    """Return `old` with the values that `new` has for some options."""
    return _merged(old, new, paths, "")


def _merged(old: S, new: S, paths: Collection[str], prefix: str) -> S:
    values = {}
    for slot in slots(type(old)):
        path = prefix + slot.key
        before, after = getattr(old, slot.attribute), getattr(new, slot.attribute)
        if _is_section(slot):
            values[slot.attribute] = _merged(before, after, paths, f"{path}.")
        elif path in paths:
            values[slot.attribute] = after
    return dataclasses.replace(old, **values)  # type: ignore[type-var]  # settings are dataclasses


def _options(cls: type, prefix: str = "", *, live: bool = False) -> Iterator[tuple[str, Slot]]:
    for slot in slots(cls, live=live):
        if slot.nested and _is_section(slot):
            yield from _options(slot.nested, f"{prefix}{slot.key}.", live=slot.about.live)
        else:
            yield prefix + slot.key, slot


def _values(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for slot in slots(type(settings)):
        value = getattr(settings, slot.attribute)
        if _is_section(slot):
            yield from _values(value, f"{prefix}{slot.key}.")
        else:
            yield prefix + slot.key, value


def _is_section(slot: Slot) -> bool:
    """Whether there is always one section, which is compared by its options."""
    return slot.nested is not None and slot.item is None and not slot.optional


def _shown(slot: Slot, value: Any) -> str:
    if slot.item is not None and value is not None:
        value = value[:SHOWN]  # more items than there is room for; to write thousands takes seconds
    return textwrap.shorten(one_line(slot, value), SHOWN, placeholder=" ...")
