"""Renders kustomizations without the kustomize program, as far as deploy/ uses it.

`resources`, `components`, `configMapGenerator` (files), `secretGenerator` (envs), `behavior:
replace`, `options` (disableNameSuffixHash, labels), `images` (newName, newTag, digest), `patches`
(JSON patches) and `namespace`.
Anything else is an error: another field would silently be left out.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from flowvis.errors import SettingsError

Object = dict[str, Any]
Name = tuple[str, str, str]
"""Kind, namespace and name."""
Entry = tuple[Object, bool]
"""An object, and whether its name gets a hash."""

FIELDS = {
    "apiVersion", "kind", "resources", "components", "configMapGenerator", "secretGenerator",
    "images", "patches", "namespace",
}  # fmt: skip
GENERATOR_FIELDS = {"name", "namespace", "behavior", "files", "envs", "options"}

FIRST = (
    "Namespace", "PriorityClass", "ServiceAccount", "Role", "ClusterRole", "RoleBinding",
    "ClusterRoleBinding", "ConfigMap", "Secret", "Service",
)  # fmt: skip

_DIGITS = str.maketrans("013ae", "ghkmt")  # a hash must not spell words


def render(directory: Path) -> list[Object]:
    """Return the objects of a kustomization, those first that others need."""
    found = list(_build(directory).values())
    renamed = {}
    for item, hashed in found:
        if hashed:
            old = _name(item)
            item["metadata"]["name"] += "-" + _hash(item)
            renamed[old] = item["metadata"]["name"]
    for item, _ in found:
        _refer(item, item["metadata"].get("namespace", ""), renamed)
    return sorted((item for item, _ in found), key=_rank)


def dump(objects: list[Object]) -> str:
    """Return objects as a stream of YAML documents."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=1000, explicit_start=True)


def images_of(item: Object) -> set[str]:
    """Return the names of an object's images, without tags and digests."""
    return {_split(value[key])[0] for value, key in _places(item) if key == "image"}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]  # PyYAML's own way


def _build(directory: Path) -> dict[Name, Entry]:
    """Return the objects of a kustomization by name."""
    return _applied(directory, {})


def _applied(directory: Path, found: dict[Name, Entry]) -> dict[Name, Entry]:
    """Add what a directory says to what there is: nothing before a kustomization, all before a
    component."""
    path = directory / "kustomization.yaml"
    about = yaml.safe_load(path.read_text())
    _only(path, about, FIELDS)
    for resource in about.get("resources", ()):
        for name, entry in _resource(directory / resource):
            if name in found:
                raise SettingsError([f"{path}: {resource}: {' '.join(name)} is there already"])
            found[name] = entry
    for component in about.get("components", ()):
        found = _applied(directory / component, found)
    _generate(path, about, found)
    for image in about.get("images", ()):
        _only(path, image, {"name", "newName", "newTag", "digest"})
        for item, _ in found.values():
            _rename(item, image)
    for patch in about.get("patches", ()):
        _only(path, patch, {"target", "patch"})
        _only(path, patch["target"], {"kind", "name", "namespace"})
        for (kind, namespace, called), (item, _) in found.items():
            its = {"kind": kind, "name": called, "namespace": namespace}
            if patch["target"].items() <= its.items():
                _patch(path, item, yaml.safe_load(patch["patch"]))
    return _moved(found, about["namespace"]) if "namespace" in about else found


def _generate(path: Path, about: Object, found: dict[Name, Entry]) -> None:
    for generator, item in _generated(path, about):
        if (_name(item) in found) != (generator.get("behavior") == "replace"):
            problem = "behavior is replace where it exists already, and only there"
            raise SettingsError([f"{path}: {generator['name']}: {problem}"])
        hashed = _is_hashed(path, generator)
        if found.get(_name(item), (item, hashed))[1] != hashed:
            problem = "options are those of what is replaced"
            raise SettingsError([f"{path}: {generator['name']}: {problem}"])
        found[_name(item)] = item, hashed


def _resource(path: Path) -> Iterator[tuple[Name, Entry]]:
    if path.is_dir():
        yield from _build(path).items()
    else:
        for item in yaml.safe_load_all(path.read_text()):
            yield _name(item), (item, False)


def _generated(path: Path, about: Object) -> Iterator[tuple[Object, Object]]:
    """Go through the generators and what they make."""
    for generator in about.get("configMapGenerator", ()):
        _only(path, generator, GENERATOR_FIELDS - {"envs"})
        yield generator, _made("ConfigMap", generator) | {"data": _files(path.parent, generator)}
    for generator in about.get("secretGenerator", ()):
        _only(path, generator, GENERATOR_FIELDS - {"files"})
        secret = _made("Secret", generator) | {"type": "Opaque"}
        yield generator, secret | {"data": _envs(path.parent, generator)}


