import re
import shlex
from pathlib import Path

import pytest
from tools.docs import main, pages

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli import flowctl
from flowvis.cli.conditions import filter_text
from flowvis.exporter.settings import ExporterSettings
from flowvis.fields import FIELDS
from flowvis.filters import parse
from flowvis.runtime.changes import options

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
    stale = (DOCS / "clickhouse.md").read_text().replace("| destinationIP |", "| other |")
    (tmp_path / "clickhouse.md").write_text(stale)
    for name in ("api.md", "operating.md", "questions.md", "security.md"):
        (tmp_path / name).write_text((DOCS / name).read_text())
    assert main([str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == pages()
    assert str(tmp_path / "elements.md") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "section"),
    [(ExporterSettings, "## flow-exporter"), (AggregatorSettings, "## flow-aggregator")],
)
def test_the_table_says_what_takes_effect_live(settings: type, section: str) -> None:
    text = pages()["configuration.md"]
    rows = text.partition(f"\n{section}\n")[2].partition("\n## ")[0].splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows if row.startswith("| `")]
    # Of a list of sections the options are told, and not the list itself.
    said = {row[0].strip("`").partition("[].")[0]: row[-1] for row in cells}
    known = {path: "live" if live else "restart" for path, live in options(settings).items()}
    assert {path: said.get(path) for path in known} == known
    (summary,) = (
        line for line in text.splitlines() if line.startswith(f"| {section.strip('# ')} | ")
    )
    named = re.findall(r"`([^`]+)`", summary)
    for path, change in known.items():
        listed = any(path == name or path.startswith(name.rstrip("*")) for name in named)
        assert listed is (change == "live"), path


_IN_TEXT = re.compile(r"`(?:flowctl|kubectl flowvis) ([^`]+)`")
_ON_A_LINE = re.compile(
    r"^\s*(?:kubectl -n \S+ exec \S+ -- )?(?:flowctl|kubectl flowvis) (.+)$", re.MULTILINE
)
_PLACEHOLDER = re.compile(r"[A-Z]{4}|\.\.\.$|\.yml$")


def commands(page: str) -> list[list[str]]:
    """What a page has people type behind `flowctl`, but for names of commands alone."""
    text = (DOCS.parent / page).read_text()
    written = [*_IN_TEXT.findall(text), *_ON_A_LINE.findall(text)]
    found = [shlex.split(each, comments=True) for each in dict.fromkeys(written)]
    return [
        words
        for words in found
        if len(words) > 1 and not any(_PLACEHOLDER.search(word) for word in words)
    ]


PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))]


def test_commands_on_pages_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    seen = [(page, words) for page in PAGES for words in commands(page)]
    assert len(seen) > 60
    for page, words in seen:
        until = next((n for n, word in enumerate(words) if word in {"|", "<", ">"}), len(words))
        given = flowctl.attached(words[:until])
        named = [*flowctl.commands_in(given), *(each for each in given if each == flowctl.LAB)]
        try:
            options = flowctl._parser(named).parse_args(given)
        except SystemExit:
            raise AssertionError(f"{page}: {words}: {capsys.readouterr().err}") from None
        if getattr(options, "filter", None):
            parse(filter_text(options))
