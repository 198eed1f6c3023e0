"""What is not installed is not needed, and where it is, the message says how to get it."""

import subprocess
import sys
from pathlib import Path

import pytest

from flowvis.errors import SettingsError
from flowvis.inventory.sources.access import Kubeconfig

WITHOUT = """
import sys
for name in {missing!r}: sys.modules[name] = None
from flowvis.cli.{command} import main
sys.exit(main(sys.argv[1:]))
"""
PEOPLE = ("rich", "kubernetes")
AGENT = (*PEOPLE, "clickhouse_driver", "lz4", "clickhouse_cityhash", "chdb", "re2")


def run(
    command: str, missing: tuple[str, ...], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    code = WITHOUT.format(missing=missing, command=command)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_exporter_runs_with_what_its_image_has() -> None:
    result = run("exporter", AGENT, "--version")
    assert result.returncode == 0, result.stderr


def test_the_aggregator_checks_a_configuration_without_what_people_need(tmp_path: Path) -> None:
    path = tmp_path / "flow-aggregator.conf"
    path.write_text("clickHouse: {enable: true, databaseURL: tcp://localhost:9000}\n")
    result = run("aggregator", PEOPLE, "check", "--config", str(path))
    assert result.returncode == 0, result.stderr


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    path = tmp_path / "flow-aggregator.conf"
    path.write_text("clickHouse: {enable: true, databaseURL: tcp://localhost:9000}\n")
    result = run("aggregator", ("clickhouse_driver",), "check", "--config", str(path))
    assert result.returncode == 1
    message = "clickHouse.databaseURL: the package clickhouse_driver is not installed: "
    assert f"{message}pip install 'flowvis[aggregator]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_kubeconfig_without_its_reader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*filter(lambda name: name.split(".")[0] == "kubernetes", sys.modules)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(SettingsError, match=r"kubeconfig: .* pip install 'flowvis\[people\]'"):
        Kubeconfig(Path("config"))


def test_flowctl_without_tables_says_what_to_install() -> None:
    result = run("flowctl", ("rich",), "status")
    assert result.returncode == 1
    assert "pip install 'flowvis[people]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_flowctl_without_the_lab_says_so(tmp_path: Path) -> None:
    code = (
        "import sys; import flowvis.cli.flowctl as f; f.find_spec = lambda name: None; "
        "sys.exit(f.main(['lab', 'run']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "the lab is not in this image" in result.stderr
