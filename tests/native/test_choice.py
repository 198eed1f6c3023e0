"""Which leaves run: the compiled ones or an error, and the references where they are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flowvis
from flowvis.native import contract, reference

REFERENCES = ("codes", "conntrack", "dpctl", "flows", "halves", "ipfix", "lz4", "merge", "strings")
LEAVES = (*REFERENCES, "tls")  # whose plain form runs where OpenSSL is out of reach

IMPORT = "import flowvis.native as n; print(n.MODE, n.COMPILED, n.StringTable.__module__)"


def imported(native: str | None, tree: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "FLOWVIS_NATIVE"}
    environment |= {} if native is None else {"FLOWVIS_NATIVE": native}
    environment |= {} if tree is None else {"PYTHONPATH": str(tree)}
    return subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(params=LEAVES)
def tree_without(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A package in which one leaf is not compiled."""
    (tmp_path / "flowvis").symlink_to(tmp_path / "copy")
    source, copy = Path(flowvis.__file__).parent, tmp_path / "copy"
    (copy / "native").mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "native":
            (copy / path.name).symlink_to(path)
    for path in (source / "native").iterdir():
        if not (path.name.startswith(f"{request.param}.") and path.suffix == ".so"):
            (copy / "native" / path.name).symlink_to(path)
    return request.param, tmp_path


@pytest.mark.parametrize("native", [None, "require"])
def test_the_compiled_ones_are_the_default(native: str | None) -> None:
    assert imported(native).stdout.split() == ["require", "True", "flowvis.native.strings"]


def test_references_run_where_they_are_asked_for() -> None:
    found = imported("never").stdout.split()
    assert found == ["never", "False", "flowvis.native.reference.strings"]


def test_another_word_is_an_error_that_names_the_right_ones() -> None:
    assert "FLOWVIS_NATIVE='auto': use require or never" in imported("auto").stderr


def test_a_missing_leaf_is_an_error_that_says_what_to_do(tree_without: tuple[str, Path]) -> None:
    name, tree = tree_without
    result = imported(None, tree)
    assert result.returncode != 0
    assert f"flowvis.native.{name} is not compiled: install a C compiler" in result.stderr
    assert "pip install" in result.stderr


def test_every_leaf_has_a_reference_and_what_they_share_is_no_reference() -> None:
    here = Path(reference.__file__).parent
    assert {path.stem for path in here.glob("[a-z]*.py")} == set(REFERENCES)
    for path in Path(contract.__file__).parent.glob("*.py"):
        assert "native.reference" not in path.read_text()


def test_nothing_in_production_needs_a_reference() -> None:
    root = Path(flowvis.__file__).parent
    users = {
        path.relative_to(root).parts[0]
        for path in root.rglob("*.py")
        if "native.reference" in path.read_text()
    }
    assert users == {"native"}