def _is_hashed(path: Path, generator: Mapping[str, Any]) -> bool:
    """Whether the name of what a generator makes is to end in a hash."""
    options = generator.get("options", {})
    _only(path, options, {"disableNameSuffixHash", "labels"})
    return not options.get("disableNameSuffixHash", False)


def _made(kind: str, generator: Mapping[str, Any]) -> Object:
    about = {"name": generator["name"], "namespace": generator["namespace"]}
    if labels := generator.get("options", {}).get("labels"):
        about["labels"] = dict(labels)
    return {"apiVersion": "v1", "kind": kind, "metadata": about}


def _files(directory: Path, generator: Mapping[str, Any]) -> dict[str, str]:
    return {name: (directory / name).read_text() for name in generator["files"]}


def _envs(directory: Path, generator: Mapping[str, Any]) -> dict[str, str]:
    texts = ((directory / name).read_text() for name in generator["envs"])
    lines = (line.lstrip() for text in texts for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: base64.b64encode(value.encode()).decode() for key, _, value in pairs}


def _hash(item: Object) -> str:
    """Return the ending that kustomize gives a generated object: a hash of its content.

    kustomize means to have the name in it, but looks for it where it is not.
    """
    content = {"kind": item["kind"], "name": "", "data": item["data"]}
    if "type" in item:
        content["type"] = item["type"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":  # as Go writes JSON
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(_DIGITS)


def _refer(item: Object, namespace: str, renamed: Mapping[Name, str]) -> None:
    """Give references to generated objects their new names."""
    for value, key in _places(item):
        for kind, place, name in (
            ("ConfigMap", "configMap", "name"), ("ConfigMap", "configMapKeyRef", "name"),
            ("ConfigMap", "configMapRef", "name"), ("Secret", "secretKeyRef", "name"),
            ("Secret", "secretRef", "name"), ("Secret", "secret", "secretName"),
            ("Secret", "secret", "name"),
        ):  # fmt: skip
            if key == place and isinstance(value[key], dict) and name in value[key]:
                old = (kind, namespace, value[key][name])
                value[key][name] = renamed.get(old, value[key][name])


def _rename(item: Object, image: Mapping[str, str]) -> None:
    """Give all uses of an image another name, tag or digest; a digest takes the tag's place."""
    for value, key in _places(item):
        if key != "image":
            continue
        name, separator, rest = _split(value[key])
        if name != image["name"]:
            continue
        if "newTag" in image:
            separator, rest = ":", image["newTag"]
        if "digest" in image:
            separator, rest = "@", image["digest"]
        value[key] = image.get("newName", name) + separator + rest


def _split(image: str) -> tuple[str, str, str]:
    """Return an image's name, and `:` with its tag or `@` with its digest."""
    name, at, digest = image.partition("@")
    if at:
        return name, at, digest
    registry, slash, last = image.rpartition("/")  # a registry may have a port
    name, colon, tag = last.partition(":")
    return registry + slash + name, colon, tag


def _patch(path: Path, item: Object, steps: list[Object]) -> None:
    """Apply a JSON patch (RFC 6902), as far as it does not move or copy."""
    for step in steps:
        _only(path, step, {"op", "path", "value"})
        *way, last = (int(key) if key.isdigit() else key for key in step["path"].split("/")[1:])
        parent: Any = item
        for key in way:
            parent = parent[key]
        match step["op"]:
            case "remove":
                del parent[last]
            case "add" if last == "-":
                parent.append(step["value"])
            case "add" if isinstance(parent, list):
                parent.insert(last, step["value"])
            case "add":
                parent[last] = step["value"]
            case "replace" if last in parent:
                parent[last] = step["value"]
            case "test" if parent[last] == step["value"]:
                pass
            case _:
                problem = "no step that is known here, on what is there"
                raise SettingsError([f"{path}: {step}: {problem}"])


def _moved(found: Mapping[Name, Entry], namespace: str) -> dict[Name, Entry]:
    """Bring all that has a namespace to another one; subjects of bindings follow."""
    for item, _ in found.values():
        for subject in item.get("subjects", ()):
            if (subject["kind"], subject["namespace"], subject["name"]) in found:
                subject["namespace"] = namespace
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
    return {_name(item): (item, generated) for item, generated in found.values()}


def _places(value: Any) -> Iterator[tuple[Object, str]]:
    """Go through all mappings in a document, key by key."""
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for item in value:
            yield from _places(item)


def _only(path: Path, about: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(about) - known)
    if unknown:
        raise SettingsError(
            [f"{path}: {', '.join(unknown)}: only {', '.join(sorted(known))} are rendered here"]
        )


def _name(item: Object) -> Name:
    about = item["metadata"]
    return item["kind"], about.get("namespace", ""), about["name"]


def _rank(item: Object) -> int:
    return FIRST.index(item["kind"]) if item["kind"] in FIRST else len(FIRST)
