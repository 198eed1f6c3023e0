"""Processes: what agents, controllers and our daemons take of their machines."""

from tools.dashboards import antrea, console, variables
from tools.dashboards.antrea import INSTANCE, MINUTE
from tools.dashboards.page import Page, Row
from tools.dashboards.pages.health import lines
from tools.dashboards.panels import Bars, Gauges, Lines, Stat
from tools.dashboards.sources import Metric
from tools.dashboards.streams import Stream

BUILD = "flowvis_build_info"
MARKS = (antrea.PODS.name, antrea.QUEUES["network_policy"].name, BUILD)
"""What agents, controllers and our daemons are known by, whatever their jobs are called."""
_WHOSE = "cluster, job, instance"
PROCESSES = f'on ({_WHOSE}) {{__name__=~"{"|".join(MARKS)}", {INSTANCE}}}'
API_SERVERS = ('job=~"apiserver|kubernetes-apiservers"', 'instance=~".+:6443"')
"""By the names of their jobs, or by their port."""
LIMITS = '{__name__=~"flowvis_aggregator_memory_limit_bytes|flowvis_exporter_memory_limit_bytes"}'
NAMED = "{{job}} {{instance}}"
_NODES = console.nodes()


def of_processes(expression: str) -> Metric:
    """Return what all processes of the dashboard have."""
    return Metric(f"{expression} and {PROCESSES}", NAMED)


def _of_api_servers(expression: str, name: str = "") -> Metric:
    either = " or ".join(expression.format(selector) for selector in API_SERVERS)
    return Metric(either, f"{{{{instance}}}}{name}")


PAGE = Page(
    "health-processes",
    "Health: processes",
    "What Antrea's agents and controllers and our daemons take of their machines",
    [
        Row(
            "",
            [
                Bars(
                    title="Pods by instance",
                    about="That Antrea's agents manage",
                    of=(Metric(f"sum by (instance) ({antrea.PODS.of()})", instant=True),),
                    unit="short",
                    width=12,
                    height=6,
                ),
                Stat(
                    title="Pods",
                    about="That Antrea's agents manage, on all nodes together",
                    of=(Metric(f"sum({antrea.PODS.of()})", instant=True),),
                    width=6,
                    height=6,
                ),
                Stat(
                    title="Our daemons",
                    about="That are scraped, of each kind",
                    of=(Metric(f"count by (daemon) ({BUILD}{{{INSTANCE}}})", instant=True),),
                    each=True,
                    width=6,
                    height=6,
                    console=_NODES,
                ),
            ],
        ),
        Row(
            "CPU and memory",
            [
                Lines(
                    title="CPU",
                    about="Of one core: 100 % is all of it",
                    of=(of_processes(f"rate(process_cpu_seconds_total{{{INSTANCE}}}{MINUTE})"),),
                    unit="percentunit",
                    stacked=False,
                ),
                Lines(
                    title="Resident memory",
                    about="What is in the machine's memory",
                    of=(of_processes(f"process_resident_memory_bytes{{{INSTANCE}}}"),),
                    unit="bytes",
                    stacked=False,
                ),
                Lines(
                    title="Virtual memory",
                    about="What addresses are given away for, used or not",
                    of=(of_processes(f"process_virtual_memory_bytes{{{INSTANCE}}}"),),
                    unit="bytes",
                    stacked=False,
                ),
                Lines(
                    title="Memory of what is allowed",
                    about="Our daemons: at 100 % the kernel ends them",
                    of=(
                        Metric(
                            f"process_resident_memory_bytes{{{INSTANCE}}}"
                            f" / on ({_WHOSE}) ({LIMITS} > 0)",
                            NAMED,
                        ),
                    ),
                    unit="percentunit",
                    stacked=False,
                    highest=1,
                ),
                Lines(
                    title="Kubernetes API server: CPU",
                    about="Of one core",
                    of=(_of_api_servers(f"rate(process_cpu_seconds_total{{{{{{}}}}}}{MINUTE})"),),
                    unit="percentunit",
                    stacked=False,
                ),
                Lines(
                    title="Kubernetes API server: memory",
                    about="Resident and virtual",
                    of=(
                        _of_api_servers("process_resident_memory_bytes{{{}}}", " resident"),
                        _of_api_servers("process_virtual_memory_bytes{{{}}}", " virtual"),
                    ),
                    unit="bytes",
                    stacked=False,
                ),
            ],
        ),
        Row(
            "What else they run out of",
            [
                Gauges(
                    title="Open files",
                    about="Of what each may have open",
                    of=(
                        Metric(
                            f"max by (job, instance) (process_open_fds{{{INSTANCE}}}"
                            f" / process_max_fds{{{INSTANCE}}} and {PROCESSES})",
                            instant=True,
                        ),
                    ),
                    unit="percentunit",
                    highest=1,
                    thresholds=((0.7, "orange"), (0.85, "red")),
                ),
                Lines(
                    title="Our daemons: late by",
                    about="The longest wait for their event loop, of the last minute",
                    of=(Metric(f"flowvis_loop_lag_seconds{{{INSTANCE}}}", NAMED),),
                    unit="s",
                    stacked=False,
                ),
                Lines(
                    title="Starts",
                    about="Within the last hour: a process that ends over and over",
                    of=(of_processes(f"changes(process_start_time_seconds{{{INSTANCE}}}[1h])"),),
                    unit="short",
                    stacked=False,
                ),
                Lines(
                    title="Our daemons: books that do not balance",
                    about="Records that are gone, or came twice, and no count says so",
                    of=(
                        Metric(
                            f"sum by (job, instance, stage)"
                            f" (flowvis_ledger_imbalance_records{{{INSTANCE}}} != 0)",
                            f"{NAMED} {{{{stage}}}}",
                        ),
                    ),
                    unit="short",
                    stacked=False,
                    console=_NODES,
                ),
            ],
        ),
        Row("Logs", [lines.per_second(Stream.AGENT), lines.per_second(Stream.OURS)]),
    ],
    [
        variables.metrics(),
        variables.logs(),
        variables.instance(
            *MARKS, label="Instance", description="Agents, controllers and our own daemons"
        ),
        *lines.variables(Stream.AGENT, Stream.OURS),
        variables.console(),
    ],
)
