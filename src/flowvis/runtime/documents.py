"""YAML documents as people write them by hand: one mapping, no key twice, of bounded size."""

import re
from collections.abc import Callable
from typing import Any

import yaml

from flowvis.errors import SettingsError

MAX_DOCUMENT_BYTES = 1 << 20  # a ConfigMap holds 1 MiB at most
MAX_INT_BITS = 1024  # a float's largest; Python writes out no number of more than 4300 digits
FREE_VALUES = 1 << 16  # that aliases may add: what people mean by them is some mappings twice

_ALIAS = re.compile(rb"[*][^\s,\[\]{}]")
_COMPOSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TYPED = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "timestamp"))


def sound(loader: Any) -> Any:
    """Return a loader that raises YAMLError, with the place, for all that is no value of its kind.

    A text can look like a number or a time and be none (`2024-02-30`, `0b_`); what PyYAML raises of
    these is what Python's own constructors do, ValueError and others.
    """
    derived: Any = type(f"Sound{loader.__name__}", (loader,), {})
    for tag in _TYPED:
        derived.add_constructor(tag, _placed(loader.yaml_constructors[tag]))
    return derived


def _placed(construct: Callable[[Any, yaml.Node], Any]) -> Callable[[Any, yaml.Node], Any]:
    def placed(loader: Any, node: yaml.Node) -> Any:
        try:
            value = construct(loader, node)
        except (ArithmeticError, AttributeError, LookupError, ValueError):
            value = None
        if value is None or (isinstance(value, int) and value.bit_length() > MAX_INT_BITS):
            # Not the value itself, which may be a secret.
            problem = f"this is no {node.tag.rpartition(':')[2]}: a text needs quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value

    return placed


class _Loader(sound(yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML's classes are Any
    """The safe loader, which would let the last of two equal keys win silently."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._flat: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Look at keys as they were written: this puts merged ones before those they yield to.

        Other mappings may merge this one before it is made itself.
        """
        if node in self._flat:
            return
        self._flat.add(node)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        super().flatten_mapping(node)


def scalar(text: str) -> Any:
    """Return what YAML makes of a text without a document around it; YAMLError if nothing."""
    return yaml.load(text, _Loader)  # noqa: S506  derived from SafeLoader


def parse(data: bytes) -> dict[Any, Any]:
    """Return the mapping of one YAML document; nothing at all is an empty mapping."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SettingsError(
            [f"document: {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} are allowed"]
        )
    try:
        check_aliases(data)
        document = yaml.load(data, _Loader)  # noqa: S506  derived from SafeLoader
    except yaml.YAMLError as error:
        raise SettingsError([f"document: {_one_line(error)}"]) from None
    except RecursionError:
        raise SettingsError(["document: nested too deeply"]) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError([f"document: a mapping of keys to values, not {_kind(document)}"])
    return document


def check_aliases(data: bytes) -> None:
    """Raise YAMLError where the aliases of documents make far more of them than is written.

    Ten lines can stand for a billion values ("billion laughs"), which are all there as soon as
    anybody walks through them: a check, a comparison, a message that shows the value.
    """
    if not _ALIAS.search(data):
        return
    allowed = len(data) + FREE_VALUES  # without aliases a value takes a byte at least
    sizes: dict[int, int] = {}
    for document in yaml.compose_all(data, _COMPOSER):
        allowed -= _size(document, sizes)
        if allowed < 0:
            mark = document.start_mark
            problem = f"aliases make more than {FREE_VALUES} values of it"
            raise yaml.composer.ComposerError(None, None, problem, mark)


def _size(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Return how many values a node has with all aliases followed; `sizes` are known by id."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    known = sizes.get(id(node))
    if known is None:
        sizes[id(node)] = 0
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        known = sizes[id(node)] = 1 + sum(_size(part, sizes) for pair in pairs for part in pair)
    elif not known:
        raise yaml.composer.ComposerError(None, None, "a value contains itself", node.start_mark)
    return known


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"{type(value).__name__} {value!r:.40}"
