"""YAML documents as people write them by hand: one mapping, no key twice, of bounded size."""

from typing import Any

import yaml

from flowvis.errors import SettingsError

MAX_DOCUMENT_BYTES = 1 << 20  # a ConfigMap holds 1 MiB at most


class _Loader(yaml.SafeLoader):
    """The safe loader, which would let the last of two equal keys win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse(data: bytes) -> dict[Any, Any]:
    """Return the mapping of one YAML document; nothing at all is an empty mapping."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SettingsError(
            [f"document: {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} are allowed"]
        )
    try:
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


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"{type(value).__name__} {value!r:.40}"
