"""What is built: it is in wheels, small, and of this place only."""

import gzip
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tools import console

ROOT = Path(__file__).parents[2]
BUDGET = 400_000  # bytes, compressed
FIRST = 100_000  # of them before anything is seen


def wheel(sources: Path, where: Path, **environment: str) -> list[str]:
    """Names of the files in a wheel that is built of some sources."""
    code = (
        f"import sys; sys.path[:0] = ['tools']\nfrom backend import *; build_wheel({str(where)!r})"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=sources,
        env=os.environ | {"FLOWVIS_NATIVE": "never"} | environment,
        check=True,
        capture_output=True,
    )
    (built,) = where.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is checked out, with the console as it is built."""
    copy = tmp_path_factory.mktemp("checkout") / "flowvis"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    leave = shutil.ignore_patterns("node_modules", "*.so", "*.c", "__pycache__")
    for name in ("src", "tools", "console"):
        shutil.copytree(ROOT / name, copy / name, ignore=leave)
    return copy


def test_a_wheel_has_the_console(sources: Path, tmp_path: Path) -> None:
    names = wheel(sources, tmp_path)
    built = {
        f"flowvis/console/{path.relative_to(console.BUILT).as_posix()}"
        for path in console.BUILT.rglob("*")
        if path.is_file()
    }
    assert "flowvis/console/index.html" in built
    assert built <= set(names)
    assert not any("node_modules" in name or name.endswith(".tsx") for name in names)


def test_an_image_takes_what_another_stage_has_built(sources: Path, tmp_path: Path) -> None:
    away = sources.with_name("away")
    (sources / "console").rename(away)
    try:
        # No Node is looked for: there is none in that stage.
        names = wheel(sources, tmp_path, PATH="/nowhere")
    finally:
        away.rename(sources / "console")
    assert "flowvis/console/index.html" in names


def test_a_wheel_for_the_exporter_has_none(sources: Path, tmp_path: Path) -> None:
    names = wheel(sources, tmp_path, FLOWVIS_CONSOLE="never")
    assert "flowvis/cli/exporter.py" in names
    assert not any(name.startswith("flowvis/console/") for name in names)


def test_what_is_built_is_current(tmp_path: Path) -> None:
    assert console.current()
    copy = tmp_path / "console"
    shutil.copytree(console.SOURCES, copy, ignore=shutil.ignore_patterns("node_modules"))
    assert console.current(copy)
    (copy / "src" / "main.tsx").write_text("// changed")
    assert not console.current(copy)


def test_without_sources_and_without_a_build_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(console.ConsoleError, match="FLOWVIS_CONSOLE=never"):
        console.build(tmp_path / "none", tmp_path / "built")


def test_it_is_small() -> None:
    sizes = {
        path.name: len(gzip.compress(path.read_bytes(), 9))
        for path in console.BUILT.rglob("*")
        if path.is_file()
    }
    assert sum(sizes.values()) < BUDGET
    first = (console.BUILT / "index.html").read_text()
    named = [name for name in sizes if name in first]
    assert named
    assert sum(sizes[name] for name in named) < FIRST


def test_it_has_nothing_inline_and_fetches_nothing_from_elsewhere() -> None:
    index = (console.BUILT / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", index) == []
    assert "<style" not in index
    assert " style=" not in index
    for path in console.BUILT.rglob("*"):
        if path.is_file():
            found = set(re.findall(r"https?://[\w.-]+", path.read_text()))
            assert found <= {"http://www.w3.org"}, path  # the names of SVG and MathML


def test_the_lock_file_says_what_is_taken_and_not_from_where() -> None:
    text = (console.SOURCES / "package-lock.json").read_text()
    assert '"resolved"' not in text
    assert text.count('"integrity"') > 50
