"""Prometheus's own tools over the rules, with series for which each alert fires and does not."""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.alerts import __main__ as alerts
from tools.alerts.alert import MANY, age, duration, span
from tools.alerts.rules import groups
from tools.alerts.table import ALERTS, DROPPED

from deploy.rendered import ROOT, objects
from flowvis.lab.alerts import RAISED
from flowvis.lab.faults import FAULTS
from waiting import PATIENCE_S

Series = dict[str, str]

STEP_S = 30
AT = "30m"
AGGREGATOR = 'instance="a"'
EXPORTER = 'instance="e"'
NODES_OF_ALL = 30
ABSENT = '{alertname="FlowvisAggregatorAbsent"}'
NODE = f'{AGGREGATOR},node="n1"'
RECORDS = "flowvis_ledger_records_total"
NODES = "flowvis_aggregator_node"
ROLLUPS = "flowvis_aggregator_clickhouse_rollups"
SPOOL = "flowvis_aggregator_clickhouse_spool"
STORE = "flowvis_aggregator_clickhouse_store"


def dropped(reason: str, stage: str = "clickhouse") -> str:
    return f'{RECORDS}{{{AGGREGATOR},stage="{stage}",what="dropped",reason="{reason}"}}'


def conntrack(entries: str, limit: int = 1000) -> Series:
    return {
        f"{NODES}_conntrack_entries{{{NODE}}}": entries,
        f"{NODES}_conntrack_limit{{{NODE}}}": f"{limit}x60",
    }


AGGREGATOR_THERE = 'flowvis_build_info{daemon="flow-aggregator"}'
EXPORTER_THERE = 'flowvis_build_info{daemon="flow-exporter"}'
THERE = f'flowvis_build_info{{daemon="flow-aggregator",{AGGREGATOR}}}'
BEGAN = f"process_start_time_seconds{{{AGGREGATOR}}}"
FAILED = "stale stale"
"""What Prometheus writes of all series when it does not reach who has them: here for a minute."""


@dataclass(frozen=True)
class Case:
    """What fires, and nothing else, after half an hour of these series, in a cluster of its own."""

    name: str
    series: Series
    expected: tuple[str, ...] = ()
    alerts: int = 1
    """How many of each."""

    def of_cluster(self) -> Series:
        """The series, and an aggregator, in the cluster."""
        label = f'{{cluster="{self.name}",'
        series = {AGGREGATOR_THERE: "1x60", **self.series}
        return {name.replace("{", label, 1): values for name, values in series.items()}

    def firing(self) -> dict[str, int]:
        """How many fire, by their labels."""
        return {
            f'{{alertname="{name}",cluster="{self.name}"}}': self.alerts for name in self.expected
        }


def group(series: Series, firing: dict[str, int]) -> dict[str, Any]:
    """Return a test as promtool reads it."""
    return {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, cluster) (ALERTS{alertstate="firing"})',
                "eval_time": AT,
                "exp_samples": [{"labels": name, "value": each} for name, each in firing.items()],
            }
        ],
    }


def fires(name: str, series: Series, *others: str, when: str = "", alerts: int = 1) -> Case:
    return Case(when or name, series, (name, *others), alerts)


def on_nodes(metric: str, values: str, number: int) -> Series:
    return {f'{NODES}_{metric}{{{AGGREGATOR},node="n{one}"}}': values for one in range(number)}


def of_exporters(metric: str, values: str, number: int) -> Series:
    return {f'flowvis_exporter_{metric}{{instance="e{one}"}}': values for one in range(number)}


quiet = Case


