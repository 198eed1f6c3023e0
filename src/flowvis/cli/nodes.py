"""flowctl nodes: what comes from each node, what is missing of it, and how its clock goes."""

import argparse
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from flowvis.cli import tables
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, paragraph
from flowvis.cli.layout import Column, Layout
from flowvis.cli.target import add_options_again
from flowvis.errors import FlowvisError
from flowvis.runtime.durations import format_duration
from flowvis.runtime.visible import visible_json

PATH = "api/v1/nodes"
FILLING = ("WORKLOAD", "KIND", "END", "ENTRIES", "UNANSWERED", "SHARE")


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "nodes",
        help="what comes from each node, and what is missing of it",
        description=paragraph(
            "Show the nodes of the cluster and of exporters: when something came last, records a "
            "second, how many came and how many never did (by their sequence numbers), how many "
            "their exporters keep until these are stored (where they take acknowledgements), and "
            "how far the node's clock is ahead of the aggregator's, up to a second too little. Of "
            "one node also whose connections fill its conntrack table: those of the workload that "
            "opened them (END is source), else of the one that was called from elsewhere "
            "(destination). Exits with 0 whatever it finds: flowctl status --check is for scripts."
        ),
        epilog="examples:\n  flowctl nodes\n  flowctl nodes node-1\n  flowctl nodes -o json\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options_again(parser)
    parser.add_argument("node", nargs="?", help="only this one, with what fills its conntrack")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the nodes."""
    answer = client.get(PATH)
    if options.node is not None:
        answer["nodes"] = [node for node in answer["nodes"] if node["name"] == options.node]
        if not answer["nodes"]:
            raise FlowvisError(f"there is no node {options.node}: see flowctl nodes")
    if options.output == "json":
        print(visible_json(answer, indent=2))
        return 0
    console = tables.console()
    nodes = answer["nodes"]
    if not nodes:
        console.print("no node is known, and nothing came from any")
        return 0
    layout = Layout(COLUMNS, tables.cells(), nodes)
    for line in layout.lines(nodes):
        console.print(line, soft_wrap=True)
    for node in nodes:
        for problem in node["problems"]:
            console.print(tables.line(f"{node['name']}: {problem}"))
    if options.node is not None:
        _print_filling(console, nodes[0])
    return 0


def _print_filling(console: Console, node: Mapping[str, Any]) -> None:
    """Print whose connections a node's kernel tracks, the most first."""
    occupants = node.get("occupants")
    if occupants is None:
        console.print(tables.line("its exporter does not say what fills its conntrack"))
        return
    console.print()
    if not occupants:
        console.print(tables.line("its exporter found nothing in its conntrack yet"))
        return
    whole = sum(each["entries"] for each in occupants) or 1
    rows = [
        (
            "/".join(filter(None, (each["namespace"], each["workload"]))),
            each["kind"],
            each["end"],
            str(each["entries"]),
            str(each["unanswered"]),
            f"{100 * each['entries'] / whole:.0f} %",
        )
        for each in occupants
    ]
    tables.print_grid(FILLING, rows, right=FILLING[3:])


def _last(node: Mapping[str, Any]) -> str:
    last_s = node["lastHeardSeconds"]
    return "never" if last_s is None else f"{format_duration(round(last_s))} ago"


def _clock(node: Mapping[str, Any]) -> str:
    ahead_s = node["clockSkewSeconds"]
    return "" if ahead_s is None else f"{round(ahead_s, 1) or 0.0:+.1f} s"  # 0 has no sign


def _conntrack(node: Mapping[str, Any]) -> str:
    found = node["conntrack"]
    if found is None:
        return ""
    return f"{found['entries']} of {found['max']}" if found["max"] else str(found["entries"])


COLUMNS: tuple[Column[Mapping[str, Any]], ...] = (
    Column("NODE", lambda node: str(node["name"]), least=24),
    Column("LAST", _last, right=True),
    Column("RECORDS/S", lambda node: f"{node['recordsPerSecond']:.1f}", right=True, rank=2),
    Column("RECEIVED", lambda node: str(node["received"]), right=True),
    Column("LOST", lambda node: str(node["lost"]), right=True),
    Column(
        "WAITING",
        lambda node: "" if node.get("acknowledged") is None else str(node["waiting"]),
        right=True,
    ),
    Column("CLOCK", _clock, right=True, rank=1),
    Column("CONNTRACK", _conntrack, right=True),
)
