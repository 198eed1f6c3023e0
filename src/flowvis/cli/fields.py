"""flowctl fields: what can be asked: the names of the filter language, and the measures."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowvis.cli import tables
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, add_command, add_output
from flowvis.errors import SettingsError
from flowvis.runtime.visible import visible_json

Entry = Mapping[str, Any]
SIDES = ("src.", "dst.")


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "fields",
        "what can be asked: names of filters and of --by, measures",
        "List the names of the filter language, and what can be measured. A name of ends (src dst) "
        "is of either end alone, and of one as src.NAME or dst.NAME; * is what --by takes.",
        "",
        "verdict                # all about a name: its operators and values",
        "--columns              # also the columns of the store, which are names as well",
        positional="[NAME ...]",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these, with all about them")
    parser.add_argument("--columns", action="store_true", help="the columns of the store as well")
    add_output(parser, "table", "json")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the names."""
    document = client.get("api/v1/fields")
    names, measures = document["names"], document["measures"]
    if options.names:
        wanted = [_alone(name) for name in options.names]
        known = {entry["name"] for entry in (*names, *measures)}
        if missing := [name for name in wanted if name not in known]:
            raise SettingsError([f"no name {', '.join(missing)}: flowctl fields lists them"])
        names = [entry for entry in names if entry["name"] in wanted]
        measures = [entry for entry in measures if entry["name"] in wanted]
    elif not options.columns:
        names = [entry for entry in names if not entry["column"]]
    if options.output == "json":
        print(visible_json({"names": names, "measures": measures}))
        return 0
    console = tables.console()
    if options.names:
        for line in _about(names):
            console.print(tables.line(line))
    else:
        rows = [(e["name"], _sides(e), "*" * e["dimension"], e["kind"], e["help"]) for e in names]
        tables.print_grid(("NAME", "ENDS", "BY", "KIND", "WHAT"), rows)
        console.print()
    if measures:
        counted = [(e["name"], e["unit"], e["help"]) for e in measures]
        tables.print_grid(("MEASURE", "UNIT", "WHAT"), counted)
    return 0


def _alone(name: str) -> str:
    """Return a name without its side."""
    return next((name[len(side) :] for side in SIDES if name.startswith(side)), name)


def _sides(entry: Entry) -> str:
    return "src dst" if entry["sides"] else ""


def _about(entries: Sequence[Entry]) -> Iterator[str]:
    """Go through all that there is to say about names."""
    for entry in entries:
        yield f"{entry['name']}: {entry['help']}"
        if entry["sides"]:
            yield f"  also {' and '.join(side + entry['name'] for side in SIDES)}"
        yield f"  {entry['kind']}, compared by {'  '.join(entry['operators'])}"
        if entry["values"]:
            yield f"  values: {', '.join(entry['values'])}"
        yield "  --by takes it" if entry["dimension"] else "  nothing to group by"
