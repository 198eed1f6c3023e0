"""Conntrack: how full each node's table is, and what was not seen of it; by Prometheus."""

from tools.dashboards import antrea, console, variables
from tools.dashboards.page import Page, Row
from tools.dashboards.panels import Lines, Stat
from tools.dashboards.sources import Metric

TOTAL = antrea.CONNECTIONS.name
MAXIMUM = antrea.CONNECTIONS_LIMIT.name
TRACKED = antrea.CONNECTIONS_TRACKED.name
POLL = antrea.POLL_SECONDS.name
_OF = '{instance=~"$instance"}'
_NODES = console.nodes()


def _rate(metric: str) -> Metric:
    return Metric(f"rate({metric}{_OF}[$__rate_interval])", "{{instance}}")


def _each(metric: str) -> Metric:
    return Metric(f"{metric}{_OF}", "{{instance}}")


def _of_nodes(metric: str) -> str:
    """Return a node's number once, where Antrea's agent and our exporter both have it."""
    named = f'label_replace({metric}{_OF}, "host", "$1", "instance", "(.*?[^:])(:[0-9]+)?")'
    return f"max by (cluster, host) ({named})"


def _occupants(title: str, about: str, metric: str) -> Lines:
    return Lines(
        title=title,
        about=about,
        of=(
            Metric(
                f"topk(15, sum by (workload_namespace, workload, end) ({metric}{_OF}))",
                "{{workload_namespace}}/{{workload}} {{end}}",
            ),
        ),
        unit="short",
        stacked=False,
        console=_NODES,
    )


FULL = f"{TOTAL}{_OF} / ({MAXIMUM}{_OF} > 0)"

PAGE = Page(
    "conntrack",
    "Flows: conntrack",
    "How full each node's table of connections is, and what was not seen of it",
    [
        Row(
            "",
            [
                Stat(
                    title="Fullest table",
                    about="Connections of what the kernel can track",
                    of=(Metric(f"max({FULL})", instant=True),),
                    unit="percentunit",
                    width=6,
                    thresholds=((0.8, "orange"), (0.95, "red")),
                    console=_NODES,
                ),
                Stat(
                    title="Connections",
                    about="In all nodes' tables",
                    of=(Metric(f"sum({_of_nodes(TOTAL)})", instant=True),),
                    width=6,
                    console=_NODES,
                ),
                Stat(
                    title="Nodes",
                    about="Whose exporters, or Antrea's agents, are scraped",
                    of=(Metric(f"count({_of_nodes(TOTAL)})", instant=True),),
                    width=6,
                    console=_NODES,
                ),
                Stat(
                    title="Denied connections",
                    about="That exporters keep track of now",
                    of=(Metric(f"sum({_of_nodes(antrea.DENIED.name)})", instant=True),),
                    width=6,
                    console=_NODES,
                ),
            ],
        ),
        Row(
            "Occupancy",
            [
                Lines(
                    title="Occupancy",
                    about="Connections of what the kernel can track: at 100 % it drops new ones",
                    of=(Metric(FULL, "{{instance}}"),),
                    unit="percentunit",
                    stacked=False,
                    highest=1,
                    console=_NODES,
                ),
                Lines(
                    title="Connections in the table",
                    about="At the last poll",
                    of=(_each(TOTAL),),
                    unit="short",
                    stacked=False,
                    console=_NODES,
                ),
                Lines(
                    title="Connections that are tracked",
                    about="By the exporter: of Pods and nodes",
                    of=(_each(TRACKED),),
                    unit="short",
                    stacked=False,
                    console=_NODES,
                ),
                Lines(
                    title="Changes of the table",
                    about="Connections begun and ended a second, by the kernel's events",
                    of=(_rate("flowvis_exporter_conntrack_events_total"),),
                    unit="cps",
                    stacked=False,
                    console=_NODES,
                ),
                _occupants(
                    "Who fills the tables",
                    "Whose connections these are, opened by them or to them: the 15 with most",
                    "flowvis_exporter_occupant_entries",
                ),
                _occupants(
                    "Whose connections nobody answered",
                    "Of these, as a flood or a scan leaves them: the 15 with most",
                    "flowvis_exporter_occupant_unanswered_entries",
                ),
            ],
        ),
        Row(
            "What was not seen",
            [
                Lines(
                    title="Events that the kernel dropped",
                    about="The exporter read too slowly: what ended in between is missing",
                    of=(_rate("flowvis_exporter_conntrack_lost_events_total"),),
                    unit="cps",
                    stacked=False,
                    console=_NODES,
                ),
                Lines(
                    title="Connections whose end was not seen",
                    about="What they did last is missing",
                    of=(_rate("flowvis_exporter_table_vanished_total"),),
                    unit="cps",
                    stacked=False,
                    console=_NODES,
                ),
                Lines(
                    title="Connections that left a full table",
                    about="Of the exporter, not the kernel's",
                    of=(_rate("flowvis_exporter_table_evicted_total"),),
                    unit="cps",
                    stacked=False,
                    console=_NODES,
                ),
                Lines(
                    title="Connections without counters",
                    about="Older than nf_conntrack_acct",
                    of=(_each("flowvis_exporter_table_uncounted"),),
                    unit="short",
                    stacked=False,
                    console=_NODES,
                ),
                Lines(
                    title="Time of a poll",
                    about="95th percentile",
                    unit="s",
                    stacked=False,
                    of=(
                        Metric(
                            f"histogram_quantile(0.95, sum by (le, instance)"
                            f" (rate({POLL}_bucket{_OF}[$__rate_interval])))",
                            "{{instance}}",
                        ),
                    ),
                    console=_NODES,
                ),
                Lines(
                    title="Sessions with the collector",
                    about="Begun a second: 0 while all is well",
                    of=(_rate(antrea.COLLECTOR_SESSIONS.name),),
                    unit="cps",
                    stacked=False,
                    console=_NODES,
                ),
            ],
        ),
    ],
    [variables.metrics(), variables.instance(MAXIMUM), variables.console()],
)
