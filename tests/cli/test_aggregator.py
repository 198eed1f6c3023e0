import logging
from pathlib import Path

import pytest
import yaml

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli.aggregator import announce, main
from flowvis.runtime.settings import load


def config(path: Path, text: str) -> list[str]:
    file = path / "flow-aggregator.conf"
    file.write_text(text)
    return ["--config", str(file)]


def test_check_prints_the_effective_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CH_PASSWORD", "of-the-store")
    text = "clusterID: east\nclickHouse: {enable: true, databaseURL: 'tcp://db:9000'}\n"
    assert main(["check", *config(tmp_path, text)]) == 0
    out = capsys.readouterr().out
    assert "of-the-store" not in out
    document = yaml.safe_load(out)
    assert document["clusterID"] == "east"
    assert document["clickHouse"]["commitInterval"] == "8s"
    document["clickHouse"].pop("password")
    again = load(AggregatorSettings, yaml.safe_dump(document).encode(), {})
    assert again == load(AggregatorSettings, text.encode(), {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("modes: x\n", "modes: unknown key; did you mean mode?"),
        ("clickHouse: {enable: true, databaseURL: 'http://db'}", "clickHouse.databaseURL"),
        ("clickHouse: {enable: true, databaseURL: 'embedded://x'}", "clickHouse.databaseURL"),
        (
            "clickHouse: {enable: true, databaseURL: 'embedded:///x', cluster: y}",
            "clickHouse.cluster",
        ),
        ("clickHouse: {monitor: {threshold: 1.5}}", "clickHouse.monitor.threshold"),
        ("a: [", "line 1"),
    ],
)
def test_check_says_what_is_wrong(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *config(tmp_path, text)]) == 1
    assert problem in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(tmp_path / "none")]) == 1
    assert f"{tmp_path}/none: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    assert "flow-aggregator" in capsys.readouterr().out


def test_commits_are_logged_while_that_is_wanted() -> None:
    commits = logging.getLogger("flowvis.clickhouse")
    for wanted in (True, False):
        announce(load(AggregatorSettings, b"clickHouse: {debug: %s}" % str(wanted).encode(), {}))
        assert commits.isEnabledFor(logging.DEBUG) is wanted
