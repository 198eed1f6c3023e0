"""A dashboard: panels in rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.kibana.panels import WIDTH, Links, Panel
from tools.kibana.saved import Reference, Saved, compact

SINCE = "now-1h"


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard."""

    name: str
    """Of its id."""
    title: str
    about: str
    rows: Sequence[Sequence[Panel]]

    @property
    def id(self) -> str:
        """The id, which links and references have."""
        return f"flowvis-{self.name}"

    @property
    def panels(self) -> list[Panel]:
        """All, in order."""
        return [panel for row in self.rows for panel in row]

    def saved(self, links: Links) -> Iterator[Saved]:
        """Go through its panels and itself; the `links` to all are shared."""
        shown, references = [], []
        for number, (panel, (x, y, w, h)) in enumerate(self._places(links)):
            made = panel.saved("flowvis" if panel is links else self.id)
            if panel is not links:
                yield made
            name = f"panel_{number}"
            references.append(Reference(name, made.kind, made.id))
            shown.append(
                {
                    "version": "7.10.0",
                    "gridData": {"x": x, "y": y, "w": w, "h": h, "i": str(number)},
                    "panelIndex": str(number),
                    "embeddableConfig": {},
                    "panelRefName": name,
                }
            )
        attributes = {
            "title": self.title,
            "description": self.about,
            "hits": 0,
            "panelsJSON": compact(shown),
            "optionsJSON": compact({"hidePanelTitles": False, "useMargins": True}),
            "version": 1,
            "timeRestore": True,
            "timeFrom": SINCE,
            "timeTo": "now",
            "kibanaSavedObjectMeta": {
                "searchSourceJSON": compact(
                    {"query": {"query": "", "language": "kuery"}, "filter": []}
                )
            },
        }
        yield Saved("dashboard", self.id, attributes, tuple(references))

    def _places(self, links: Links) -> Iterator[tuple[Panel, tuple[int, int, int, int]]]:
        y = 0
        for row in ([links], *self.rows):
            x, left = 0, WIDTH - sum(panel.width for panel in row)
            sharing = sum(not panel.width for panel in row)
            height = max(panel.height for panel in row)
            for panel in row:
                width = panel.width or left // sharing
                yield panel, (x, y, width, height)
                x += width
            y += height


def objects(boards: Sequence[Board], pattern: Saved) -> list[Saved]:
    """Return all that is to be imported: the index pattern, the links, panels and dashboards."""
    links = Links(to=[(board.title, board.id) for board in boards])
    return [
        pattern,
        links.saved("flowvis"),
        *(made for board in boards for made in board.saved(links)),
    ]