CASES = [
    fires(
        "FlowvisBooksUnbalanced",
        {f'flowvis_ledger_imbalance_records{{{AGGREGATOR},stage="clickhouse"}}': "0x50 -3x10"},
    ),
    quiet(
        "books that are wrong for a moment",
        {f'flowvis_ledger_imbalance_records{{{AGGREGATOR},stage="x"}}': "0x58 4 4"},
    ),
    fires(
        "FlowvisBooksUnbalanced",
        {
            f'flowvis_ledger_imbalance_records{{instance="e{one}",stage="entries"}}': "5x60"
            for one in range(MANY + 1)
        },
        when="books of all exporters",
    ),
    fires("FlowvisRecordsDropped", {dropped("queue-full"): "5x50 7x10"}),
    fires(
        "FlowvisRecordsDropped",
        {
            f'{RECORDS}{{instance="e{one}",stage="records",what="dropped",'
            'reason="pending-full"}': "0+9x60"
            for one in range(NODES_OF_ALL)
        },
        when="losses of all exporters",
    ),
    fires(
        "FlowvisRecordsDropped",
        {dropped("failed", "correlator"): "_x50 7x10", THERE: "1x60"},
        when="the first loss of all",
    ),
    quiet("a loss of long ago", {dropped("spool-full"): "0x10 900x50"}),
    quiet(
        "a loss of long ago, and a scrape that failed since",
        {dropped("spool-full"): f"900x38 {FAILED} 900x19", THERE: f"1x38 {FAILED} 1x19"},
    ),
    quiet(
        "a loss of before Prometheus began",
        {dropped("spool-full"): "_x45 900x15", THERE: "_x45 1x15", BEGAN: "-90000x60"},
    ),
    fires(
        "FlowvisRecordsDropped",
        {dropped("spool-full"): "_x45 900x15", THERE: "_x45 1x15", BEGAN: "1300x60"},
        when="the first loss of a daemon that began a moment ago",
    ),
    quiet(
        "what nobody wanted",
        {dropped("filtered"): "0+9x60", dropped("repeated", "correlator"): "_x50 7x10"},
    ),
    fires("FlowvisAggregatorAbsent", {AGGREGATOR_THERE: "1x30 _x30"}),
    fires(
        "FlowvisAggregatorAbsent",
        {AGGREGATOR_THERE: "_x60", EXPORTER_THERE: "1x60"},
        when="only exporters are there",
    ),
    quiet("an aggregator that is replaced", {AGGREGATOR_THERE: "1x52 _x4 1x4"}),
    fires(
        "FlowvisRestarting",
        {
            f"process_start_time_seconds{{{EXPORTER}}}": "100x20 200x20 300 300 400x30",
            f'flowvis_build_info{{daemon="flow-exporter",{EXPORTER}}}': "1x60",
        },
    ),
    fires(
        "FlowvisRestarting",
        {
            f"process_start_time_seconds{{{EXPORTER}}}": "1x20 2x10 stale 3x10 stale 4x5 stale",
            f"flowvis_build_info{{{EXPORTER}}}": "1x31 stale 1x10 stale 1x5 stale",
        },
        when="a daemon that ends again and again, and is away now",
    ),
    quiet(
        "restarts of others, and one of ours",
        {
            'process_start_time_seconds{instance="of something else"}': "1 2 3 4 5 6 7x60",
            f"process_start_time_seconds{{{EXPORTER}}}": "100x20 200x40",
            f'flowvis_build_info{{daemon="flow-exporter",{EXPORTER}}}': "1x60",
        },
    ),
    fires("FlowvisExporterSilent", {f"{NODES}_sessions{{{NODE}}}": "1x45 0x15"}),
    fires("FlowvisExporterSilent", on_nodes("sessions", "0x60", 3), alerts=3, when="three nodes"),
    fires("FlowvisExporterSilent", on_nodes("sessions", "0x60", NODES_OF_ALL), when="all nodes"),
    fires(
        "FlowvisExporterSilent",
        {f"{NODES}_sessions{{{NODE}}}": f"0x50 {FAILED} 0x7"},
        when="a silent node, while a scrape failed at the beginning of the span",
    ),
    quiet(
        "a rollout: more than ten at every moment, none for long",
        {
            f'{NODES}_sessions{{{AGGREGATOR},node="{one}-{other}"}}': f"1x{one} 0x3 1x{56 - one}"
            for one in range(56)
            for other in range(4)
        },
    ),
    quiet(
        "a node that is new",
        {f"{NODES}_sessions{{{NODE}}}": "_x57 0 0 0"},
    ),
    fires(
        "FlowvisExporterSilent",
        {
            f"{NODES}_sessions{{{NODE}}}": "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0x30 0+30x30",
            f"{NODES}_acknowledged_total{{{NODE}}}": "7x60",
        },
        when="a session in which nothing comes",
    ),
    fires(
        "FlowvisExporterSilent",
        {
            f"{NODES}_sessions{{{NODE}}}": "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0x10 0+30x50",
            f"flowvis_aggregator_server_kernel_dropped_total{{{AGGREGATOR}}}": "0x60",
        },
        when="nothing comes over UDP, not even templates",
    ),
    quiet(
        "templates come over UDP, and nothing else",
        {
            f"{NODES}_sessions{{{NODE}}}": "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0+30x20 0+30x20 0+30x19",
            f"flowvis_aggregator_server_kernel_dropped_total{{{AGGREGATOR}}}": "0x60",
        },
    ),
    quiet(
        "a session of an exporter that is not ours, which says nothing where there is nothing",
        {
            f"{NODES}_sessions{{{NODE}}}": "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0x30 0+30x30",
        },
    ),
    quiet(
        "a node whose session is with another replica",
        {
            f"{NODES}_sessions{{{NODE}}}": "0x60",
            f'{NODES}_sessions{{instance="b",node="n1"}}': "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0+30x60",
            f'{NODES}_silent_seconds{{instance="b",node="n1"}}': "20x60",
            f"{NODES}_acknowledged_total{{{NODE}}}": "7x60",
            f'{NODES}_acknowledged_total{{instance="b",node="n1"}}': "0+7x60",
        },
    ),
    quiet("an exporter that is restarted", {f"{NODES}_sessions{{{NODE}}}": "1x54 0 0 0 0 1 1"}),
    fires(
        "FlowvisExporterDisconnected", {f"flowvis_exporter_client_connected{{{EXPORTER}}}": "0x60"}
    ),
    fires(
        "FlowvisExporterDisconnected",
        of_exporters("client_connected", "0x60", NODES_OF_ALL),
        when="all exporters",
    ),
    quiet(
        "sessions that end again and again",
        {f"flowvis_exporter_client_connected{{{EXPORTER}}}": "0 0 0 1 0 0 0 0 0 1" + " 0 0 1" * 20},
    ),
    fires(
        "FlowvisMessagesLost",
        {f"flowvis_aggregator_ipfix_lost_records_total{{{AGGREGATOR}}}": "4x50 5x10"},
    ),
    quiet(
        "gaps of long ago",
        {f"flowvis_aggregator_ipfix_lost_records_total{{{AGGREGATOR}}}": "0x10 5x50"},
    ),
    fires("FlowvisConnectionsMissed", {f"{NODES}_missed{{{NODE}}}": "9x50 2x10"}),  # a new one
    fires(
        "FlowvisConnectionsMissed",
        on_nodes("missed", "0+1x60", NODES_OF_ALL),
        when="a kernel's defect",
    ),
    quiet("what was missed long ago", {f"{NODES}_missed{{{NODE}}}": "0x10 900x50"}),
    fires(
        "FlowvisConnectionsMissed",
        {
            f"{NODES}_missed{{{NODE}}}": "3x50 stale",
            f'{NODES}_missed{{instance="b",node="n1"}}': "_x52 9x8",
        },
        when="a node that went down with the aggregator",
    ),
    fires(
        "FlowvisConnectionsMissed",
        {
            f"{NODES}_missed{{{NODE}}}": "3x5 stale",
            f'{NODES}_missed{{instance="b",node="n1"}}': "_x56 9x4",
        },
        when="a node that went down with the aggregator, for long",
    ),
    fires(
        "FlowvisConnectionsMissed",
        {
            f"{NODES}_missed{{{NODE}}}": "9x50 stale",
            f'{NODES}_missed{{instance="b",node="n1"}}': "_x52 3x8",
        },
        when="another exporter, which missed less, and another aggregator",
    ),
    quiet(
        "another aggregator, which hears of what was missed long ago",
        {
            f"{NODES}_missed{{{NODE}}}": "9x50 stale",
            f'{NODES}_missed{{instance="b",node="n1"}}': "_x52 9x8",
        },
    ),
    quiet(
        "another aggregator, and an exporter that missed nothing since it began",
        {
            f"{NODES}_missed{{{NODE}}}": "9x50 stale",
            f'{NODES}_missed{{instance="b",node="n1"}}': "_x52 0x8",
        },
    ),
    quiet(
        "a node that is new to Prometheus, and missed something at some time",
        {f"{NODES}_missed{{{NODE}}}": "_x50 9x10"},
    ),
    fires("FlowvisNodeDropped", {f"{NODES}_dropped{{{NODE}}}": "0x50 8x10"}),
    fires(
        "FlowvisNodeDropped",
        {
            f"{NODES}_dropped{{{NODE}}}": "0x50 stale",
            f'{NODES}_dropped{{instance="b",node="n1"}}': "_x52 8x8",
        },
        when="drops while no aggregator was there",
    ),
    quiet(
        "drops of an exporter that is scraped",
        {
            f"{NODES}_dropped{{{NODE}}}": "0x50 8x10",
            EXPORTER_THERE: "1x60",
        },
    ),
    fires("FlowvisClockSkew", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "0x40 2.5x20"}),
    fires("FlowvisClockSkew", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "-9x60"}, when="behind"),
    fires(
        "FlowvisClockSkew",
        on_nodes("clock_ahead_seconds", "9x60", NODES_OF_ALL),
        when="its own clock",
    ),
    quiet("a clock that jumps", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "0x40" + " 9 0" * 10}),
    quiet("what whole seconds do", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "-2.9x60"}),
    fires("FlowvisConntrackFilling", conntrack("850x60")),
    fires("FlowvisConntrackFull", conntrack("960x60"), "FlowvisConntrackFilling"),
    fires("FlowvisConntrackRising", conntrack("100x48 100+20x12")),
    fires(
        "FlowvisConntrackFilling",
        on_nodes("conntrack_entries", "9x60", NODES_OF_ALL)
        | on_nodes("conntrack_limit", "10x60", NODES_OF_ALL),
        when="tables of all nodes",
    ),
    quiet("a table that fills slowly", conntrack("300+1x60")),
    quiet("a small table that doubles", conntrack("1x50 5+19x10")),
    fires(
        "FlowvisCertificateEnding",
        {f"flowvis_exporter_certificate_end_timestamp_seconds{{{EXPORTER}}}": "1000000x60"},
    ),
    fires(
        "FlowvisCertificateEnding",
        of_exporters("certificate_end_timestamp_seconds", "1000000x60", NODES_OF_ALL),
        when="the certificate of all",
    ),
    quiet(
        "a certificate that is renewed in time",
        {f"flowvis_aggregator_certificate_end_timestamp_seconds{{{AGGREGATOR}}}": "2500000x60"},
    ),
    fires(
        "FlowvisDestinationDown",
        {f'flowvis_aggregator_destination_healthy{{{AGGREGATOR},destination="s3"}}': "1x45 0x15"},
    ),
    quiet(
        "a destination that fails for a minute",
        {f'flowvis_aggregator_destination_healthy{{{AGGREGATOR},destination="s3"}}': "1x58 0 0"},
    ),
    fires(
        "FlowvisDestinationBehind",
        {f"flowvis_aggregator_destination_behind_seconds{{{AGGREGATOR}}}": "0x30 30+30x30"},
    ),
    fires(
        "FlowvisSpoolFilling",
        {
            f"{SPOOL}ed_bytes{{{AGGREGATOR}}}": "60x60",
            f"{SPOOL}_limit_bytes{{{AGGREGATOR}}}": "100x60",
        },
    ),
    quiet(
        "no spool",
        {
            f"{SPOOL}ed_bytes{{{AGGREGATOR}}}": "0x60",
            f"{SPOOL}_limit_bytes{{{AGGREGATOR}}}": "0x60",
        },
    ),
    fires("FlowvisSpoolFails", {f"{SPOOL}_failures_total{{{AGGREGATOR}}}": "0x50 1x10"}),
    fires(
        "FlowvisVolumeFilling",
        {
            f"{STORE}_disk_free_bytes{{{AGGREGATOR}}}": "4x60",
            f"{STORE}_disk_bytes{{{AGGREGATOR}}}": "100x60",
        },
    ),
    quiet(
        "an engine that tells nothing of its disk",
        {
            f"{STORE}_disk_free_bytes{{{AGGREGATOR}}}": "0x60",
            f"{STORE}_disk_bytes{{{AGGREGATOR}}}": "0x60",
        },
    ),
    quiet(
        "a disk that the monitor keeps at nine tenths",
        {
            f"{STORE}_disk_free_bytes{{{AGGREGATOR}}}": "9x60",
            f"{STORE}_disk_bytes{{{AGGREGATOR}}}": "100x60",
        },
    ),
    fires("FlowvisStoreShort", {f"{STORE}_short_bytes{{{AGGREGATOR}}}": "0x40 5x20"}),
    quiet("room that is made within minutes", {f"{STORE}_short_bytes{{{AGGREGATOR}}}": "0x55 5x5"}),
    fires("FlowvisNewestDropped", {f"{STORE}_newest_records_total{{{AGGREGATOR}}}": "0x50 7x10"}),
    fires(
        "FlowvisMemoryNearLimit",
        {
            f"process_resident_memory_bytes{{{AGGREGATOR}}}": "95x60",
            f"flowvis_aggregator_memory_limit_bytes{{{AGGREGATOR}}}": "100x60",
            f"process_resident_memory_bytes{{{EXPORTER}}}": "85x60",
            f"flowvis_exporter_memory_limit_bytes{{{EXPORTER}}}": "100x60",
            'process_resident_memory_bytes{instance="of something else"}': "999x60",
        },
    ),
    fires("FlowvisRollupsBehind", {f"{ROLLUPS}_minutes_behind_seconds{{{AGGREGATOR}}}": "1900x60"}),
    quiet(
        "what is usual after a kill",
        {
            f"{ROLLUPS}_minutes_behind_seconds{{{AGGREGATOR}}}": "1000x60",
            f"{ROLLUPS}_hours_behind_seconds{{{AGGREGATOR}}}": "11400x60",
        },
    ),
    fires(
        "FlowvisUnacknowledged",
        {
            f"{NODES}_waiting{{{NODE}}}": "7x60",
            f"{NODES}_acknowledged_total{{{NODE}}}": "0+9x20 180x40",
        },
    ),
    fires(
        "FlowvisUnacknowledged",
        {
            f"{NODES}_waiting{{{NODE}}}": f"7x38 {FAILED} 7x19",
            f"{NODES}_acknowledged_total{{{NODE}}}": "180x60",
        },
        when="records that wait, while a scrape failed at the beginning of the span",
    ),
    fires(
        "FlowvisUnacknowledged", on_nodes("waiting", "7x60", NODES_OF_ALL), when="a store's outage"
    ),
    quiet(
        "records that wait since a moment ago",
        {
            f"{NODES}_waiting{{{NODE}}}": "0x50 7x10",
            f"{NODES}_acknowledged_total{{{NODE}}}": "180x60",
        },
    ),
    quiet(
        "records that are acknowledged while others wait",
        {f"{NODES}_waiting{{{NODE}}}": "7x60", f"{NODES}_acknowledged_total{{{NODE}}}": "0+9x60"},
    ),
    fires(
        "FlowvisUnprotected",
        {f"flowvis_exporter_unacknowledged_unprotected_total{{{EXPORTER}}}": "0x50 3x10"},
    ),
    fires("FlowvisKernelTellsLess", {f"flowvis_exporter_conntrack_off{{{EXPORTER}}}": "0x50 1x10"}),
    fires(
        "FlowvisConfigurationRefused",
        {f"flowvis_exporter_config_problems{{{EXPORTER}}}": "0x50 2x10"},
    ),
    fires(
        "FlowvisFlowMetricsFull",
        {
            f"flowvis_aggregator_flow_metrics_other_records_total{{{AGGREGATOR}}}": "0+3x120",
            f"flowvis_aggregator_flow_metrics_records_total{{{AGGREGATOR}}}": "0+10x120",
        },
    ),
    quiet(
        "flows of which hardly any are others",
        {
            f"flowvis_aggregator_flow_metrics_other_records_total{{{AGGREGATOR}}}": "0+1x120",
            f"flowvis_aggregator_flow_metrics_records_total{{{AGGREGATOR}}}": "0+10x120",
        },
    ),
    fires(
        "FlowvisNamesStale",
        {f"flowvis_aggregator_kubernetes_stale_seconds{{{AGGREGATOR}}}": "0x30 0+30x30"},
    ),
]


