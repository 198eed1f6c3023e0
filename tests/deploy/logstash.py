"""What Logstash does with an event, by the filters of deploy/logstash.

A model, as the program is in no package registry: of what the pipeline uses it does as the
program's documentation says, and refuses the rest.
"""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Step = Callable[[Event], None]

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<text>"[^"]*"|'[^']*') | (?P<field>(?:\[\w+\])+)"""
    r""" | (?P<sign>=>|[!=]=|[!{}]) | (?P<word>\w+)""",
    re.VERBOSE,
)
_REFERENCE = re.compile(r"%\{((?:\[\w+\])+)\}")

POLICY_NAMES = """\
["throughput", "reverseThroughput"].each do |name|
rate = event.get("[ipfix][" + name + "FromSourceNode]")
event.set("[ipfix][" + name + "]", rate / 8) if rate.is_a?(Integer)
end
["ingressNetworkPolicy", "egressNetworkPolicy"].each do |policy|
["Name", "Namespace"].each do |part|
event.set("[ipfix][" + policy + part + "]", "N/A") if event.get("[ipfix][" + policy + part + "]").to_s.empty?
end
end"""  # noqa: E501


def _policy_names(event: Event) -> None:
    for name in ("throughput", "reverseThroughput"):
        rate = get(event, f"[ipfix][{name}FromSourceNode]")
        if isinstance(rate, int):
            put(event, f"[ipfix][{name}]", rate // 8)
    for policy in ("ingressNetworkPolicy", "egressNetworkPolicy"):
        for part in ("Name", "Namespace"):
            if get(event, f"[ipfix][{policy}{part}]") in (None, ""):
                put(event, f"[ipfix][{policy}{part}]", "N/A")


RUBY: dict[str, Step] = {POLICY_NAMES: _policy_names}
"""Code that is understood, without its indentation, and what it does."""


def get(event: Event, reference: str) -> Any:
    """What is in a field, None if it is not there."""
    found: Any = event
    for name in reference[1:-1].split("]["):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def put(event: Event, reference: str, value: Any) -> None:
    *above, last = reference[1:-1].split("][")
    for name in above:
        event = event.setdefault(name, {})
    event[last] = value


class Pipeline:
    """The filters of a configuration."""

    def __init__(self, path: Path) -> None:
        (text,) = re.findall(r"^filter \{\n(.*?)^\}\n", path.read_text(), re.MULTILINE | re.DOTALL)
        self._tokens = list(_tokens(text))
        self._at = 0
        self._steps = self._block(end=False)

    def through(self, event: Event) -> Event:
        """What comes out."""
        found = copy.deepcopy(event)
        for step in self._steps:
            step(found)
        return found

    def _next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _sees(self, value: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at][1] == value

    def _takes(self, value: str) -> bool:
        seen = self._sees(value)
        self._at += seen
        return seen

    def _expect(self, value: str) -> None:
        assert self._takes(value), (value, self._tokens[self._at :][:5])

    def _block(self, *, end: bool = True) -> list[Step]:
        steps = []
        while self._at < len(self._tokens) and not self._sees("}"):
            steps.append(self._choice() if self._takes("if") else self._filter())
        if end:
            self._expect("}")
        return steps

    def _choice(self) -> Step:
        conditions = [self._condition()]
        while self._takes("and"):
            conditions.append(self._condition())
        self._expect("{")
        so, otherwise = self._block(), []
        if self._takes("else"):
            self._expect("{")
            otherwise = self._block()

        def step(event: Event) -> None:
            for each in so if all(holds(event) for holds in conditions) else otherwise:
                each(event)

        return step

    def _condition(self) -> Callable[[Event], bool]:
        negated = self._takes("!")
        kind, field = self._next()
        assert kind == "field", field
        if self._takes("!="):
            _, text = self._next()
            return lambda event: get(event, field) != text
        # What is there holds, an empty text too.
        return lambda event: (get(event, field) not in (None, False)) != negated

    def _filter(self) -> Step:
        _, name = self._next()
        self._expect("{")
        options = self._pairs()
        if name == "ruby":
            code = "\n".join(line.strip() for line in options.pop("code").strip().splitlines())
            assert not options
            assert code in RUBY, f"no model of this Ruby:\n{code}"
            return RUBY[code]
        kinds: dict[str, Callable[..., Step]] = {"mutate": _mutate, "translate": _translate}
        return kinds[name](**options)

    def _pairs(self) -> dict[str, Any]:
        found = {}
        while not self._takes("}"):
            _, key = self._next()
            self._expect("=>")
            found[key] = self._pairs() if self._takes("{") else self._next()[1]
        return found


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found, text[at : at + 40]
        at = found.end()
        if kind := found.lastgroup:
            value = found[kind]
            yield kind, value[1:-1] if kind == "text" else value


def _mutate(*, copy: dict[str, str] | None = None, add_field: dict[str, str] | None = None) -> Step:
    def step(event: Event) -> None:
        for source, target in (copy or {}).items():
            if (value := get(event, source)) is not None:
                put(event, target, value)
        for target, text in (add_field or {}).items():
            put(event, target, _written(event, text))

    return step


def _translate(
    *, source: str, target: str, override: str, dictionary: dict[str, str], fallback: str
) -> Step:
    assert override == "true"

    def step(event: Event) -> None:
        if (value := get(event, source)) is not None:
            put(event, target, dictionary.get(str(value), _written(event, fallback)))

    return step


def _written(event: Event, text: str) -> str:
    """A text with fields in it; one that is not there stays as it is written."""

    def value(found: re.Match[str]) -> str:
        inside = get(event, found[1])
        return found[0] if inside is None else str(inside)

    return _REFERENCE.sub(value, text)
