"""A real Prometheus scrapes the lab with all alerts, whose times are a hundredth."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.alerts.rules import groups
from tools.alerts.table import ALERTS
from tools.dashboards import antrea
from tools.kustomize import dump

from dashboards.asked import PROMQL
from dashboards.asked import metrics as named_in

pytestmark = [pytest.mark.kernel, pytest.mark.prometheus, pytest.mark.slow]

SCALE = 0.01
COMMAND = [sys.executable, "-m", "flowvis.cli.flowctl", "lab", "run", "-o", "json"]


def scraped(path: Path, *arguments: str) -> tuple[set[str], set[str]]:
    """Run the lab; return which alerts fired, and which metrics there were."""
    rules = path / "rules.yml"
    rules.write_text(dump([groups(ALERTS, scale=SCALE)]))
    command = [*COMMAND, "--prometheus", str(rules), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert not report["problems"]
    found = report["prometheus"]
    return set(found["alerts"]), set(found["metrics"])


def test_a_fault_raises_its_alerts_and_no_other(tmp_path: Path) -> None:
    """One for all: others by hand, `flowctl lab run --fault NAME --prometheus RULES`."""
    chosen = ["--duration", "5s", "--scenario", "inter-node", "--fault", "certificate-expired"]
    fired, metrics = scraped(tmp_path, *chosen)
    assert "FlowvisCertificateEnding" in fired
    assert fired <= {
        "FlowvisCertificateEnding",
        "FlowvisExporterDisconnected",
        "FlowvisExporterSilent",
    }
    shown = set().union(*(named_in(each.expression) for each in PROMQL))
    assert shown - metrics == {name for name in shown if name.startswith("antrea_")} - metrics
    assert {each.name for each in antrea.OF_BOTH if not each.observed} <= metrics
    for alert in ALERTS:
        named = set(re.findall(r"\b(?:flowvis|process|kubelet)_\w+", alert.expression))
        assert named, alert.name
        assert named - metrics == set(alert.foreign), alert.name
