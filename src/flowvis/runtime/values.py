"""One value of an option: from YAML to its type and back, and what is allowed, in words."""

import re
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flowvis.runtime.documents import scalar
from flowvis.runtime.durations import format_duration, parse_duration
from flowvis.runtime.options import Slot, is_duration, is_enum

T = TypeVar("T")

HIDDEN = "***"  # stands for a secret

_EXPONENT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?[eE]\+?[0-9]{1,2}")

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


def convert(slot: Slot, raw: Any) -> Any:
    """Turn one YAML value into an option's (or its items') type; ValueError says what is wrong."""
    value = _typed(slot, slot.item or slot.hint, raw)
    if not _in_range(slot, value):
        raise ValueError(allowed(slot))
    return value


def from_environment(slot: Slot, text: str) -> Any:
    """Give the text of a variable the type that YAML would give it where no text is wanted."""
    if slot.item is not None or slot.nested:
        raise TypeError(f"{slot.attribute}: only single values can come from the environment")
    if slot.hint in {bool, int, float}:
        try:
            return scalar(text)
        except yaml.YAMLError:
            return text
    return text


def plain(slot: Slot, value: Any) -> Any:
    """Return what stands for one value in a YAML document."""
    if slot.about.secret:
        return HIDDEN if value else None
    if value is None:
        return None
    if slot.about.parse is not None:
        return str(value)
    if is_duration(slot.item or slot.hint):
        return format_duration(value)
    if isinstance(value, Enum):
        return value.value
    return value if isinstance(value, bool | int | float | str) else str(value)


def allowed(slot: Slot) -> str:
    """Say in words what an option takes."""
    hint = slot.item or slot.hint
    about = slot.about
    number = format_duration if is_duration(hint) else _number
    if about.choices or is_enum(hint):
        words = ", ".join(about.choices or (str(member.value) for member in hint))
    elif about.parse is not None:
        words = about.takes or _words(hint)
    else:
        words = "a duration such as 5s or 1m30s" if is_duration(hint) else _KINDS[hint]
    if about.minimum is not None and about.maximum is not None:
        return f"{words} from {number(about.minimum)} to {number(about.maximum)}"
    if about.minimum is not None:
        return f"{words}, at least {number(about.minimum)}"
    return words if about.maximum is None else f"{words}, at most {number(about.maximum)}"


def _typed(slot: Slot, hint: Any, raw: Any) -> Any:
    if slot.about.parse is not None:
        return slot.about.parse(_expect(slot, raw, str))
    if is_duration(hint):
        return parse_duration(str(raw) if raw == 0 else _expect(slot, raw, str))
    if is_enum(hint):
        return _one_of(slot, {str(member.value): member for member in hint}, raw)
    if slot.about.choices:
        return _one_of(slot, {choice: choice for choice in slot.about.choices}, raw)
    if hint is Path:
        return _path(slot, _expect(slot, raw, str))
    if hint is int:
        raw = _whole(raw)
    kind = int | float if hint is float else hint
    value = _expect(slot, raw, kind)
    return _finite(slot, value) if hint is float else value


def _finite(slot: Slot, raw: float) -> float:
    """Make a number a float; of one without an end, of NaN too, nothing can be reckoned."""
    if not abs(raw) <= sys.float_info.max:
        raise ValueError(allowed(slot))
    return float(raw)


def _path(slot: Slot, text: str) -> Path:
    """Make a path of a text: an empty one, in a list, would be the working directory."""
    if not text or "\0" in text:
        raise ValueError(allowed(slot))
    return Path(text)


def _whole(raw: Any) -> Any:
    """Make a number with an exponent whole, if it is: Helm writes a million as 1e+06."""
    if isinstance(raw, str) and _EXPONENT.fullmatch(raw):  # YAML 1.1 wants a dot in it
        raw = float(raw)
    return int(raw) if isinstance(raw, float) and raw.is_integer() else raw


def _number(bound: float) -> str:
    """Write a bound without an exponent."""
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def _expect(slot: Slot, raw: Any, kind: Any) -> Any:
    """Return `raw` if YAML gave the right kind of value; a bool is no number."""
    if isinstance(raw, kind) and (kind is bool or not isinstance(raw, bool)):
        return raw
    quoted = kind is str and isinstance(raw, int | float)
    raise ValueError(allowed(slot) + (", in quotes" if quoted else ""))


def _one_of(slot: Slot, members: Mapping[str, T], raw: Any) -> T:
    by_folded = {name.casefold(): member for name, member in members.items()}
    text = str(raw) if isinstance(raw, bool) else raw  # `auto`, or true, which YAML reads itself
    folded = text.casefold() if isinstance(text, str) else None
    if folded not in by_folded:
        raise ValueError(allowed(slot))
    return by_folded[folded]


def _in_range(slot: Slot, value: Any) -> bool:
    about = slot.about
    low = about.minimum is None or value >= about.minimum
    return low and (about.maximum is None or value <= about.maximum)


def _words(hint: Any) -> str:
    name = getattr(hint, "__name__", str(hint))
    return "a " + " ".join(re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)).lower()
