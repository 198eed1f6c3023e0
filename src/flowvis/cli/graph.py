"""flowctl map: who talks to whom, as a tree or a matrix."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from flowvis.cli import completeness, tables
from flowvis.cli.amounts import amount
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command, add_output, count
from flowvis.cli.layout import Column, Layout, shortened
from flowvis.cli.question import add_question, asked
from flowvis.cli.rows import write_table
from flowvis.errors import SettingsError
from flowvis.runtime.visible import visible, visible_json

BY = "workload"
LIMIT = 50
OTHERS = "others"
DENIED = "red"
CELL = 9  # of a matrix: 999.9 MB and a space
NAME = 24  # cells that a matrix' names may take


@dataclass(frozen=True)
class Edge:
    """What passes from one node to another."""

    source: str
    target: str
    numbers: Mapping[str, float]

    @property
    def octets(self) -> float:
        """Bytes, both ways."""
        return self.numbers["bothOctets"]


class Graph:
    """An answer of the API's graph: nodes by id, and edges, largest first."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.names = {node["id"]: _name(node) for node in document["nodes"]} | {OTHERS: OTHERS}
        self.edges = [_edge(edge) for edge in document["edges"]]
        others = document.get("others") or {"edges": (), "hidden": 0}
        self.others = [_edge(edge) for edge in others["edges"]]
        self.hidden = int(others["hidden"])
        """How many edges there are beside those that are shown."""

    def sources(self) -> list[tuple[str, list[Edge]]]:
        """Return the nodes that edges begin at, each with its own: largest first, others last."""
        found: dict[str, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.source, []).append(edge)
        for edge in self.others:
            found.setdefault(edge.source, []).append(edge)

        def order(entry: tuple[str, list[Edge]]) -> tuple[bool, float, str]:
            return entry[0] == OTHERS, -sum(edge.octets for edge in entry[1]), entry[0]

        return sorted(found.items(), key=order)


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "map",
        "who talks to whom",
        "Show the connections between workloads, namespaces or anything else that ends have.",
        "",
        "--by namespace -o matrix --since 1d",
        "'pod = shop/cart-*' --by pod",
        "'verdict = denied'                  # who is kept from whom",
    )
    add_question(parser)
    add_ends(parser, LIMIT)
    add_output(parser, "tree", "matrix", "json", "csv")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def add_ends(parser: argparse.ArgumentParser, limit: int) -> None:
    """Add what ends are grouped by, and how many edges there are at most."""
    parser.add_argument(
        "--by",
        default=BY,
        metavar="NAME",
        help=f"namespace, workload, pod, node, ip, ...; both ends' ({BY})",
    )
    parser.add_argument("--limit", type=count, default=limit, help=f"edges at most ({limit})")


