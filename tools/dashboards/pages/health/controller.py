"""Controller: what Antrea's works out of objects, and what our aggregator does of the same."""

from collections.abc import Iterable

from tools.dashboards import console, variables
from tools.dashboards.antrea import (
    CLUSTER_POLICY_STATUS,
    GROUPS,
    INSTANCE,
    MINUTE,
    POLICY_STATUS,
    POLICY_STATUS_BEFORE,
    PROCESSED,
    QUEUES,
    SYNC,
    Series,
)
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.health import lines
from tools.dashboards.panels import Lines, States
from tools.dashboards.sources import Metric
from tools.dashboards.streams import Stream

_CONTROLLER = QUEUES["network_policy"].name
_OURS = "flowvis_aggregator_policies_compiled_total"
_MARKED = f'on (cluster, job, instance) {{__name__=~"{_CONTROLLER}|{_OURS}", {INSTANCE}}}'
_EVER = f"on (cluster, job, instance) last_over_time({_CONTROLLER}{{{INSTANCE}}}[$__range])"


def _lines(title: str, about: str, unit: str, of: Iterable[Metric], *, bars: bool = False) -> Lines:
    return Lines(title=title, about=about, of=tuple(of), unit=unit, bars=bars, stacked=bars)


def _each(parts: dict[str, str]) -> Iterable[Metric]:
    """Yield a metric of each group that the controller works out, under its words."""
    for what, expression in parts.items():
        yield Metric(expression, what.replace("_", " "))


def _ours(title: str, about: str, unit: str, series: Series) -> Lines:
    expression = series.rate() if series.name.endswith("_total") else series.of()
    return Lines(
        title=title,
        about=about,
        of=(Metric(expression, "{{instance}}"),),
        unit=unit,
        stacked=False,
        console=console.nodes(),
    )


PAGE = Page(
    "health-controller",
    "Health: controller",
    "What Antrea's controller works out, and what our aggregator does of the same objects",
    [
        Row(
            "",
            [
                States(
                    title="Controllers that run",
                    about="Whether each that was there in the range could be scraped",
                    of=(Metric(f"up{{{INSTANCE}}} and {_EVER}", "{{instance}}"),),
                    texts={"1": ("up", "green"), "0": ("down", "red")},
                    height=6,
                ),
                _lines(
                    "CPU",
                    "Of one core, of Antrea's controllers and our aggregators",
                    "percentunit",
                    [
                        Metric(
                            f"rate(process_cpu_seconds_total{{{INSTANCE}}}{MINUTE}) and {_MARKED}",
                            "{{job}} {{instance}}",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "What the controller works out",
            [
                _lines(
                    "Length of queues",
                    "Objects that wait: 0 while the controller keeps up",
                    "short",
                    _each({what: f"sum({QUEUES[what].of()})" for what in GROUPS}),
                    bars=True,
                ),
                _lines(
                    "Time of one",
                    "Mean",
                    "ms",
                    _each(
                        {
                            what: f"sum({SYNC[what].rate(suffix='_sum')})"
                            f" / (sum({SYNC[what].rate(suffix='_count')}) > 0)"
                            for what in GROUPS
                        }
                    ),
                ),
                _lines(
                    "Worked out",
                    "A second",
                    "cps",
                    _each({what: f"sum({PROCESSED[what].rate()})" for what in GROUPS}),
                ),
                _lines(
                    "Statuses written",
                    "Of Antrea's policies, a second",
                    "cps",
                    [
                        Metric(f"sum({CLUSTER_POLICY_STATUS.rate()})", "ClusterNetworkPolicy"),
                        Metric(
                            f"sum({POLICY_STATUS.rate()} or {POLICY_STATUS_BEFORE.rate()})",
                            "NetworkPolicy",
                        ),
                    ],
                ),
            ],
        ),
        Row(
            "What our aggregator makes of the same objects",
            [
                _ours(
                    "Changes of objects",
                    "That the API server told, a second",
                    "cps",
                    Series("flowvis_aggregator_kubernetes_events_total"),
                ),
                _ours(
                    "Names are stale for",
                    "For how long a kind of object has not been watched: 0 while all are",
                    "s",
                    Series("flowvis_aggregator_kubernetes_stale_seconds"),
                ),
                _ours(
                    "Policies worked out anew",
                    "A second",
                    "cps",
                    Series(_OURS),
                ),
                _ours(
                    "Policies that are not understood",
                    "A second: what they decide is unknown",
                    "cps",
                    Series("flowvis_aggregator_policies_malformed_total"),
                ),
            ],
        ),
        Row(
            "Log",
            [
                lines.by_level(Stream.CONTROLLER),
                lines.by_category(Stream.CONTROLLER),
                lines.per_second(Stream.CONTROLLER),
                lines.lines(Stream.CONTROLLER),
            ],
        ),
    ],
    [
        variables.metrics(),
        variables.logs(),
        variables.instance(
            _CONTROLLER, _OURS, label="Instance", description="Controllers and our aggregators"
        ),
        *lines.variables(Stream.CONTROLLER),
        variables.console(),
    ],
)
