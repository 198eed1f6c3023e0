"""What a page shows, as values."""

from typing import Any

from playwright.sync_api import Locator, Page

CELLS = """
table => [...table.querySelectorAll("tbody tr")].map(row => [...row.cells].map(cell => {
    const number = cell.querySelector("[data-value]");
    if (number) return Number(number.dataset.value);
    const spoken = cell.cloneNode(true);
    for (const each of spoken.querySelectorAll("[aria-hidden=true]")) each.remove();
    return spoken.textContent.trim();
}))
"""


def table(page: Page | Locator, label: str) -> list[list[Any]]:
    """Rows of a table: the exact numbers, and texts."""
    found = page.locator(f'table[aria-label="{label}"]')
    rows: list[list[Any]] = found.evaluate(CELLS)
    return rows


def tiles(page: Page) -> dict[str, float]:
    """The numbers at the top of the overview, by what they are called."""
    found: dict[str, float] = page.locator(".tiles").evaluate(
        """
        tiles => Object.fromEntries([...tiles.querySelectorAll("a.tile")].map(tile => [
            tile.querySelector(".tile-title").textContent,
            Number(tile.querySelector("[data-value]").dataset.value),
        ]))
        """
    )
    return found
