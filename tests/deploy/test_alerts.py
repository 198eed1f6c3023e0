"""Prometheus's own tools over the rules, with series for which each alert fires and does not."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.alerts import __main__ as alerts
from tools.alerts.alert import duration
from tools.alerts.table import ALERTS, DROPPED

from deploy.rendered import ROOT, objects

Series = dict[str, str]

STEP_S = 30
AT = "30m"
AGGREGATOR = 'instance="a"'
EXPORTER = 'instance="e"'
NODE = f'{AGGREGATOR},node="n1"'
RECORDS = "flowvis_ledger_records_total"
NODES = "flowvis_aggregator_node"
ROLLUPS = "flowvis_aggregator_clickhouse_rollups"
SPOOL = "flowvis_aggregator_clickhouse_spool"
VOLUME = 'namespace="flow-visibility",persistentvolumeclaim="data"'


def dropped(reason: str, stage: str = "clickhouse") -> str:
    return f'{RECORDS}{{{AGGREGATOR},stage="{stage}",what="dropped",reason="{reason}"}}'


def conntrack(entries: str, limit: int = 1000) -> Series:
    return {
        f"{NODES}_conntrack_entries{{{NODE}}}": entries,
        f"{NODES}_conntrack_limit{{{NODE}}}": f"{limit}x60",
    }


@dataclass(frozen=True)
class Case:
    """What fires, and nothing else, after half an hour of these series."""

    name: str
    series: Series
    expected: tuple[str, ...] = ()

    def as_group(self) -> dict[str, Any]:
        """As promtool reads it."""
        series = {'flowvis_build_info{daemon="flow-aggregator"}': "1x60", **self.series}
        firing = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in self.expected]
        return {
            "name": self.name,
            "interval": f"{STEP_S}s",
            "input_series": [{"series": name, "values": text} for name, text in series.items()],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": AT,
                    "exp_samples": firing,
                }
            ],
        }


def fires(name: str, series: Series, *others: str, when: str = "") -> Case:
    return Case(when or name, series, (name, *others))


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
    fires("FlowvisRecordsDropped", {dropped("queue-full"): "5x50 7x10"}),
    fires(
        "FlowvisRecordsDropped",
        {dropped("failed", "correlator"): "_x50 7x10"},
        when="the first loss of all",
    ),
    quiet("a loss of long ago", {dropped("spool-full"): "0x10 900x50"}),
    quiet(
        "what nobody wanted",
        {dropped("filtered"): "0+9x60", dropped("repeated", "correlator"): "_x50 7x10"},
    ),
    fires(
        "FlowvisAggregatorAbsent",
        {'flowvis_build_info{daemon="flow-aggregator"}': "1x30 _x30"},
        when="FlowvisAggregatorAbsent",
    ),
    fires("FlowvisExporterSilent", {f"{NODES}_sessions{{{NODE}}}": "1x45 0x15"}),
    fires(
        "FlowvisExporterSilent",
        {
            f"{NODES}_sessions{{{NODE}}}": "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0x30 0+30x30",
        },
        when="a session in which nothing comes",
    ),
    quiet(
        "a node whose session is with another replica",
        {
            f"{NODES}_sessions{{{NODE}}}": "0x60",
            f'{NODES}_sessions{{instance="b",node="n1"}}': "1x60",
            f"{NODES}_silent_seconds{{{NODE}}}": "0+30x60",
            f'{NODES}_silent_seconds{{instance="b",node="n1"}}': "20x60",
        },
    ),
    quiet("an exporter that is restarted", {f"{NODES}_sessions{{{NODE}}}": "1x54 0 0 0 0 1 1"}),
    fires(
        "FlowvisExporterDisconnected", {f"flowvis_exporter_client_connected{{{EXPORTER}}}": "0x60"}
    ),
    fires(
        "FlowvisMessagesLost",
        {f"flowvis_aggregator_ipfix_lost_records_total{{{AGGREGATOR}}}": "4x50 5x10"},
    ),
    quiet(
        "gaps of long ago",
        {f"flowvis_aggregator_ipfix_lost_records_total{{{AGGREGATOR}}}": "0x10 5x50"},
    ),
    fires(
        "FlowvisConnectionsMissed",
        {f"flowvis_exporter_table_ended_unobserved_total{{{EXPORTER}}}": "9x50 2x10"},  # a new one
    ),
    fires("FlowvisClockSkew", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "0x40 2.5x20"}),
    fires("FlowvisClockSkew", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "-9x60"}, when="behind"),
    quiet("what whole seconds do", {f"{NODES}_clock_ahead_seconds{{{NODE}}}": "-2.9x60"}),
    fires("FlowvisConntrackFilling", conntrack("850x60")),
    fires("FlowvisConntrackFull", conntrack("960x60"), "FlowvisConntrackFilling"),
    fires("FlowvisConntrackRising", conntrack("100x48 100+20x12")),
    quiet("a table that fills slowly", conntrack("300+1x60")),
    quiet("a small table that doubles", conntrack("1x50 5+19x10")),
    fires(
        "FlowvisCertificateEnding",
        {f"flowvis_exporter_certificate_end_timestamp_seconds{{{EXPORTER}}}": "2000000x60"},
    ),
    quiet(
        "a certificate that is renewed in time",
        {f"flowvis_aggregator_certificate_end_timestamp_seconds{{{AGGREGATOR}}}": "7000000x60"},
    ),
    fires(
        "FlowvisDestinationDown",
        {f'flowvis_aggregator_destination_healthy{{{AGGREGATOR},destination="s3"}}': "1x50 0x10"},
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
    fires(
        "FlowvisVolumeFilling",
        {
            f"kubelet_volume_stats_available_bytes{{{VOLUME}}}": "5x60",
            f"kubelet_volume_stats_capacity_bytes{{{VOLUME}}}": "100x60",
        },
    ),
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
    quiet(
        "records that are acknowledged while others wait",
        {f"{NODES}_waiting{{{NODE}}}": "7x60", f"{NODES}_acknowledged_total{{{NODE}}}": "0+9x60"},
    ),
    fires(
        "FlowvisUnprotected",
        {f"flowvis_exporter_unacknowledged_unprotected_total{{{EXPORTER}}}": "0x50 3x10"},
    ),
    fires(
        "FlowvisConfigurationRefused",
        {f"flowvis_exporter_config_problems{{{EXPORTER}}}": "0x50 2x10"},
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
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", ROOT / "deploy/prometheus/flowvis.rules.yml")


@pytest.mark.prometheus
def test_what_fires_and_what_does_not(tmp_path: Path) -> None:
    """All in one run of promtool; what it says of a failure has the case's name."""
    document = {
        "rule_files": [str(ROOT / "deploy/prometheus/flowvis.rules.yml")],
        "evaluation_interval": "1m",
        "tests": [case.as_group() for case in CASES],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", tmp_path / "tests.yml")


def test_each_alert_is_tried() -> None:
    tried = set().union(*(case.expected for case in CASES))
    assert tried == {alert.name for alert in ALERTS}


def test_each_has_a_page_that_says_what_to_do() -> None:
    page = (ROOT / "docs/alerts.md").read_text()
    for alert in ALERTS:
        assert alert.anchor == f"docs/alerts.md#{alert.name.lower()}"
        assert f"\n## {alert.name}\n" in page
        assert all(step in page for step in (*alert.look, *alert.remedy))


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
    assert [one["alert"] for one in group["rules"]] == [alert.name for alert in ALERTS]


@pytest.mark.parametrize(
    ("seconds", "text"), [(7200, "2h"), (90, "90s"), (600, "10m"), (0.5, "500ms"), (1e-9, "1ms")]
)
def test_spans_as_prometheus_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
