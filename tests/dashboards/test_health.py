"""What dashboards ask of Prometheus and Loki: whether it can be asked, and finds something."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.dashboards import antrea, streams
from tools.dashboards.pages import PAGES
from tools.dashboards.pages.health import PAGES as HEALTH
from tools.dashboards.pages.health import lines
from tools.dashboards.streams import LABELS, Stream, chosen

from deploy.fluent_bit import FluentBit
from deploy.rendered import DEPLOY, LOGS, workload
from waiting import PATIENCE_S

from .asked import LOGQL, PROMQL, Asked, metrics, put_in

AGENT = 'job="antrea-agents",instance="n1:10350"'
CONTROLLER = 'job="antrea-controllers",instance="c:10349"'
AGGREGATOR = 'job="flow-aggregator",instance="a:9739"'
EXPORTER = 'job="flow-exporter",instance="n1:9741"'
API_SERVER = 'job="apiserver",instance="10.0.0.1:443"'
OTHER_API_SERVER = 'job="others",instance="10.0.0.2:6443"'
STRANGER = 'job="node",instance="n1:9100"'
DAEMONS = (AGENT, CONTROLLER, AGGREGATOR, EXPORTER)
PROCESS = {
    "cpu_seconds_total": "0+6x60",
    "resident_memory_bytes": "500x60",
    "virtual_memory_bytes": "900x60",
    "open_fds": "30x60",
    "max_fds": "100x60",
    "start_time_seconds": "5x60",
}
NODE = 'node="n1"'
OCCUPANT = 'workload_namespace="shop",kind="Deployment",workload="cart",end="source"'
OURS = {
    "flowvis_loop_lag_seconds": (AGGREGATOR, EXPORTER),
    "flowvis_ledger_imbalance_records": (f'{AGGREGATOR},stage="clickhouse"',),
    "flowvis_aggregator_memory_limit_bytes": (AGGREGATOR,),
    "flowvis_exporter_memory_limit_bytes": (EXPORTER,),
    "flowvis_aggregator_node_conntrack_entries": (f"{AGGREGATOR},{NODE}",),
    "flowvis_aggregator_node_conntrack_limit": (f"{AGGREGATOR},{NODE}",),
    "flowvis_aggregator_kubernetes_events_total": (AGGREGATOR,),
    "flowvis_aggregator_kubernetes_stale_seconds": (AGGREGATOR,),
    "flowvis_aggregator_policies_compiled_total": (AGGREGATOR,),
    "flowvis_aggregator_policies_malformed_total": (AGGREGATOR,),
    "flowvis_exporter_conntrack_entries_total": (EXPORTER,),
    "flowvis_exporter_conntrack_events_total": (EXPORTER,),
    "flowvis_exporter_conntrack_interrupted_total": (EXPORTER,),
    "flowvis_exporter_conntrack_lost_events_total": (EXPORTER,),
    "flowvis_exporter_occupant_entries": (f"{EXPORTER},{OCCUPANT}",),
    "flowvis_exporter_occupant_unanswered_entries": (f"{EXPORTER},{OCCUPANT}",),
    "flowvis_exporter_table_vanished_total": (EXPORTER,),
    "flowvis_exporter_table_evicted_total": (EXPORTER,),
    "flowvis_exporter_table_uncounted": (EXPORTER,),
}
GROWS = "0+60x60"


def _series() -> dict[str, str]:
    """A cluster that has Antrea, ours, and processes of others."""
    found = {f"up{{{each}}}": "1x60" for each in (*DAEMONS, STRANGER)}
    for each in (*DAEMONS, API_SERVER, OTHER_API_SERVER, STRANGER):
        found |= {f"process_{name}{{{each}}}": values for name, values in PROCESS.items()}
    for each, daemon in ((AGGREGATOR, "flow-aggregator"), (EXPORTER, "flow-exporter")):
        found[f'flowvis_build_info{{{each},daemon="{daemon}"}}'] = "1x60"
    for name, places in OURS.items():
        found |= {f"{name}{{{place}}}": GROWS for place in places}
    for series in antrea.series():
        of = CONTROLLER if series.name.startswith("antrea_controller") else AGENT
        labels = "".join(f',{label}="x"' for label in series.labels)
        for each in (of, EXPORTER) if series in antrea.OF_BOTH else (of,):
            for suffix in ("_sum", "_count") if series.observed else ("",):
                found[f"{series.name}{suffix}{{{each}{labels}}}"] = GROWS
        if series is antrea.POLL_SECONDS:
            found[f'{series.name}_bucket{{{EXPORTER},le="+Inf"}}'] = GROWS
    return found


def _promtool(path: Path, *tests: tuple[str, float], others: dict[str, str] | None = None) -> None:
    """Hold that expressions have these values, after an hour of all these series and others."""
    every = _series() | (others or {})
    document = {
        "rule_files": [],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in every.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": "1h",
                        "exp_samples": [{"labels": "{}", "value": value}],
                    }
                    for expression, value in tests
                ],
            }
        ],
    }
    (path / "tests.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", path / "tests.yml"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_each_expression_finds_something(tmp_path: Path) -> None:
    """So Prometheus understands it, and its labels are those that there are."""
    asked = {put_in(each.expression) for each in PROMQL}
    _promtool(tmp_path, *((f"count({each}) > bool 0", 1) for each in sorted(asked)))


SCRAPED = {"cluster", "job", "instance", "__name__"}
"""Labels that Prometheus itself puts on series."""


def _labels(metric: str) -> set[str]:
    """Return the labels that a metric has of its own."""
    plain = re.sub(r"_(sum|count|bucket)$", "", metric)
    for series in antrea.series():
        if series.name in {metric, plain}:
            return {*series.labels, "le"} if metric.endswith("_bucket") else set(series.labels)
    if metric == "flowvis_build_info":
        return {"daemon"}
    text = "".join(OURS.get(metric, ())).replace(AGGREGATOR, "").replace(EXPORTER, "")
    return set(re.findall(r"(\w+)=", text))


@pytest.mark.parametrize("asked", PROMQL, ids=lambda asked: f"{asked.page}: {asked.panel}")
def test_series_are_told_apart_by_labels_that_they_have(asked: Asked) -> None:
    lists = re.findall(r"\b(?:by|on) \(([^)]*)\)", asked.expression)
    used = {label for each in lists for label in each.split(", ")}
    used |= set(re.findall(r"(\w+)(?:=~|=|!=)\"", asked.expression))
    own = set().union(*map(_labels, metrics(asked.expression)))
    own |= set(re.findall(r'label_replace\([^"]*"[^"]*"[^"]*"(\w+)"', asked.expression))
    assert used <= own | SCRAPED
    shown = set(re.findall(r"\{\{(\w+)\}\}", asked.legend))
    assert shown <= own | SCRAPED
    if grouped := re.findall(r"\bby \(([^)]*)\)", asked.expression):
        assert shown <= {label for each in grouped for label in each.split(", ")}
    elif re.match(r"(sum|avg|max|count)\(", asked.expression):
        assert not shown


def _of(page: str, panel: str, **values: str) -> str:
    (expression,) = (each.expression for each in PROMQL if (each.page, each.panel) == (page, panel))
    return put_in(expression, **values)


@pytest.mark.prometheus
def test_processes_are_antrea_s_and_ours_and_no_others(tmp_path: Path) -> None:
    cpu, gauge = (("health-processes", title) for title in ("CPU", "Open files"))
    _promtool(
        tmp_path,
        (f"count({_of(*cpu)})", 4),
        (f"max({_of(*cpu)})", 0.1),
        (f"count({_of(*cpu, instance='n1:10350|a:9739')})", 2),
        (f"count({_of(*gauge)})", 4),
        (f"max({_of(*gauge)})", 0.3),
        (f"count({_of('health-processes', 'Kubernetes API server: CPU')})", 2),
        (f"count({_of('health-conntrack', 'Connections of the most')})", 2),
        (f"count({_of('health-policies', 'Denied connections by instance')})", 2),
        (f"count({_of('health-controller', 'CPU')})", 2),
    )


@pytest.mark.prometheus
def test_a_node_counts_once_whoever_has_its_numbers(tmp_path: Path) -> None:
    """An agent of Antrea's and an exporter of ours on one node: 3600 connections, as of both."""
    titles = ("Nodes", "Connections", "Denied connections")
    nodes, connections, denied = (_of("conntrack", title) for title in titles)
    _promtool(tmp_path, (f"count({nodes})", 1), (nodes, 1), (connections, 3600), (denied, 3600))
    # Others, some of them without a port.
    others = {
        f'{antrea.CONNECTIONS.name}{{job="flow-exporter",instance="{instance}"}}': "7x60"
        for instance in ("node-2", "node-3", "[fd00::4]:9741", "[fd00::5]:9741", "10.0.0.6")
    }
    _promtool(tmp_path, (nodes, 6), (connections, 3600 + 5 * 7), others=others)


