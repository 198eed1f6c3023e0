"""flowctl status: what runs, and whether the books balance; `--check`, for scripts.

Exit codes of `--check` are those of monitoring plugins: 0 well, 1 warning, 2 critical, 3 unknown.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from rich.console import Console

from flowvis.cli import tables
from flowvis.cli.amounts import quantity
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command
from flowvis.cli.layout import Column, Layout
from flowvis.errors import FlowvisError
from flowvis.runtime.durations import format_duration, parse_duration
from flowvis.runtime.visible import visible, visible_json

UNBALANCED = 1
RECENT_S = 300.0  # losses of so long ago are a warning


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "status",
        "what runs, and whether the books balance",
        "Show the aggregator's sessions, the nodes without one, destinations and "
        f"ledger. Exits with {UNBALANCED} when the books do not balance: when a record is "
        "unaccounted for.",
        "",
        "--check                # one line and an exit code, for scripts and monitoring",
        positional="",
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument(
        "--check",
        action="store_true",
        help="one line, for scripts and monitoring; exits with 0 when all is well, 1 (warning) "
        "when records were lost or connections ended unobserved lately, a node does not report or "
        "something is not followed, 2 (critical) when the books do not balance, a destination "
        "takes nothing or the aggregator is not ready, 3 (unknown) when no aggregator answers",
    )
    parser.add_argument(
        "--since",
        type=_duration,
        default=RECENT_S,
        metavar="DURATION",
        help="--check: how long a loss is a warning (default 5m)",
    )
    parser.set_defaults(run=lambda options: run(options, lambda: connect(options)))


def run(options: argparse.Namespace, connect: Callable[[], Client]) -> int:
    """Print the status."""
    if options.check:
        return _check(connect, options.since)
    status = connect().get("api/v1/status")
    balanced = bool(status["ledger"]["balanced"])
    if options.output == "json":
        print(visible_json(status, indent=2))
    else:
        _show(status)
    if not balanced:
        print("flowctl: the books do not balance", file=sys.stderr)
    return 0 if balanced else UNBALANCED


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


class Severity(IntEnum):
    """How bad a finding is, as monitoring plugins have it; the exit code of `--check`."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def findings(status: Mapping[str, Any], since_s: float) -> Iterator[tuple[Severity, str]]:
    """Go through what is not well."""
    if not status["ledger"]["balanced"]:
        yield Severity.CRITICAL, "the books do not balance"
    if not status.get("ready", True) and not status.get("replica"):
        yield Severity.CRITICAL, "not ready"
    for destination in status["destinations"]:
        if wrong := _problem(destination):
            # One that is replaced, or waits for the one before it, is on its way to be well.
            passing = wrong.startswith("replaced, ") or wrong == "begins then"
            severity = Severity.WARNING if passing else Severity.CRITICAL
            yield severity, f"{destination['name']}: {wrong}"
    yield from _store_findings(status.get("store", {}), status.get("rollups", {}))
    for loss in status.get("losses", ()):
        if loss["lastSeconds"] <= since_s:
            yield Severity.WARNING, _loss(loss)
    for node in status.get("nodes", ()):
        if not node["sessions"]:
            yield Severity.WARNING, f"node {node['name']} has no session"
        missed_s = node.get("missedLastSeconds")
        if missed_s is not None and missed_s <= since_s:
            ago = format_duration(round(missed_s))
            texts = ", ".join(node["missing"])
            yield Severity.WARNING, f"node {node['name']}: {texts}, last {ago} ago"
    for problem in status.get("configuration", {}).get("problems", ()):
        yield Severity.WARNING, f"configuration not taken: {problem}"
    if problem := status.get("kubernetes"):
        yield Severity.WARNING, f"Kubernetes API: {problem}"


def _store_findings(
    store: Mapping[str, Any], rollups: Mapping[str, Any]
) -> Iterator[tuple[Severity, str]]:
    if problem := store.get("problem"):
        yield Severity.CRITICAL, f"store: {problem}"
    for difference in rollups.get("differences", ()):
        yield Severity.CRITICAL, f"roll-ups differ from the records: {difference}"
    if problem := rollups.get("problem"):
        yield Severity.WARNING, f"roll-ups: {problem}"


