"""The dashboards, a module each."""

from tools.dashboards.page import Page
from tools.dashboards.pages import (
    completeness,
    conntrack,
    denied,
    external,
    health,
    home,
    nodes,
    overview,
    pods,
    policies,
    records,
    services,
    topology,
)

PAGES: tuple[Page, ...] = (
    home.PAGE,
    overview.PAGE,
    records.PAGE,
    pods.PAGE,
    external.PAGE,
    services.PAGE,
    nodes.PAGE,
    policies.PAGE,
    topology.PAGE,
    denied.PAGE,
    completeness.PAGE,
    conntrack.PAGE,
    *health.PAGES,
)
"""All of them, in the order in which people are shown them."""
