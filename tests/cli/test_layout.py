"""Lines that fit a terminal, and numbers as people say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from flowvis.cli.amounts import amount, change, share, sparkline
from flowvis.cli.layout import Column, Layout, excerpt, shortened

NAMES = st.text("ab日-/\x1b", min_size=0, max_size=60)


@given(NAMES, st.integers(0, 40))
def test_a_name_is_shortened_in_its_middle(text: str, cells: int) -> None:
    found = shortened(text, cells)
    assert cell_len(found) <= cells
    if cell_len(text) <= cells:
        assert found == text
    elif cells:
        head, mark, tail = found.partition("…")
        assert mark
        assert text.startswith(head)
        assert text.endswith(tail)


def test_the_ends_of_a_name_stay() -> None:
    assert shortened("shop/frontend-7d4b9c6f5-x2k9q", 16) == "shop/fron…-x2k9q"


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 10**12)), max_size=8))
def test_a_table_of_80_cells(rows: list[tuple[str, str, int]]) -> None:
    layout = Layout[tuple[str, str, int]](
        [
            Column("SOURCE", lambda row: row[0], least=10),
            Column("DESTINATION", lambda row: row[1], least=12),
            Column("BYTES", lambda row: amount(row[2], "octets"), right=True),
            Column("MUCH", lambda row: str(row[2]) * 4, right=True, rank=1),
        ],
        80,
        rows,
    )
    for text in (layout.heading, *map(layout.line, rows)):
        assert text.cell_len <= 80
        assert str(text).isprintable()


def test_what_matters_least_goes_first() -> None:
    columns = [
        Column[str]("A", lambda row: row * 20, rank=2),
        Column[str]("B", lambda row: row * 20, rank=1),
        Column[str]("C", lambda row: row * 20, least=5),
    ]
    shown = {n: [c.title for c in Layout(columns, n, ["x"]).columns] for n in (64, 50, 47, 27, 26)}
    assert shown == {
        64: ["A", "B", "C"],
        50: ["A", "B", "C"],
        47: ["B", "C"],
        27: ["B", "C"],
        26: ["C"],
    }
    assert len(str(Layout(columns, None, ["x"]).line("x"))) == 64


def test_what_is_no_terminal_gets_names_whole() -> None:
    column = Column[str]("A", lambda row: row, 8, 4)
    assert str(Layout([column], None).line("a" * 50)) == "a" * 50
    assert str(Layout([column], 8).line("a" * 50)) == "aaaaa…aa"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "octets", "0 B"),
        (999, "octets", "999 B"),
        (999.6, "octets", "1.0 kB"),
        (1_234_567, "octets", "1.2 MB"),
        (8e9, "bit/s", "8.0 Gbit/s"),
        (123_456, "connections", "123,456"),
        (1_234_567, "connections", "1.2 M"),
        (None, "octets", ""),
        (0.4, "connections", "0.4"),
        (9.96, "packets", "10"),
        (2.0, "connections", "2"),
    ],
)
def test_amounts(value: float | None, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_changes_and_shares() -> None:
    assert change(150, 100) == "+50%"
    assert change(0, 100) == "-100%"
    assert change(5, 0) == "new"
    assert change(0, 0) == ""
    assert change(5000, 1) == "x5,000"
    assert share(1, 3) == "33.3%"
    assert share(1, 0) == ""


def test_a_line_of_blocks() -> None:
    assert sparkline([0, 1, 4, 8], 10) == " ▂▅█"
    assert sparkline([0, 0], 10) == "  "
    assert sparkline([8, 8, 0, 0, 4, 4], 3) == "█ ▅"


@given(st.lists(st.floats(0, 1e15), min_size=1, max_size=200), st.integers(1, 100))
def test_blocks_are_as_many_as_fit(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


LONG = "src.namespace = shop and foo = 1 and dst.workload = orders and port = 80"


@pytest.mark.parametrize(
    ("text", "part", "cells", "shown", "mark"),
    [
        (LONG, (25, 3), None, LONG, f"{'':25}^^^"),
        (LONG, (25, 3), 72, LONG, f"{'':25}^^^"),
        (LONG, (25, 3), 40, "…mespace = shop and foo = 1 and dst.wor…", f"{'':20}^^^"),
        (LONG, (0, 13), 30, "src.namespace = shop and foo …", "^" * 13),
        (LONG, (70, 2), 30, "…rkload = orders and port = 80", f"{'':28}^^"),
        (LONG, (72, 0), 30, "…rkload = orders and port = 80", f"{'':30}^"),
        (f"pod = {'x' * 90}", (6, 90), 30, f"pod = {'x' * 23}…", f"{'':6}{'^' * 24}"),
        ("日本語 = a and pod = b", (12, 3), 20, "…語 = a and pod = b", f"{'':12}^^^"),
    ],
)
def test_an_error_is_shown_in_what_is_around_it(
    text: str, part: tuple[int, int], cells: int | None, shown: str, mark: str
) -> None:
    """Below a line that the terminal wraps the mark is somewhere else."""
    assert excerpt(text, *part, cells) == (shown, mark)


@given(NAMES, st.integers(0, 60), st.integers(0, 60), st.integers(4, 80))
def test_an_error_fits_the_terminal(text: str, position: int, length: int, cells: int) -> None:
    line, mark = excerpt(text, position, length, cells)
    assert cell_len(line) <= cells
    assert len(mark) <= cells + 1  # behind the end something may be missing
