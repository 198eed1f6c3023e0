"""A filled store is used again only as long as it is what would be filled now."""

import json
from pathlib import Path

import pytest
from benchmarks import week
from benchmarks.__main__ import main


def test_what_is_not_a_filled_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(SystemExit, match=r"something else, or was not filled to the end"):
        week.check(tmp_path)


def test_a_store_of_another_schema_is_not_measured(tmp_path: Path) -> None:
    assert not week.check(tmp_path / "none")
    mark = tmp_path / week.MARK
    mark.write_text(json.dumps(week.made_of()))
    assert week.check(tmp_path)
    mark.write_text(json.dumps(week.made_of() | {"filling": week.FILLING + 1}))
    with pytest.raises(SystemExit, match=r"filled by another version"):
        week.check(tmp_path)


def test_options_are_of_some_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["insert", "--store", "/nowhere"])
    assert "insert does not take --store" in capsys.readouterr().err
