"""What Fluent Bit does with a line, by the configuration of deploy/logs.

A model, as the program is in no package registry: of what its configuration uses it does as the
program's source does, and refuses the rest. Its regular expressions run on Oniguruma, of which
Onigmo, Fluent Bit's engine, is a fork.
"""

import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onigurumacffi

Record = dict[str, Any]
Keys = list[tuple[str, str]]

_CRI = r"^(?<time>.+?) (?<stream>stdout|stderr) (?<_p>F|P) (?<log>.*)$"
_LOGFMT = re.compile(r'([^\s"=]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s"=]*)))?')
_REFERENCE = re.compile(r"\$(\w+)")


@dataclass
class Section:
    """One section, with its keys in their order."""

    kind: str
    keys: Keys = field(default_factory=list)

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.keys if name.lower() == key.lower()]

    def one(self, key: str) -> str:
        (value,) = self.all(key)
        return value


def sections(text: str) -> Iterator[Section]:
    section = None
    for line in text.splitlines():
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        if words.startswith("["):
            if section:
                yield section
            section = Section(words.strip("[]"))
        else:
            assert section is not None
            assert line.startswith("    ")
            key, _, value = words.partition(" ")
            section.keys.append((key, value.strip()))
    if section:
        yield section


class Regex:
    """Fluent Bit's use of Onigmo: named groups, those that are empty left out."""

    def __init__(self, text: str) -> None:
        assert "${" not in text  # a variable of the environment
        self._names = re.findall(r"\(\?<(\w+)>", text)
        assert len(set(self._names)) == len(self._names)
        self._compiled = onigurumacffi.compile(text)
        assert self._compiled.number_of_captures() == len(self._names)

    def fields(self, text: str) -> dict[str, str] | None:
        match = self._compiled.search(text)
        if match is None:
            return None
        groups = {name: match[i] for i, name in enumerate(self._names, 1)}
        return {name: value for name, value in groups.items() if value}


class Parser:
    def __init__(self, section: Section) -> None:
        self._format = section.one("Format")
        self._regex = Regex(section.one("Regex")) if self._format == "regex" else None
        self._types = dict(each.split(":") for each in " ".join(section.all("Types")).split())
        time_key = section.all("Time_Key")
        self._without = "" if "On" in section.all("Time_Keep") else "".join(time_key)

    def fields(self, text: str) -> Record | None:
        found: Record | None
        if self._format == "json":
            try:
                found = json.loads(text)
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
        if self._format == "logfmt":
            return {key: _unescaped(quoted) or bare for key, quoted, bare in _LOGFMT.findall(text)}
        assert self._regex is not None
        groups = self._regex.fields(text)
        if groups is None:
            return None
        found = dict(groups)
        for name in self._types.keys() & found.keys():
            assert self._types[name] == "integer"
            found[name] = int(found[name])
        found.pop(self._without, None)
        return found


def _unescaped(text: str) -> str:
    return str(json.loads(f'"{text}"'))


class FluentBit:
    """A node's, with the files that are given to it."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        text = (directory / "fluent-bit.conf").read_text()
        for name, value in environment.items():
            text = text.replace(f"${{{name}}}", value)
        assert "${" not in text
        everything = list(sections(text))
        parsers = list(sections((directory / "parsers.conf").read_text()))
        self.parsers = {s.one("Name"): Parser(s) for s in parsers if s.kind == "PARSER"}
        self._joins = {s.one("Name"): s for s in parsers if s.kind == "MULTILINE_PARSER"}
        self.inputs = [s for s in everything if s.kind == "INPUT"]
        self.filters = [s for s in everything if s.kind == "FILTER"]
        self.outputs = [s for s in everything if s.kind == "OUTPUT"]

    def sent(self, path: str, lines: list[str]) -> list[tuple[dict[str, str], Record]]:
        """Return what Loki gets of a file: labels, and the line's record."""
        (source,) = (
            each
            for each in self.inputs
            if any(fnmatch.fnmatchcase(path, p) for p in each.one("Path").split(","))
        )
        tag = source.one("Tag").replace("*", path.strip("/").replace("/", "."))
        records = list(self._read(source, path, lines))
        for each in self.filters:
            if _matches(each, tag):
                records = self._filtered(each, records)
        (output,) = (each for each in self.outputs if _matches(each, tag))
        return [(_labels(output, record), record) for record in records]

    def _read(self, source: Section, path: str, lines: list[str]) -> Iterator[Record]:
        added = dict.fromkeys(source.all("Path_Key"), path)
        if not source.all("multiline.parser"):
            yield from ({"log": line} | added for line in lines)
            return
        assert source.all("multiline.parser") == ["cri"]
        cri, before = Regex(_CRI), ""
        for line in lines:
            found = cri.fields(line)
            assert found is not None
            found["log"] = before + found.get("log", "")
            before = found["log"] if found["_p"] == "P" else ""
            if not before:
                yield found | added

    def _filtered(self, section: Section, records: list[Record]) -> list[Record]:
        name = section.one("Name")
        if name == "multiline":
            assert section is self.filters[0]
            return self._joined(section, records)
        return [getattr(self, f"_{name}")(section, dict(record)) for record in records]

    def _joined(self, section: Section, records: list[Record]) -> list[Record]:
        key, join = (
            section.one("multiline.key_content"),
            self._joins[section.one("multiline.parser")],
        )
        rules = {}
        for rule in join.all("Rule"):
            state, regex, _ = re.findall(r'"([^"]*)"', rule)
            rules[state] = onigurumacffi.compile(regex.removeprefix("/").removesuffix("/"))
        joined: list[Record] = []
        for record in records:
            if joined and rules["traceback"].search(record[key]):
                joined[-1][key] += "\n" + record[key]
            else:
                joined.append(dict(record))
        return joined

    def _parser(self, section: Section, record: Record) -> Record:
        assert section.one("Reserve_Data") == "On"
        key = section.one("Key_Name")
        if key in record:
            for name in section.all("Parser"):
                found = self.parsers[name].fields(record[key])
                if found is not None:
                    del record[key]
                    assert not found.keys() & record.keys(), "a key twice"
                    return found | record
        return record

    def _record_modifier(self, section: Section, record: Record) -> Record:
        for key in section.all("Remove_key"):
            record.pop(key, None)
        return record | dict(each.split() for each in section.all("Record"))

    def _modify(self, section: Section, record: Record) -> Record:
        for condition in section.all("Condition"):
            word, key = condition.split()
            assert word == "Key_exists"
            if key not in record:
                return record
        for old, new in (each.split() for each in section.all("Rename")):
            if old in record and new not in record:
                record[new] = record.pop(old)
        for key, value in (each.split() for each in section.all("Add")):
            record.setdefault(key, value)
        return record


def _matches(section: Section, tag: str) -> bool:
    for regex in section.all("Match_Regex"):
        return onigurumacffi.compile(regex).search(tag) is not None
    return fnmatch.fnmatchcase(tag, section.one("Match"))


def _labels(output: Section, record: Record) -> dict[str, str]:
    assert output.one("Name") == "loki"
    labels = {}
    for each in output.one("Labels").split(","):
        name, _, value = each.strip().partition("=")
        labels[name] = value
    for each in output.one("Label_Keys").split(","):
        labels[each.strip(" $")] = each.strip()
    for name, value in list(labels.items()):
        if reference := _REFERENCE.fullmatch(value):
            labels[name] = str(record.get(reference[1], ""))
    return {name: value for name, value in labels.items() if value}