def test_what_is_antrea_s_is_listed_once_and_shown() -> None:
    named = set().union(*(metrics(each.expression) for each in PROMQL))
    listed = [series.name for series in antrea.series()]
    assert len(set(listed)) == len(listed)
    shown = {re.sub(r"_(sum|count|bucket)$", "", name) for name in named} | named
    assert set(listed) <= shown
    plain = set(listed) | {
        f"{series.name}{suffix}"
        for series in antrea.series() if series.observed
        for suffix in ("_sum", "_count", "_bucket")
    }  # fmt: skip
    assert {name for name in named if name.startswith("antrea_")} <= plain
    ours = {name for name in named if name.startswith("flowvis_")}
    assert ours == {*OURS, "flowvis_build_info"}


def test_all_six_are_there_and_ours_is_on_each() -> None:
    assert len(HEALTH) == 6
    assert all(page in PAGES for page in HEALTH)
    for page in HEALTH:
        asked = [each for each in (*PROMQL, *LOGQL) if each.page == page.name]
        text = " ".join(each.expression for each in asked)
        assert "antrea" in text
        store = any(panel.queries() for panel in page.panels)
        assert store or "flowvis" in text, page.name


@pytest.mark.parametrize("asked", LOGQL, ids=lambda asked: f"{asked.page}: {asked.panel}")
def test_logs_are_asked_by_labels_that_they_have(asked: Any) -> None:
    selectors = re.findall(r"\{(job=[^}]*)\}", asked.expression)
    assert selectors
    for selector in selectors:
        pairs = dict(re.findall(r'(\w+)=~?"([^"]*)"', selector))
        assert pairs.keys() <= LABELS[pairs["job"]]


