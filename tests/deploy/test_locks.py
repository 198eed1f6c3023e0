"""The images' Python packages: all of them, by hash, and nothing of where they came from."""

import importlib.metadata
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag, cpython_tags
from packaging.utils import canonicalize_name
from tools import lock
from tools.lock import BUILD, LOCKS, MACHINES, PACKAGES, PYTHONS, Locked, Wheel

from deploy.rendered import ROOT


def locked(name: str) -> dict[str, Locked]:
    return {each.name: each for each in lock.read(PACKAGES / f"{name}.lock")}


def supported(python: str, machine: str) -> set[Tag]:
    """What an interpreter of an image installs."""
    major, minor = map(int, python.split("."))
    found = set(cpython_tags((major, minor), platforms=list(lock.platforms(machine))))
    versions = [f"py{major}", *(f"py{major}{lower}" for lower in range(minor + 1))]
    return found | {Tag(version, "none", "any") for version in versions}


def tags(wheel: Wheel) -> set[Tag]:
    python, abi, platform = (part.split(".") for part in wheel.tags)
    return {Tag(p, a, on) for p in python for a in abi for on in platform}


def missing(requirements: Iterable[Requirement], there: dict[str, Locked]) -> list[str]:
    """The requirements that a lock does not satisfy, whatever else they need included."""
    todo, done, found = list(requirements), set(), []
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (name, str(wanted)) in done:
            continue
        done.add((name, str(wanted)))
        if name not in there or not wanted.specifier.contains(there[name].version):
            found.append(str(wanted))
            continue
        for text in importlib.metadata.requires(name) or ():
            further = Requirement(text)
            environments = [
                {"extra": extra, "python_version": python, "platform_machine": machine}
                for extra in (*wanted.extras, "")
                for python in PYTHONS
                for machine in MACHINES
            ]
            marker = further.marker
            if marker is None or any(map(marker.evaluate, environments)):
                todo.append(Requirement(further.name))  # of another version here, perhaps
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_it_has_all_that_pyproject_asks_for(name: str) -> None:
    wanted = [Requirement(text) for text in lock.requirements(name)]
    assert wanted
    assert missing(wanted, locked(name)) == []


def test_what_is_not_locked_would_be_found() -> None:
    wanted = [Requirement(text) for text in lock.requirements("flow-aggregator-embedded")]
    there = locked("flow-aggregator")
    assert missing(wanted, there) == ["chdb>=3"]
    del there["multidict"]  # of aiohttp and yarl
    assert set(missing(wanted, there)) == {"chdb>=3", "multidict"}
    assert missing([Requirement("numpy>=99")], there) == ["numpy>=99"]


@pytest.mark.parametrize("name", LOCKS)
def test_each_package_has_a_wheel_for_every_interpreter_and_machine(name: str) -> None:
    for package in locked(name).values():
        for wheel in package.wheels:
            project, version = wheel.file.split("-")[:2]
            assert (canonicalize_name(project), version) == (package.name, package.version)
        for python in PYTHONS:
            for machine in MACHINES:
                fitting = [w for w in package.wheels if tags(w) & supported(python, machine)]
                assert fitting, f"{package.name}: none for CPython {python} on {machine}"


def test_locks_agree_on_versions() -> None:
    versions: dict[str, set[str]] = {}
    for name in LOCKS:
        for package in locked(name).values():
            versions.setdefault(package.name, set()).add(package.version)
    assert {name for name, found in versions.items() if len(found) > 1} == set()


@pytest.mark.parametrize("name", LOCKS)
def test_it_is_written_as_it_is_read_and_says_no_address(name: str) -> None:
    text = (PACKAGES / f"{name}.lock").read_text()
    assert lock.written(name, list(locked(name).values())) == text
    assert "/" not in text
    assert "index" not in text
    assert not re.search(r"\b(https?|file|www)\b", text)


@pytest.mark.parametrize(
    "line",
    ["numpy==2.0", "--index-url x", "numpy>=2 \\", "    --hash=md5:00", "x @ y", "numpy"],
)
def test_another_line_is_an_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "one.lock"
    path.write_text((PACKAGES / f"{BUILD}.lock").read_text() + line + "\n")
    with pytest.raises(ValueError, match="not a line of a lock"):
        lock.read(path)


@pytest.mark.parametrize("name", ["Dockerfile.agent", "Dockerfile.aggregator"])
def test_images_are_made_of_what_is_locked_and_of_nothing_else(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("RUN")]
    installs = [part for line in commands for part in line.split("&&") if "/pip " in part]
    assert len(installs) == 5
    for install in installs:
        if " install " in install and "-r " in install:
            assert "--require-hashes --only-binary :all: -r packages/" in install
        elif "pip check" not in install:
            assert "--no-index --no-deps" in install
    used = set(re.findall(r"packages/([\w{}$-]+)\.lock", "".join(commands)))
    wanted = {"flow-exporter"} if name == "Dockerfile.agent" else {"${LOCK}"}
    assert used == wanted | {BUILD}
    # What is copied is in the context; and the base is one name, which a release pins by digest.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "!packages" in ignored
    bases = re.findall(r"^FROM (\S+)(?: AS (\S+))?", text, re.MULTILINE)
    console = [("${NODE_IMAGE}", "console")] if name == "Dockerfile.aggregator" else []
    assert bases == [*console, ("${PYTHON_IMAGE}", "build"), ("${PYTHON_IMAGE}", "")]
    # Of the stage with Node nothing is kept but what it built.
    kept = re.findall(r"^COPY --from=console (\S+) (\S+)$", text, re.MULTILINE)
    assert kept == [("/src/src/flowvis/console", "./src/flowvis/console")] * len(console)
    assert ("FLOWVIS_CONSOLE=never" in text) == (not console)
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", text, re.MULTILINE)
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-bookworm", base)
    assert version is not None
    assert version[1] in PYTHONS
