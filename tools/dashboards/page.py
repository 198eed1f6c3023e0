"""A dashboard: a page of panels in rows, with its variables, as Grafana reads it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from tools.dashboards.panels import WIDTH, Panel
from tools.dashboards.ranges import BRANCHES
from tools.dashboards.variables import Variable, branch

TAG = "flowvis"
FROM, TO = "now-30m", "now"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]
    closed: bool = False
    """Whether its panels ask only when somebody opens it."""


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard."""

    name: str
    """Of its file and of its address in Grafana."""
    title: str
    about: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()
    since: str = FROM
    """Where its range begins at first."""

    @property
    def uid(self) -> str:
        """Its id, at most 40 characters."""
        return f"flowvis-{self.name}"

    @property
    def panels(self) -> list[Panel]:
        """All panels, in order; their numbers are their places, from 1."""
        return [panel for row in self.rows for panel in row.panels]

    def _branches(self) -> Iterator[Variable]:
        """Yield what leaves branches out of its panels' queries."""
        asked = "\n".join(sql for panel in self.panels for _, sql, _ in panel.queries())
        yield from (branch(each) for each in BRANCHES if each.used_in(asked))

    def json(self) -> str:
        """Return it as Grafana reads it."""
        made = (
            sdk.Dashboard(self.title)
            .uid(self.uid)
            .description(self.about)
            .tags([TAG])
            .editable()
            .time(self.since, TO)
            .timezone("browser")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .links([_others()])
        )
        for variable in [*self.variables, *self._branches()]:
            made.with_variable(variable)
        number, line = 0, 0
        for row in self.rows:
            heading = sdk.Row(row.title).id(1000 + line).grid_pos(_at(0, line, WIDTH, 1))
            line += bool(row.title)
            panels = []
            for panel, (x, y) in zip(row.panels, _places(row.panels), strict=True):
                number += 1
                at = _at(x, line + y, panel.width, panel.height)
                panels.append(panel.built(number).grid_pos(at))
            if row.closed:
                for each in panels:
                    heading.with_panel(each)
            if row.title:
                made.with_row(heading)
            if not row.closed:
                for each in panels:
                    made.with_panel(each)
                line += _height(row.panels)
        # Lines for who compares versions; no indents, as a ConfigMap of it has to be applied.
        return json.dumps(made.build(), cls=JSONEncoder, indent=0, ensure_ascii=False) + "\n"


def _others() -> sdk.DashboardLink:
    return (
        sdk.DashboardLink("Flow dashboards")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )


def _at(x: int, y: int, w: int, h: int) -> model.GridPos:
    return model.GridPos(x=x, y=y, w=w, h=h)


def _places(panels: Sequence[Panel]) -> list[tuple[int, int]]:
    """Return where panels are in their row: side by side, in lines as high as their highest."""
    found, x, y, highest = [], 0, 0, 0
    for panel in panels:
        if x + panel.width > WIDTH:
            x, y, highest = 0, y + highest, 0
        found.append((x, y))
        x, highest = x + panel.width, max(highest, panel.height)
    return found


def _height(panels: Sequence[Panel]) -> int:
    places = _places(panels)
    return max((y + panel.height for panel, (_, y) in zip(panels, places, strict=True)), default=0)
