from pathlib import Path

import pytest

from flowvis.cli.docs import main, pages
from flowvis.fields import FIELDS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages())
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run `make docs`"


def test_every_field_is_documented() -> None:
    text = pages()["elements.md"]
    for field in FIELDS:
        assert f"| `{field.name}` |" in text


def test_options_of_both_daemons_are_documented() -> None:
    text = pages()["configuration.md"]
    for key in ("flowExporter.flowCollectorAddr", "clickHouse.commitInterval", "listen.port"):
        assert f"| `{key}` |" in text


def test_writing_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(pages())
    assert str(tmp_path / "elements.md") in capsys.readouterr().out