def _check(connect: Callable[[], Client], since_s: float) -> int:
    """Print one line and return the severity."""
    try:
        found = sorted(findings(connect().get("api/v1/status"), since_s), reverse=True)
    except FlowvisError as error:
        found = [(Severity.UNKNOWN, str(error))]
    except (LookupError, TypeError, AttributeError) as error:  # of another version, or kind
        found = [(Severity.UNKNOWN, f"not the status of an aggregator of this version: {error!r}")]
    worst = found[0][0] if found else Severity.OK
    text = "; ".join(text for _, text in found) or "books balance, nothing lost"
    print(f"{worst.name}: {visible(text)}")
    return worst


def _loss(loss: Mapping[str, Any]) -> str:
    ago = format_duration(round(loss["lastSeconds"]))
    return f"{loss['records']} records lost at {loss['stage']}: {loss['reason']}, last {ago} ago"


def _show(status: Mapping[str, Any]) -> None:
    console = tables.console()
    console.print(tables.line(status["version"]))
    console.print(tables.line(f"up {status['uptimeSeconds']:.0f} s, {status['flows']} live flows"))
    if status.get("uncountedFlows"):
        console.print(
            tables.line(
                f"{status['uncountedFlows']} of them are not counted by their nodes' kernels: "
                "they began before net.netfilter.nf_conntrack_acct was 1; open them anew"
            )
        )
    if status.get("clusterId"):
        console.print(tables.line(f"cluster {status['clusterId']}"))
    _show_sessions(console, status["sessions"], status.get("nodes", ()))
    for destination in status["destinations"]:
        console.print(tables.line(_destination(destination)))
    if rollups := status.get("rollups"):
        for text in _rollups(rollups):
            console.print(tables.line(text))
    if store := status.get("store"):
        for text in _store(store):
            console.print(tables.line(text))
    _show_configuration(console, status.get("configuration", {}))
    if status.get("kubernetes"):
        console.print(tables.line(f"Kubernetes API: {status['kubernetes']}"))
    if status.get("ranges"):
        console.print(tables.line(f"Pod networks: {status['ranges']}"))
    if status.get("replica"):
        console.print(tables.line(f"replica: {status['replica']}"))
    _show_policies(console, status.get("policies", {}))
    _show_memory(console, status.get("memory", {}))
    for loss in status.get("losses", ()):
        console.print(tables.line(_loss(loss)))
    console.print()
    _show_ledger(status["ledger"])


def _destination(destination: Mapping[str, Any]) -> str:
    """Say of a destination how it is, and how far behind."""
    parts = [_problem(destination) or "well"]
    if records := destination.get("records"):
        behind = round(destination["behindSeconds"])
        parts.append(f"{records} records {f'behind, of {behind} s' if behind else 'wait'}")
    if records := destination.get("spooledRecords"):
        size = quantity(destination["spooledBytes"], "B")
        parts.append(f"{records} of them spooled ({size})")
    return f"{destination['name']}: {', '.join(parts)}"


def _problem(destination: Mapping[str, Any]) -> str:
    """Return what is wrong with a destination, without the place where its name has that."""
    _, _, place = destination["name"].partition(" ")
    return str(destination["problem"] or "").removeprefix(f"{place}: ")


