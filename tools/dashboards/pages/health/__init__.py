"""Health of what runs, by its metrics and logs: of Antrea, where it is, and of our own daemons."""

from tools.dashboards.page import Page
from tools.dashboards.pages.health import (
    conntrack,
    controller,
    logs,
    openvswitch,
    policies,
    processes,
)

PAGES: tuple[Page, ...] = (
    processes.PAGE,
    openvswitch.PAGE,
    conntrack.PAGE,
    policies.PAGE,
    logs.PAGE,
    controller.PAGE,
)
"""All of them, in the order that they were published in for Antrea."""
