"""Short forms of the filter language: options of which each is a condition on records.

`--from-pod shop/cart-0` is `src.pod = shop/cart-0`. What is given twice may be either, different
options must all hold, and `--not` denies the one that follows: `--not --verdict allowed`.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowvis.filters import FilterError, quote
from flowvis.filters.vocabulary import lookup

_OF_ENDS = {
    "namespace": "a namespace",
    "pod": "a Pod: name or namespace/name, * for any characters",
    "workload": "what runs the Pod: name or namespace/name",
    "node": "a node",
    "ip": "an address or a network",
    "port": "a port",
    "label": "a label of the Pod: KEY=VALUE, or KEY for any value",
}
_OF_CONNECTIONS = {
    "service": ("service", "the Service that was called: name, namespace/name[:port]"),
    "protocol": ("proto", "tcp, udp, sctp, icmp, icmpv6 or a number"),
    "type": ("type", "intra-node, inter-node, to-external, from-external"),
    "verdict": ("verdict", "what policies decided: allowed, dropped, rejected, denied, none"),
    "policy": ("policy", "the policy that decided: name or namespace/name"),
}
_SIDES = {"": "", "from-": "src.", "to-": "dst."}
_WHOSE = {"from-": "the source's", "to-": "the destination's"}
_SHORT = {"namespace": "-n"}


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
            name = f"{self.name}.{key}"
            return f"{name} = {_value(value)}" if equals else f"not {name} is empty"
        return f"{self.name} = {_value(self.value)}"


class _Given:
    """The conditions that were given so far, in order; made anew for each command line."""

    def __init__(self) -> None:
        self.conditions: list[_Condition] = []
        self.negating = False

    def add(self, name: str, value: str) -> None:
        self.conditions.append(_Condition(name, self.negated(), value))

    def negated(self) -> bool:
        """Whether what comes now is denied; what comes after it is not."""
        negating, self.negating = self.negating, False
        return negating


def _given(namespace: argparse.Namespace) -> _Given:
    found: _Given | None = getattr(namespace, "given", None)
    if found is None:
        found = namespace.given = _Given()
    return found


class _Name(argparse.Action):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        condition = str(values)
        if self.dest.endswith("label"):
            try:
                lookup(f"{self.dest}.{condition.partition('=')[0]}")
            except FilterError as error:
                raise argparse.ArgumentError(self, str(error)) from error
        _given(namespace).add(self.dest, condition)


class _Not(argparse.Action):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        _given(namespace).negating = True


class _Text(argparse.Action):
    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        if not values:  # argparse says so where there is nothing
            return
        text = " ".join(values)
        namespace.filter = f"not ({text})" if _given(namespace).negated() else text


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add FILTER and the short forms."""
    filtered = parser.add_argument(
        "filter",
        nargs="*",
        default="",
        action=_Text,
        metavar="FILTER",
        help="which records, in the filter language (docs/filters.md): quote it for the shell",
    )
    filtered.of = "filter"  # type: ignore[attr-defined]  # what completes it: `completing`
    group = parser.add_argument_group(
        "short forms of filters",
        "the same option twice: either may hold; different options: all must",
    )
    group.add_argument(
        "--not", nargs=0, action=_Not, default=argparse.SUPPRESS, help="deny what follows"
    )
    for name, text in _OF_ENDS.items():
        for prefix, side in _SIDES.items():
            flags = [f"--{prefix}{name}", *([_SHORT[name]] if not prefix and name in _SHORT else [])]
            _add(group, flags, f"{side}{name}", _WHOSE[prefix] if prefix else text)
    for option, (name, text) in _OF_CONNECTIONS.items():
        _add(group, [f"--{option}"], name, text)


def _add(group: Any, flags: Sequence[str], name: str, text: str) -> None:
    metavar = name.rpartition(".")[2].upper()
    made = group.add_argument(
        *flags, dest=name, action=_Name, default=argparse.SUPPRESS, metavar=metavar, help=text
    )
    made.of = name


def filter_text(options: argparse.Namespace) -> str:
    """Return the one filter of all that was given; argparse's error where `--not` denies nothing."""
    given = _given(options)
    if given.negating:
        raise argparse.ArgumentTypeError("--not: nothing follows that it denies")
    together: dict[tuple[str, bool], list[str]] = {}
    for condition in given.conditions:
        together.setdefault((condition.name, condition.negated), []).append(condition.text)
    parts = [f"({options.filter})"] if options.filter and together else [options.filter]
    for (_, negated), texts in together.items():
        either = " or ".join(texts)
        bare = len(texts) == 1 and not negated
        parts.append(either if bare else f"{'not ' * negated}({either})")
    return " and ".join(filter(None, parts))


def _value(text: str) -> str:
    """Write what somebody gave as a value; stars in it stay what they are."""
    plain = text.replace("*", "x")
    return text if "*" in text and quote(plain) == plain else quote(text)


def names() -> Mapping[str, str]:
    """Return the names of the filter language by the options that stand for them."""
    of_ends = {f"--{p}{n}": f"{side}{n}" for n in _OF_ENDS for p, side in _SIDES.items()}
    return of_ends | {f"--{option}": name for option, (name, _) in _OF_CONNECTIONS.items()}