@pytest.mark.parametrize("path", alerts.files())
def test_what_is_generated_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == alerts.files()[path], "run `make docs`"


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", ROOT / "deploy/prometheus/flowvis.rules.yml")


@pytest.mark.prometheus
def test_what_fires_and_what_does_not(tmp_path: Path) -> None:
    """All in one run of promtool; what it says of a failure has the case's name as cluster."""
    series: Series = {}
    firing: dict[str, int] = {}
    for case in CASES:
        series |= case.of_cluster()
        firing |= case.firing()
    nothing = group({'up{instance="of something else"}': "0x60"}, {ABSENT: 1})
    document = {
        "rule_files": [str(ROOT / "deploy/prometheus/flowvis.rules.yml")],
        "evaluation_interval": "1m",
        "tests": [group(series, firing), nothing, spoken()],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", tmp_path / "tests.yml")


def spoken() -> dict[str, Any]:
    """What is said of one node, and of many: a test as promtool reads it."""
    (silent,) = (one for one in ALERTS if one.name == "FlowvisExporterSilent")
    annotations = {
        "description": silent.meaning,
        "runbook_url": "docs/alerts.md#flowvisexportersilent",
    }
    said = {
        ("one", "n0"): "node n0: nothing comes from its exporter",
        ("many", ""): "30 nodes: nothing comes from their exporters",
    }
    series = {
        name.replace("{", f'{{cluster="{cluster}",'): values
        for cluster, number in (("one", 1), ("many", NODES_OF_ALL))
        for name, values in on_nodes("sessions", "0x60", number).items()
    }
    return {
        "interval": f"{STEP_S}s",
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "alert_rule_test": [
            {
                "eval_time": AT,
                "alertname": silent.name,
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "severity": "warning",
                            "cluster": cluster,
                            **({"node": node} if node else {}),
                        },
                        "exp_annotations": {"summary": summary, **annotations},
                    }
                    for (cluster, node), summary in said.items()
                ],
            }
        ],
    }


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_each_alert_is_tried() -> None:
    tried = set().union(*(case.expected for case in CASES))
    assert tried == {alert.name for alert in ALERTS}


