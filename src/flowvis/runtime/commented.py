"""A configuration file to begin with: every option explained, and commented out at its default."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from flowvis.runtime.options import Slot, slots
from flowvis.runtime.values import allowed, plain

WIDTH = 100


def commented(cls: type, values: Mapping[str, Any], *, in_pod: bool = False) -> str:
    """Return a YAML document with all options of a settings class.

    `values` has those that are set, by path (`status.address`); ValueError names the unknown ones.
    With `in_pod` what has another default in a Pod is set to that: so the document means the same
    everywhere.
    """
    left = dict(values)
    lines = list(_section(cls, left, "", "", in_pod=in_pod))
    if left:
        raise ValueError(f"{cls.__name__} has no options {', '.join(sorted(left))}")
    return "\n".join(lines).strip() + "\n"


def _section(
    cls: type,
    left: dict[str, Any],
    path: str,
    indent: str,
    *,
    in_pod: bool,
    live: bool = False,
) -> Iterator[str]:
    for slot in slots(cls, live=live):
        where = f"{path}.{slot.key}" if path else slot.key
        if not path:
            yield ""
        yield from _comment(_about(slot), indent)
        if slot.nested and slot.item is None:
            yield f"{indent}{slot.key}:"
            yield from _section(
                slot.nested, left, where, indent + "  ", in_pod=in_pod, live=slot.about.live
            )
        elif where in left:
            yield f"{indent}{slot.key}: {_one_line(left.pop(where))}"
        elif in_pod and slot.about.in_pod is not None:
            yield f"{indent}{slot.key}: {_one_line(plain(slot, slot.about.in_pod))}"
        else:
            yield f"{indent}#{slot.key}: {_one_line(_default(slot))}".rstrip()


def _about(slot: Slot) -> str:
    """Say what an option means, what it takes, and whether a change needs a restart."""
    if slot.nested:
        return slot.about.doc
    kind = f"list of {allowed(slot)}" if slot.item is not None else allowed(slot)
    environment = f", environment {slot.about.env}" if slot.about.env else ""
    return f"{slot.about.doc} ({kind}{environment}{', live' if slot.about.live else ''})"


def _default(slot: Slot) -> Any:
    if slot.nested or isinstance(slot.default, tuple):
        return [plain(slot, item) for item in slot.default or ()]
    return plain(slot, slot.default)


def _comment(text: str, indent: str) -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=lead,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _one_line(value: Any) -> str:
    """Write a value as YAML takes it on one line; None is no value."""
    if value is None:
        return ""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()