def test_a_label_that_a_log_does_not_have_is_refused() -> None:
    assert chosen(Stream.AUDIT, action="Drop") == (
        '{job="fluentbit-antrea-netpolicy", action=~"Drop"}'
    )
    assert chosen(Stream.OURS, Stream.AGENT, nodename="a|b") == (
        '{job=~"fluentbit-flowvis|fluentbit-antrea", nodename=~"a|b"}'
    )
    with pytest.raises(ValueError, match=r"fluentbit-antrea: no label action, but agent_log"):
        chosen(Stream.AGENT, action="Drop")


HASH = "0123456789abcdef" * 4
RECEIVED = {
    Stream.OURS: (
        f"/var/log/containers/flow-exporter-8s2vv_flow-exporter_flow-exporter-{HASH}.log",
        "2026-09-30T02:14:03.5Z stderr F time=2026-09-30T02:14:03Z level=info logger=a msg=b",
    ),
    Stream.AGENT: (
        f"/var/log/containers/antrea-agent-x7k2p_kube-system_antrea-agent-{HASH}.log",
        "2026-09-30T02:14:03.5Z stderr F I0930 02:14:03.512873 1 server.go:12] said",
    ),
    Stream.CONTROLLER: (
        f"/var/log/containers/antrea-controller-6d4c-9qz_kube-system_antrea-controller-{HASH}.log",
        "2026-09-30T02:14:03.5Z stderr F W0930 02:14:03.512873 1 queue.go:12] said",
    ),
    Stream.AUDIT: (
        "/var/log/antrea/networkpolicy/np.log",
        "2026/09/30 02:14:03.5 T K8sNetworkPolicy:a/b r Ingress Drop 1 a/b ::1 4 ::2 80 TCP 60",
    ),
    Stream.OVS: (
        "/var/log/antrea/openvswitch/ovs-vswitchd.log",
        "2026-09-30T02:14:03.512Z|00001|bridge(handler1)|INFO|said",
    ),
}


@pytest.fixture(scope="module")
def fluent_bit() -> FluentBit:
    (container,) = workload("fluent-bit", LOGS)["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value", "node-1") for each in container["env"]}
    return FluentBit(DEPLOY / "logs", environment)


@pytest.mark.parametrize("stream", Stream)
def test_fields_of_lines_are_those_that_loki_gets(fluent_bit: FluentBit, stream: Stream) -> None:
    """And labels: what the pages take from the file is what it does."""
    path, line = RECEIVED[stream]
    ((labels, record),) = fluent_bit.sent(path, [line])
    assert labels.keys() == LABELS[stream]
    assert labels["job"] == stream
    asked = [each.expression for each in LOGQL if f'"{stream}"' in each.expression]
    fields = set().union(
        *(re.findall(r"\.(\w+)", " ".join(re.findall(r"\{\{(.*?)\}\}", each))) for each in asked),
        *(re.findall(r"(?:unwrap|\|) (\w+)(?==~| \[)", each) for each in asked),
        *(found.split(", ") for each in asked for found in re.findall(r"by \(([^)]*)\)", each)),
    )
    assert fields - {"octets"} <= record.keys() | labels.keys()
    assert fields


def test_levels_and_categories_are_labels() -> None:
    for stream, label in (*streams.CATEGORY.items(), *streams.LEVEL.items()):
        assert label in LABELS[stream]
    assert lines.of(Stream.OVS) == (
        '{job="fluentbit-antrea-ovs", nodename=~"$nodename", ovs_log_level=~"$ovs_log_level",'
        ' ovs_category=~"$ovs_category"}'
    )
