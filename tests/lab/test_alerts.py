"""A real Prometheus scrapes the lab with all alerts, whose times are a hundredth."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from tools.alerts.rules import groups, plain
from tools.alerts.table import ALERTS
from tools.dashboards import antrea
from tools.kustomize import dump

from dashboards.asked import PROMQL
from dashboards.asked import metrics as named_in
from flowvis.lab.alerts import RAISED, judge
from flowvis.lab.prometheus import Found
from flowvis.transport.datagram_server import DatagramStats
from flowvis.transport.stats import ServerStats
from waiting import LONG_S

SCALE = 0.01
COMMAND = [sys.executable, "-m", "flowvis.cli.flowctl", "lab", "run", "-o", "json"]
FAULTS = ("bad-configuration", "conntrack-fills", "state-full")
OVER_UDP = {
    f"flowvis_aggregator_server_{one.name}" + "_total" * (not one.metadata.get("gauge"))
    for one in set(fields(DatagramStats)) - set(fields(ServerStats))
}
"""What an aggregator has besides where it receives datagrams; the lab's does not."""


@pytest.mark.kernel
@pytest.mark.prometheus
@pytest.mark.slow
@pytest.mark.timeout(2 * LONG_S)
def test_faults_raise_their_alerts_and_no_other(tmp_path: Path) -> None:
    """Three that do not disturb each other; others by hand, as docs/alerts.md has it."""
    rules = tmp_path / "rules.yml"
    rules.write_text(dump([groups(ALERTS, scale=SCALE)]))
    chosen = ["--duration", "8s", "--scenario", "inter-node"]
    chosen += [argument for fault in FAULTS for argument in ("--fault", fault)]
    command = [*COMMAND, "--prometheus", str(rules), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert not report["problems"]
    found = report["prometheus"]
    assert found["alerts"].keys() == {name for fault in FAULTS for name in RAISED[fault].always}
    assert found["alerts"]["FlowvisConntrackFull"] == [{"node": "node-1"}, {"node": "node-2"}]
    metrics = set(found["metrics"])
    shown = set().union(*(named_in(each.expression) for each in PROMQL))
    assert shown - metrics == {name for name in shown if name.startswith("antrea_")} - metrics
    assert {each.name for each in antrea.OF_BOTH if not each.observed} <= metrics
    for alert in ALERTS:
        named = set(re.findall(r"\b(?:flowvis|process)_\w+", alert.expression))
        assert named, alert.name
        assert named - OVER_UDP <= metrics or alert.optional, alert.name


RULES = dump([groups(ALERTS, scale=SCALE)])


def found(*alerts: str, span_s: int = 20) -> Found:
    return Found(span_s, {name: [{"instance": "a"}] for name in alerts}, [])


def test_what_a_fault_raises_is_as_it_should_be() -> None:
    for fault, raised in RAISED.items():
        assert not list(judge([fault], found(*raised.always, *raised.sometimes), RULES))
        assert not list(judge([fault], found(*raised.always), RULES))


def test_an_alert_that_was_not_raised_is_a_problem() -> None:
    (said,) = judge(["store-stops", "flood"], found("FlowvisDestinationBehind"), RULES)
    assert said == "FlowvisDestinationDown was not raised"


def test_an_alert_that_nothing_raises_is_a_problem() -> None:
    (said,) = judge([], found("FlowvisClockSkew"), RULES)
    assert said == "FlowvisClockSkew was raised (a), and nothing in this run should have"
    (said,) = judge(["api-server"], found("FlowvisNamesStale", "FlowvisUnprotected"), RULES)
    assert said.startswith("FlowvisUnprotected was raised")


def test_alerts_of_others_are_theirs() -> None:
    mine = yaml.safe_load(RULES)
    mine["groups"][0]["rules"] = [{"alert": "Mine", "expr": "up > 0"}]
    assert not list(judge(["store-stops"], found("Mine"), yaml.safe_dump(mine)))


def test_rules_that_wait_for_longer_than_the_run_are_told() -> None:
    (said, _) = judge(["store-stops"], found(), plain(ALERTS))
    assert said.endswith("was not raised: it waits 300 s, and the run was watched for 20 s")
