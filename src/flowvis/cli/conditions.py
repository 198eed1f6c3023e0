"""Short forms of the filter language: options of which each is a condition on records.

`--from-pod shop/cart-0` is `src.pod = shop/cart-0`. What is given twice may be either, different
options must all hold, and `--not` denies the option that follows, or FILTER if none does.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.filters import FilterError, quote
from flowvis.filters.vocabulary import lookup

_OF_ENDS = {
    "namespace": "namespace of either end, of the source, of the destination",
    "pod": "Pod: name or namespace/name, * for any characters",
    "workload": "what runs the Pod: name or namespace/name",
    "node": "node",
    "ip": "address or network",
    "port": "port",
    "label": "label of the Pod: KEY=VALUE, or KEY for any value",
}
_OF_CONNECTIONS = {
    "service": ("service", "the Service that was called: name, namespace/name[:port]"),
    "protocol": ("proto", "tcp, udp, sctp, icmp, icmpv6 or a number"),
    "type": ("type", "intra-node, inter-node, to-external, from-external"),
    "verdict": (
        "verdict",
        "what policies decided: allowed, dropped, rejected, denied, unenforced, none",
    ),
    "policy": ("policy", "the policy that decided: name or namespace/name"),
}
_SIDES = {"--from-": "src.", "--to-": "dst."}


@dataclass(frozen=True)
class _Condition:
    name: str
    """In the filter language."""
    negated: bool
    value: str

    @property
    def text(self) -> str:
        """The comparison."""
        if self.name.endswith("label"):
            key, equals, value = self.value.partition("=")
            if equals:
                return f"{self.name}.{key} = {_value(value)}"
            if self.name != "label":
                return f"not {self.name}.{key} is empty"
            # `not label.KEY is empty` is true where both ends have it.
            either = " or ".join(f"not {side}label.{key} is empty" for side in _SIDES.values())
            return f"({either})"
        return f"{self.name} = {_value(self.value)}"


class _Given:
    """The conditions that were given so far, in order; made anew for each command line."""

    def __init__(self) -> None:
        self.conditions: list[_Condition] = []
        self.negating = False
        """Whether a `--not` denies what comes next; at the end, FILTER."""

    def add(self, name: str, value: str) -> None:
        self.conditions.append(_Condition(name, self.negating, value))
        self.negating = False


def _given(namespace: argparse.Namespace) -> _Given:
    found: _Given | None = getattr(namespace, "given", None)
    if found is None:
        found = namespace.given = _Given()
    return found


class _Name(argparse.Action):
    def __call__(
        self, _: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        name = named(str(option_string), self.dest)
        if self.dest == "label":
            try:
                lookup(f"{name}.{str(values).partition('=')[0]}")
            except FilterError as error:
                raise argparse.ArgumentError(self, str(error)) from error
        _given(namespace).add(name, str(values))


def named(option: str, name: str) -> str:
    """Return the name of the filter language that an option stands for."""
    return next(
        (f"{side}{name}" for prefix, side in _SIDES.items() if option.startswith(prefix)), name
    )


class _Not(argparse.Action):
    def __call__(self, _: Any, namespace: Any, *__: Any) -> None:
        _given(namespace).negating = True


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add FILTER and the short forms."""
    filtered = parser.add_argument(
        "filter",
        nargs="*",
        default=[],
        metavar="FILTER",
        help="which records, in the filter language (docs/filters.md): quote it for the shell",
    )
    filtered.of = "filter"  # type: ignore[attr-defined]  # what completes it: `completing`
    group = parser.add_argument_group(
        "short forms of filters",
        "the same option twice: either may hold; different options: all must",
    )
    group.add_argument(
        "--not",
        nargs=0,
        action=_Not,
        default=argparse.SUPPRESS,
        help="deny the option after it, else FILTER",
    )
    for name, text in _OF_ENDS.items():
        flags = [f"--{name}", *(f"{prefix}{name}" for prefix in _SIDES)]
        _add(group, ["-n"] * (name == "namespace") + flags, name, text)
    for option, (name, text) in _OF_CONNECTIONS.items():
        _add(group, [f"--{option}"], name, text)


def _add(group: Any, flags: Sequence[str], name: str, text: str) -> None:
    made = group.add_argument(
        *flags, dest=name, action=_Name, default=argparse.SUPPRESS, metavar="X", help=text
    )
    made.of = name


def filter_text(options: argparse.Namespace) -> str:
    """Return the filter of all that was given; ArgumentTypeError where `--not` denies nothing."""
    given = _given(options)
    text = " ".join(options.filter)
    if given.negating:  # what else there is has come before it
        if not text:
            raise argparse.ArgumentTypeError("--not: nothing follows that it denies")
        text = f"not ({text})"
    together: dict[tuple[str, bool], list[str]] = {}
    for condition in given.conditions:
        together.setdefault((condition.name, condition.negated), []).append(condition.text)
    parts = [f"({text})"] if text and together and not given.negating else [text]
    for (_, negated), texts in together.items():
        either = " or ".join(texts)
        bare = len(texts) == 1 and not negated
        parts.append(either if bare else f"{'not ' * negated}({either})")
    return " and ".join(filter(None, parts))


def _value(text: str) -> str:
    """Write what somebody gave as a value; stars in it stay what they are."""
    plain = text.replace("*", "x")
    return text if "*" in text and quote(plain) == plain else quote(text)
