"""flowctl status: what runs, and whether the books balance."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from flowvis.cli import tables
from flowvis.cli.client import ControlClient
from flowvis.runtime.durations import format_duration

UNBALANCED = 1


def add_arguments(commands: Any, connect: Callable[[argparse.Namespace], ControlClient]) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "status",
        help="what runs, and whether the books balance",
        description="Show the aggregator's sessions, the nodes without one, destinations and "
        f"ledger. Exits with {UNBALANCED} when the books do not balance: when a record is "
        "unaccounted for.",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: ControlClient) -> int:
    """Print the status."""
    status = client.get("status")
    balanced = bool(status["ledger"]["balanced"])
    if options.output == "json":
        print(json.dumps(status, ensure_ascii=False, indent=2))
    else:
        _show(status)
    if not balanced:
        print("flowctl: the books do not balance", file=sys.stderr)
    return 0 if balanced else UNBALANCED


def _show(status: Mapping[str, Any]) -> None:
    console = tables.console()
    console.print(Text(status["version"]))
    console.print(Text(f"up {status['uptimeSeconds']:.0f} s, {status['flows']} live flows"))
    if status.get("uncountedFlows"):
        console.print(
            Text(
                f"{status['uncountedFlows']} of them are not counted by their nodes' kernels: "
                "they began before net.netfilter.nf_conntrack_acct was 1; open them anew"
            )
        )
    if status.get("clusterId"):
        console.print(Text(f"cluster {status['clusterId']}"))
    _show_sessions(console, status["sessions"], status.get("nodes", ()))
    for destination in status["destinations"]:
        console.print(Text(f"{destination['name']}: {destination['problem'] or 'well'}"))
    _show_configuration(console, status.get("configuration", {}))
    if status.get("kubernetes"):
        console.print(Text(f"Kubernetes API: {status['kubernetes']}"))
    if status.get("ranges"):
        console.print(Text(f"Pod networks: {status['ranges']}"))
    if status.get("replica"):
        console.print(Text(f"replica: {status['replica']}"))
    _show_policies(console, status.get("policies", {}))
    _show_memory(console, status.get("memory", {}))
    console.print("", ledger_table(status["ledger"]))


def _show_sessions(
    console: Console, sessions: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]
) -> None:
    """Show who reports, and the nodes that do not."""
    if sessions:
        keys = ("messages", "records", "lost", "errors")
        lines = [
            (one["peer"], one.get("node", ""), *(one[key] for key in keys), _ago(one))
            for one in sessions
        ]
        titles = ("SESSION", "NODE", *(key.upper() for key in keys), "LAST REPORT")
        console.print("", tables.grid(titles, lines))
    silent = [node for node in nodes if not node["sessions"]]
    if silent:
        names = [(node["name"], node["records"], _ago(node)) for node in silent]
        grid = tables.grid(("NODE WITHOUT A SESSION", "RECORDS", "LAST REPORT"), names)
        console.print("", grid)


def _ago(reported: Mapping[str, Any]) -> str:
    """Say when the last report was."""
    age_s = reported.get("lastReportSeconds")
    return "never" if age_s is None else f"{format_duration(round(age_s))} ago"


def _show_policies(console: Console, policies: Mapping[str, Any]) -> None:
    count = policies.get("unenforced", 0)
    if count:
        console.print(
            Text(f"policies: {count} verdicts of denial refuted by the traffic: are they enforced?")
        )
    for which, parts in policies.get("unrecognized", {}).items():
        console.print(Text(tables.printable(f"policies: {which}: not understood: {parts}")))


def _show_memory(console: Console, memory: Mapping[str, Any]) -> None:
    """Show what the process takes of what it may, and its parts of their shares."""
    if not memory:
        return
    resident, limit = (_mebibytes(memory[key]) for key in ("residentBytes", "limitBytes"))
    shares = ", ".join(
        f"{share['name']} {_mebibytes(share['bytes'])} of {_mebibytes(share['limitBytes'])}"
        for share in memory["shares"]
    )
    console.print(
        Text(f"memory: {resident} of {limit} MiB ({memory['limitSource']}); of it {shares}")
    )


def _mebibytes(size: int) -> int:
    return (size + (1 << 19)) >> 20


def _show_configuration(console: Console, configuration: Mapping[str, Any]) -> None:
    for problem in configuration.get("problems", ()):
        console.print(Text(f"configuration not taken: {problem}"))
    waiting = ", ".join(configuration.get("restartRequired", ()))
    if waiting:
        console.print(Text(f"changed, and needs a restart: {waiting}"))


def ledger_table(ledger: Mapping[str, Any]) -> Any:
    """The books: a line for each stage."""
    titles = ("STAGE", "RECEIVED", "SENT", "MERGED", "DROPPED", "HELD", "UNACCOUNTED", "REASONS")
    return tables.grid(titles, [_stage(stage) for stage in ledger["stages"]])


def _stage(stage: Mapping[str, Any]) -> tuple[Any, ...]:
    dropped = stage["dropped"]
    return (
        stage["stage"],
        stage["received"],
        stage["sent"],
        stage["merged"],
        sum(dropped.values()),
        stage["held"],
        stage["imbalance"] or stage["missing"],
        ", ".join(f"{reason} {count}" for reason, count in dropped.items()),
    )