def test_a_fault_of_the_lab_raises_each_or_none_can() -> None:
    assert RAISED.keys() == FAULTS.keys()
    raised = {name for one in RAISED.values() for name in (*one.always, *one.sometimes)}
    assert raised == {alert.name for alert in ALERTS if not alert.untried}


def test_what_may_be_of_many_tells_which_and_how_many() -> None:
    for alert in ALERTS:
        if alert.each is not None:
            assert f"$labels.{alert.each.label}" in alert.summary
            assert "$value" in alert.each.many
            assert alert.each.label in alert.expression or alert.each.label == "instance"
        else:  # of the aggregator, of which there are few
            assert "flowvis_exporter" not in alert.expression
            assert "by (cluster, node" not in alert.expression


def test_they_use_what_prometheus_2_40_has_and_3_still_has() -> None:
    """The summaries, too: functions of templates that were there in 2.40."""
    functions = set().union(*(re.findall(r"\b([a-z_]+) ?\(", one.promql()) for one in ALERTS))
    assert functions <= {
        *("by", "on", "group", "sum", "max", "min", "count", "unless", "or", "and"),
        *(
            "absent",
            "changes",
            "increase",
            "last_over_time",
            "max_over_time",
            "min_over_time",
            "predict_linear",
            "time",
        ),
    }
    templates = " ".join(alert.said for alert in ALERTS)
    assert set(re.findall(r"\| (\w+)", templates)) <= {
        *("humanize", "humanize1024", "humanizeDuration", "humanizePercentage"),
    }
    for group in groups(ALERTS)["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "record", "expr", "for", "labels", "annotations"}
            name = rule.get("alert") or rule["record"]
            assert re.fullmatch(r"[A-Za-z_:][A-Za-z0-9_:]*", name)


def test_each_has_a_page_that_says_what_to_do() -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    for alert in ALERTS:
        assert f"\n## {alert.name}\n" in page
        assert all(step in page for step in (*alert.look, *alert.remedy))


def test_runbooks_may_be_elsewhere() -> None:
    (group,) = groups(ALERTS, runbooks="https://wiki.example/alerts")["groups"]
    urls = [rule["annotations"]["runbook_url"] for rule in group["rules"] if "alert" in rule]
    assert urls == [f"https://wiki.example/alerts#{alert.name.lower()}" for alert in ALERTS]


@pytest.mark.prometheus
def test_the_configuration_of_the_page_is_taken(tmp_path: Path) -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    (text,) = (one for one in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "scrape" in one)
    taken = yaml.safe_load(text)
    (scrape,) = taken["scrape_configs"]
    (found,) = scrape.pop("kubernetes_sd_configs")  # Debian's prometheus is built without
    assert found["role"] == "pod"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(taken))
    rules = (ROOT / "deploy/prometheus/flowvis.rules.yml").read_text()
    (tmp_path / "flowvis.rules.yml").write_text(rules)
    promtool("check", "config", tmp_path / "prometheus.yml")


