"""Logs: of Antrea's agents, and of our own daemons."""

from tools.dashboards import variables
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.health import lines
from tools.dashboards.streams import Stream

PAGE = Page(
    "health-logs",
    "Health: agent logs",
    "What Antrea's agents and our daemons say, how much of it and how grave",
    [
        Row("Antrea's agents", lines.everything(Stream.AGENT)),
        Row("Our daemons", lines.everything(Stream.OURS)),
    ],
    [variables.logs(), *lines.variables(Stream.AGENT, Stream.OURS)],
)
