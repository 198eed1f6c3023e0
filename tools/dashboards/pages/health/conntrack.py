"""Conntrack and proxy: how full tables of connections are, and what Antrea Proxy has to do."""

from tools.dashboards import antrea, console, variables
from tools.dashboards.antrea import CONNECTIONS, CONNECTIONS_LIMIT, CONNECTIONS_TRACKED
from tools.dashboards.page import Page, Row
from tools.dashboards.panels import Lines, Stat
from tools.dashboards.sources import Asked, Metric

_FAMILY = 'ip_family=~"$ip_family"'
_HEARD = "flowvis_aggregator_node_conntrack_entries", "flowvis_aggregator_node_conntrack_limit"
_NODES = console.nodes()


def _lines(title: str, about: str, unit: str, *of: Asked, ours: bool = False) -> Lines:
    return Lines(
        title=title,
        about=about,
        of=of,
        unit=unit,
        stacked=False,
        highest=1 if unit == "percentunit" else None,
        console=_NODES if ours else None,
    )


def _updates(series: antrea.Series, what: str) -> Metric:
    return Metric(f"avg({series.rate(_FAMILY)})", what)


PAGE = Page(
    "health-conntrack",
    "Health: conntrack and proxy",
    "How full the tables of connections are, and what Antrea Proxy has to keep up with",
    [
        Row(
            "Conntrack, as agents and exporters see it",
            [
                _lines(
                    "Connections that are tracked",
                    "Of Antrea's zones, or by our exporter",
                    "short",
                    Metric(CONNECTIONS_TRACKED.of(), "{{job}} {{instance}}"),
                ),
                _lines(
                    "Connections of the most",
                    "Of what the kernel can track: at 100 % it drops new ones",
                    "percentunit",
                    Metric(
                        f"{CONNECTIONS.of()} / ({CONNECTIONS_LIMIT.of()} > 0)",
                        "{{job}} {{instance}}",
                    ),
                ),
                _lines(
                    "Denied connections",
                    "That are kept track of now",
                    "short",
                    Metric(antrea.DENIED.of(), "{{job}} {{instance}}"),
                ),
                _lines(
                    "Time of a poll",
                    "Mean",
                    "s",
                    Metric(antrea.POLL_SECONDS.mean("job, instance"), "{{job}} {{instance}}"),
                ),
            ],
        ),
        Row(
            "Conntrack, as our aggregator hears of it from all nodes",
            [
                _lines(
                    "Connections by node",
                    "In the kernel's table, as each node's exporter reports every 30 s",
                    "short",
                    Metric(f"max by (cluster, node) ({_HEARD[0]})", "{{node}}"),
                    ours=True,
                ),
                _lines(
                    "Connections by node, of the most",
                    "Of what the kernel can track: at 100 % it drops new ones",
                    "percentunit",
                    Metric(f"max by (cluster, node) ({_HEARD[0]} / ({_HEARD[1]} > 0))", "{{node}}"),
                    ours=True,
                ),
            ],
        ),
        Row(
            "Proxy",
            [
                _lines(
                    "Updates of endpoints and Services",
                    "That each agent heard of, a second, on average",
                    "cps",
                    _updates(antrea.ENDPOINT_UPDATES, "endpoints"),
                    _updates(antrea.SERVICE_UPDATES, "Services"),
                ),
                _lines(
                    "Time to bring rules up to date",
                    "Mean, by instance",
                    "s",
                    Metric(antrea.PROXY_SYNC.mean("instance", _FAMILY), "{{instance}}"),
                ),
                *(
                    Stat(
                        title=f"{what} by instance",
                        about="That Antrea Proxy has installed",
                        of=(Metric(f"sum by (instance) ({series.of(_FAMILY)})", instant=True),),
                        each=True,
                        width=12,
                        height=7,
                    )
                    for what, series in (
                        ("Endpoints", antrea.ENDPOINTS),
                        ("Services", antrea.SERVICES),
                    )
                ),
            ],
        ),
    ],
    [
        variables.metrics(),
        variables.instance(
            CONNECTIONS_LIMIT.name,
            antrea.ENDPOINTS.name,
            label="Instance",
            description="Antrea's agents and our exporters",
        ),
        variables.labelled(
            "ip_family", "IP family", "Of Antrea Proxy", "ip_family", antrea.ENDPOINTS.name
        ),
        variables.console(),
    ],
)