def _rollups(rollups: Mapping[str, Any]) -> Iterator[str]:
    """Say how far the roll-ups are, and whether a sample of them is what the records are."""
    minutes, hours = (
        format_duration(rollups[f"{which}BehindSeconds"]) for which in ("minutes", "hours")
    )
    parts = [rollups["problem"] or "well", f"minutes {minutes} behind, hours {hours}"]
    if records := rollups["waitingRecords"]:
        parts.append(f"{records} records to roll up")
    if expired := rollups.get("expiredRecords"):
        parts.append(f"{expired} records expired before they were rolled up")
    if compared := rollups["compared"]:
        span = " to ".join(
            time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(moment // 1000)) for moment in compared
        )
        verdict = "NOT equal" if rollups["differences"] else "equal"
        parts.append(f"sums of {span} {verdict} to the records'")
    yield f"roll-ups: {', '.join(parts)}"
    yield from rollups["differences"]


def _store(store: Mapping[str, Any]) -> Iterator[str]:
    """Say what a store has, what room there is, and what went for it."""
    parts = [store["problem"] or "well"]
    for disk in store["disks"]:
        free, total = (quantity(disk[f"{which}Bytes"], "B") for which in ("free", "total"))
        parts.append(f"{free} of {total} free on disk {disk['name']}")
    if rate := store.get("insertRate"):
        size = quantity(rate["bytesPerSecond"], "B")
        parts.append(f"{rate['recordsPerSecond']:,.0f} records ({size}) a second come in")
    if store["droppedBytes"]:
        dropped = quantity(store["droppedBytes"], "B")
        parts.append(f"{dropped} dropped for room, with {store['droppedRecords']} records")
    if unrolled := store["unrolledRecords"]:
        parts.append(f"{unrolled} of them in no roll-up")
    yield f"store: {', '.join(parts)}"
    for table in store["tables"]:
        span = " to ".join(
            time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(table[f"{which}Ms"] // 1000))
            for which in ("from", "to")
        )
        size = quantity(table["bytes"], "B")
        yield f"  {table['name']}: {table['rows']} rows, {size}, committed {span}"


def _show_sessions(
    console: Console, sessions: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]
) -> None:
    """Show who reports, and the nodes that do not."""
    if sessions:
        layout = Layout(SESSION_COLUMNS, tables.cells(), sessions)
        console.print()
        for line in layout.lines(sessions):
            console.print(line, soft_wrap=True)
    silent = [node for node in nodes if not node["sessions"]]
    if silent:
        names = [(node["name"], node["records"], _ago(node)) for node in silent]
        console.print()
        tables.print_grid(("NODE WITHOUT A SESSION", "RECORDS", "LAST REPORT"), names)
    for node in nodes:
        for text in node.get("missing", ()):
            console.print(tables.line(f"{node['name']}: {text}"))


def _acknowledged(name: str) -> Callable[[Mapping[str, Any]], str]:
    """What its exporter knows to be durable; nothing where it takes no acknowledgements."""
    return lambda one: "" if one.get("acknowledged") is None else str(one[name])


def _ago(reported: Mapping[str, Any]) -> str:
    """Say when the last report was."""
    age_s = reported.get("lastReportSeconds")
    return "never" if age_s is None else f"{format_duration(round(age_s))} ago"


SESSION_COLUMNS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("SESSION", lambda one: str(one["peer"]), least=13),
    Column("NODE", lambda one: str(one.get("node", "")), least=23),
    Column("MESSAGES", lambda one: str(one["messages"]), right=True, rank=3),
    Column("RECORDS", lambda one: str(one["records"]), right=True),
    Column("LOST", lambda one: str(one["lost"]), right=True),
    Column("ERRORS", lambda one: str(one["errors"]), right=True, rank=1),
    Column("ACKNOWLEDGED", _acknowledged("acknowledged"), right=True, rank=2),
    Column("WAITING", _acknowledged("waiting"), right=True),
    Column("SENT AGAIN", _acknowledged("sentAgain"), right=True, rank=4),
    Column("LAST REPORT", _ago, right=True),
)


def _show_policies(console: Console, policies: Mapping[str, Any]) -> None:
    count = policies.get("unenforced", 0)
    if count:
        console.print(
            tables.line(
                f"policies: {count} verdicts of denial refuted by the traffic: are they enforced?"
            )
        )
    for which, parts in policies.get("unrecognized", {}).items():
        console.print(tables.line(f"policies: {which}: not understood: {parts}"))


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
        tables.line(f"memory: {resident} of {limit} MiB ({memory['limitSource']}); of it {shares}")
    )


def _mebibytes(size: int) -> int:
    return (size + (1 << 19)) >> 20


def _show_configuration(console: Console, configuration: Mapping[str, Any]) -> None:
    for problem in configuration.get("problems", ()):
        console.print(tables.line(f"configuration not taken: {problem}"))
    waiting = ", ".join(configuration.get("restartRequired", ()))
    if waiting:
        console.print(tables.line(f"changed, and needs a restart: {waiting}"))


def _show_ledger(ledger: Mapping[str, Any]) -> None:
    """Show the books: a line for each stage."""
    titles = ("STAGE", "RECEIVED", "SENT", "MERGED", "DROPPED", "HELD", "UNACCOUNTED", "REASONS")
    tables.print_grid(titles, [_stage(stage) for stage in ledger["stages"]])


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