def test_what_the_pages_link_to_is_there() -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    for file, anchor in re.findall(r"\]\(([a-z]+\.md)#([^)]+)\)", page):
        titles = re.findall(r"^#+ (.*)$", (ROOT / "docs" / file).read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert anchor in anchors, f"{file}#{anchor}"


def test_only_losses_are_called_so() -> None:
    words = re.findall(r"[a-z-]+", DROPPED.partition("reason=~")[2])
    assert {"queue-full", "spool-full", "lost", "failed"} <= set(words)
    assert not {"filtered", "repeated", "out-of-scope", "left", "not-local"} & set(words)


def test_the_overlay_has_them() -> None:
    (rule,) = (one for one in objects("overlays/prometheus") if one["kind"] == "PrometheusRule")
    (group,) = rule["spec"]["groups"]
    names = [one["alert"] for one in group["rules"] if "alert" in one]
    assert names == [alert.name for alert in ALERTS]


@pytest.mark.parametrize(
    ("seconds", "text"), [(7200, "2h"), (90, "90s"), (600, "10m"), (0.5, "500ms"), (1e-9, "1ms")]
)
def test_spans_as_prometheus_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_shortened_but_not_below_what_the_product_takes() -> None:
    table = replace(ALERTS[0], expression=f"x[{span(600)}] > {age(300, least_s=35)}")
    assert table.promql() == "x[10m] > 300"
    assert table.promql(0.5) == "x[5m] > 150"
    assert table.promql(0.01) == "x[6s] > 35"
