"""The whole product, end to end: every byte that the lab's clients sent is in the store."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from flowvis.lab.cni import CNIS
from flowvis.lab.faults import FAULTS
from flowvis.lab.plan import NODES
from flowvis.lab.scenarios import choose
from waiting import LONG_S

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(2 * LONG_S)]

COMMAND = [sys.executable, "-m", "flowvis.cli.flowctl", "lab", "run", "-o", "json"]


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=LONG_S)
    assert done.stdout, f"ended with {done.returncode}: {done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    wrong = {one["name"]: one["problems"] for one in report["scenarios"] if not one["ok"]}
    assert not wrong, json.dumps(wrong, indent=1)
    assert not report["problems"]
    assert all(ledger["balanced"] for ledger in report["ledger"].values())
    assert report["ok"]
    assert done.returncode == 0
    return report


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run("--duration", "10s")


def test_every_byte_of_every_scenario_is_stored(report: dict[str, Any]) -> None:
    assert [one["name"] for one in report["scenarios"]] == [s.name for s in choose([])]
    for scenario in report["scenarios"]:
        assert scenario["stored"] == scenario["expected"]
        assert scenario["expected"]["octets"] > 0
    assert report["flows"] == sum(scenario.connections for scenario in choose([]))
    assert report["correlated"] > 100
    assert len(report["ledger"]) == 1 + len(NODES)


@pytest.mark.parametrize("name", ["inter-node", "inter-node-v6", "from-outside-via", "udp"])
def test_a_long_connection_has_one_record_in_each_interval(
    report: dict[str, Any], name: str
) -> None:
    (scenario,) = (one for one in report["scenarios"] if one["name"] == name)
    assert 3 <= scenario["records"] <= 7  # active timeout 3 s; the first and the last are extra


def test_one_scenario_alone_while_a_pod_floods_its_node() -> None:
    """The run itself waits until it is said who does, and until each SYN is stored."""
    report = run("--duration", "1s", "--scenario", "dns", "--fault", "syn-flood")
    assert [one["name"] for one in report["scenarios"]] == ["dns"]
    (note,) = report["notes"]
    said = r"node-1 tracked (\d+) of 2000 connections: its connection table is \d+ % full: "
    found = re.fullmatch(said + r"shop/frontend opened (\d+), (\d+) of them unanswered", note)
    assert found is not None, note
    tracked, opened, unanswered = map(int, found.groups())
    assert tracked >= 1940
    assert tracked > opened == unanswered >= 1800


@pytest.mark.parametrize("fault", [name for name, one in FAULTS.items() if not one.by_sums])
def test_what_goes_wrong_costs_nothing(fault: str) -> None:
    run("--duration", "8s", "--fault", fault)


@pytest.mark.parametrize(
    "faults",
    [
        ["kill-any", "link-loss", "clocks"],
        ["kill-exporter", "store-killed", "store-resets", "collector-resets"],
        ["conntrack-full", "certificate-expired", "spool-full"],
    ],
    ids=["daemons", "exporters, store and network", "kernel, certificates and disk"],
)
def test_every_byte_is_counted_once_whatever_fails(faults: list[str]) -> None:
    """By plain sums; each of the faults has longer runs, by hand: `flowctl lab faults`."""
    chosen = [word for fault in faults for word in ("--fault", fault)]
    report = run("--duration", "8s", "--seed", "1", *chosen)
    assert (report["deaths"] > 0) == any(fault.startswith("kill") for fault in faults)
    assert report["recovered_s"] is not None
    assert (report["lost_unnamed"], report["doubled"]) == (0, 0)


def test_without_events_what_a_poll_can_see_is_exact() -> None:
    run("--duration", "5s", "--no-events")


@pytest.mark.parametrize("cni", [name for name in CNIS if name != "ranges"])
def test_every_scenario_is_the_same_under_another_cni(cni: str) -> None:
    report = run("--duration", "8s", "--cni", cni)
    assert [one["name"] for one in report["scenarios"]] == [s.name for s in choose([])]


def test_datagrams_and_denied_clients_go_on_after_a_pause() -> None:
    """The kernel has forgotten them meanwhile, on one node or on both."""
    names = [
        *("udp", "udp-v6", "dns", "denied", "denied-v6", "denied-udp", "denied-egress"),
        *("rejected", "rejected-v6", "unanswered"),
    ]
    chosen = [word for name in names for word in ("--scenario", name)]
    report = run("--duration", "4s", "--rounds", "3", *chosen)
    sent = {one["name"]: one["expected"]["packets"] for one in report["scenarios"]}
    assert list(sent) == names
    assert sent["dns"] == 3 * 40