def ends(options: argparse.Namespace) -> dict[str, str]:
    """Return the parameters of `add_ends`; SettingsError where a name is of one end."""
    names = [name.strip() for name in options.by.split(",")]
    for name in names:
        side, dot, other = name.partition(".")
        if dot and side in {"src", "dst"}:
            raise SettingsError([f"--by {name!r}: here names are of both ends: --by {other}"])
    return {
        "source": ",".join(f"src.{name}" for name in names),
        "target": ",".join(f"dst.{name}" for name in names),
        "limit": str(options.limit),
    }


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the map."""
    document = client.get("api/v1/graph", asked(options) | ends(options))
    completeness.report(document)
    if options.output == "json":
        print(visible_json(document))
        return 0
    graph = Graph(document)
    if options.output == "csv":
        _write(graph)
        return 0
    console = tables.console()
    lines = tree if options.output == "tree" else matrix
    for line in lines(graph, tables.cells()):
        console.print(line, soft_wrap=True)
    return 0


@dataclass(frozen=True)
class _Branch:
    label: str
    numbers: Mapping[str, float]
    root: bool = False


_TREE: tuple[Column[_Branch], ...] = (
    Column("", lambda branch: branch.label, least=24, style=lambda b: "bold" if b.root else ""),
    Column("BYTES", lambda b: amount(b.numbers["bothOctets"], "octets"), right=True),
    Column("CONNECTIONS", lambda b: amount(b.numbers["connections"], ""), right=True),
    Column(
        "DENIED",
        lambda b: amount(b.numbers["denied"] or None, ""),
        right=True,
        style=lambda _: DENIED,
    ),
    Column("UNANSWERED", lambda b: amount(b.numbers["unanswered"] or None, ""), right=True, rank=1),
)


def tree(graph: Graph, cells: int | None) -> Iterator[Text]:
    """Go through the lines of a tree: each source with its targets."""
    branches: list[_Branch] = []
    for source, edges in graph.sources():
        totals = {name: sum(edge.numbers[name] for edge in edges) for name in edges[0].numbers}
        branches.append(_Branch(graph.names[source], totals, root=True))
        for at, edge in enumerate(edges):
            corner = "└" if at == len(edges) - 1 else "├"
            branches.append(_Branch(f" {corner} {graph.names[edge.target]}", edge.numbers))
    layout = Layout(_TREE, cells, branches)
    yield from layout.lines(branches)
    if graph.hidden:
        yield Text(f"{graph.hidden} smaller edges are in {OTHERS}: see --limit", "dim")


def matrix(graph: Graph, cells: int | None) -> Iterator[Text]:
    """Go through the lines of a matrix of bytes: sources down, targets across, as many as fit."""
    sums: dict[str, float] = {}
    octets: dict[tuple[str, str], float] = {}
    for edge in (*graph.edges, *graph.others):
        sums[edge.target] = sums.get(edge.target, 0) + edge.octets
        key = edge.source, edge.target
        octets[key] = octets.get(key, 0) + edge.octets
    targets = sorted(sums, key=lambda node: (node == OTHERS, -sums[node], node))
    room = len(targets) if cells is None else max((cells - NAME) // (CELL + 1) - 1, 1)
    shown = targets if len(targets) <= room + 1 else targets[:room]
    rest = targets[len(shown) :]
    columns: list[Column[str]] = [
        Column("", lambda node: graph.names[node], least=NAME - 2),
        *(_across(graph, octets, node, cells) for node in shown),
    ]
    if rest:
        columns.append(
            Column(
                f"+{len(rest)} MORE",
                lambda node: _cell(sum(octets.get((node, target), 0) for target in rest)),
                right=True,
            )
        )
    sources = [source for source, _ in graph.sources()]
    layout = Layout(columns, cells, sources, gap=" ")
    yield from layout.lines(sources)


def _across(
    graph: Graph, octets: Mapping[tuple[str, str], float], target: str, cells: int | None
) -> Column[str]:
    title = visible(graph.names[target])
    return Column(
        title if cells is None else shortened(title, CELL),
        lambda node: _cell(octets.get((node, target), 0)),
        right=True,
    )


def _cell(octets: float) -> str:
    return amount(octets, "octets") if octets else "."


def _write(graph: Graph) -> None:
    edges = [*graph.edges, *graph.others]
    numbers: Sequence[str] = list(edges[0].numbers) if edges else []
    write_table(
        "csv",
        ["source", "target", *numbers],
        (
            [graph.names[e.source], graph.names[e.target], *(e.numbers[n] for n in numbers)]
            for e in edges
        ),
    )


def _edge(edge: Mapping[str, Any]) -> Edge:
    numbers = {name: value for name, value in edge.items() if name not in {"source", "target"}}
    return Edge(edge["source"], edge["target"], numbers)


def _name(node: Mapping[str, Any]) -> str:
    """Return what people call a node: its names, and what it is where these do not say it."""
    name = "/".join(filter(None, map(str, node["names"])))
    if not name:
        return str(node["kind"])
    return f"{name} ({node['kind']})" if node["kind"] in {"external", "node"} else name
