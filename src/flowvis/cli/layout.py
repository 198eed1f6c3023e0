"""Lines of columns that fit a terminal: what is less important goes, names shorten in the middle.

Where there is no terminal nothing is left out or shortened: programs read that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len
from rich.text import Text

from flowvis.runtime.visible import visible

Row = TypeVar("Row")

ELLIPSIS = "…"
HEADING = "bold"


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table of rows."""

    title: str
    value: Callable[[Row], str]
    width: int = 0
    """Cells that its values usually take, for tables that do not know their rows yet."""
    least: int = 0
    """Cells that it may be shortened to; 0: never, its values are numbers or short words."""
    rank: int = 0
    """Where there is no room, columns of the highest rank go first; those of 0 stay."""
    right: bool = False
    style: Callable[[Row], str] | None = None
    """Of a value's text, in rich's words; "" for none."""


class Layout(Generic[Row]):
    """Columns with their widths, for a terminal of so many cells, or None for any."""

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        cells: int | None,
        rows: Iterable[Row] | None = None,
        *,
        gap: str = "  ",
        titles: bool = True,
    ) -> None:
        """Widths are those of the rows, where they are given, else the usual ones."""
        self._gap = gap
        self._cells = cells
        least_titled = [cell_len(each.title) if titles else 0 for each in columns]
        if rows is None:
            usual = [max(each.width, n) for each, n in zip(columns, least_titled, strict=True)]
        else:
            usual = least_titled
            for row in rows:
                usual = [
                    max(n, cell_len(visible(column.value(row))))
                    for n, column in zip(usual, columns, strict=True)
                ]
        self._fit(list(zip(columns, usual, strict=True)))

    def _fit(self, wanted: list[tuple[Column[Row], int]]) -> None:
        def least(entry: tuple[Column[Row], int]) -> int:
            column, usual = entry
            return min(column.least or usual, usual)

        def total(widths: Iterable[int]) -> int:
            return sum(widths) + len(self._gap) * (len(wanted) - 1)

        if self._cells is not None:
            while total(map(least, wanted)) > self._cells:
                rank = max(column.rank for column, _ in wanted)
                if not rank:
                    break
                wanted = [entry for entry in wanted if entry[0].rank < rank]
        widths = [usual for _, usual in wanted]
        if self._cells is not None:
            while total(widths) > self._cells:
                widest = max(
                    (
                        at
                        for at, entry in enumerate(wanted)
                        if entry[0].least and widths[at] > least(entry)
                    ),
                    key=widths.__getitem__,
                    default=None,
                )
                if widest is None:
                    break
                widths[widest] -= 1
        self.columns = [column for column, _ in wanted]
        self._widths = widths

    @property
    def heading(self) -> Text:
        """The titles."""
        return self._joined((column.title, HEADING) for column in self.columns)

    def line(self, row: Row) -> Text:
        """Return one row."""
        return self._joined(
            (visible(column.value(row)), column.style(row) if column.style else "")
            for column in self.columns
        )

    def lines(self, rows: Iterable[Row]) -> Iterator[Text]:
        """Go through the titles and all rows."""
        yield self.heading
        yield from map(self.line, rows)

    def _joined(self, cells: Iterable[tuple[str, str]]) -> Text:
        text = Text()
        entries = zip(self.columns, self._widths, cells, strict=True)
        for at, (column, width, (whole, style)) in enumerate(entries):
            shortens = self._cells is not None and column.least
            value = shortened(whole, width) if shortens else whole
            padding = " " * (width - cell_len(value))
            text.append(self._gap if at else "")
            text.append(padding if column.right else "")
            text.append(value, style)
            text.append("" if column.right else padding)
        text.rstrip()
        return text


def shortened(text: str, cells: int) -> str:
    """Return a text that takes so many cells at most: of a longer one its middle is left out."""
    if cell_len(text) <= cells:
        return text
    left = cells - cell_len(ELLIPSIS)
    if left <= 0:
        return ELLIPSIS[:cells]
    tail = _first(text[::-1], left * 2 // 5)[::-1]
    head = _first(text, left - cell_len(tail))
    return f"{head}{ELLIPSIS}{tail}"


def excerpt(text: str, position: int, length: int, cells: int | None) -> tuple[str, str]:
    """Return a line of a text with a part of it, and one that marks the part below.

    Of a text that takes more than so many cells what is far from the part is left out.
    """
    before, part = visible(text[:position]), visible(text[position : position + length])
    rest = part + visible(text[position + length :])
    if cells is not None and cell_len(before + rest) > cells:
        kept = max(cells // 2, cells - cell_len(rest))
        if cell_len(before) > kept:
            left = kept - cell_len(ELLIPSIS)
            before = f"{ELLIPSIS}{_first(before[::-1], left)[::-1]}"
        room = cells - cell_len(before)
        if cell_len(rest) > room:
            rest = f"{_first(rest, room - cell_len(ELLIPSIS))}{ELLIPSIS}"
    marked = max(min(cell_len(part), cell_len(rest)), 1)
    return before + rest, f"{' ' * cell_len(before)}{'^' * marked}"


def _first(text: str, cells: int) -> str:
    """Return the beginning of a text that fits."""
    taken = 0
    for at, letter in enumerate(text):
        taken += cell_len(letter)
        if taken > cells:
            return text[:at]
    return text
