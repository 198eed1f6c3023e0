"""flowctl explain: why a connection is, or would be, allowed or denied."""

import argparse
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from rich.text import Text

from flowvis.cli import tables
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect, paragraph
from flowvis.cli.question import DEFAULT_SINCE, WHEN, moment
from flowvis.cli.target import add_options_again
from flowvis.errors import SettingsError
from flowvis.runtime.visible import visible, visible_json

WIDTH = 80
PATH = "api/v1/explain"
COLORS = {"allowed": "green", "denied": "red", "unknown": "yellow", "differs": "yellow"}
MATCHES = {True: "matches", False: "no", None: "not known"}
STAGES = {"tiers": "tier {}", "standard": "NetworkPolicies", "baseline": "baseline, tier {}"}
PROTOCOL = "tcp"
DENIED = 3
UNKNOWN = 4
EXITS = {"allowed": 0, "denied": DENIED, "differs": DENIED, "unknown": UNKNOWN}

EXAMPLES = """\
examples:
  flowctl explain --from shop/cart-0 --to shop/orders-0:8080
  flowctl explain --from shop/cart-0 --to shop/orders:http    each Pod of a Service
  flowctl explain --from 203.0.113.7 --to shop/web-0:443 --at 10m     10 minutes ago
  flowctl explain 'pod = shop/cart-0 and verdict = dropped'   the newest such record
"""


def add_arguments(commands: Commands, connect: Connect) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "explain",
        help="why policies allow or deny a connection",
        description=paragraph(
            "Show the policies that select each end of a connection, their rules in order of "
            "evaluation, which matched, which did not and why, and which decided. Either of a "
            "connection that may never have been (--from, --to), now or at a time, or of the "
            "newest record that a filter chooses."
        ),
        epilog=EXAMPLES
        + f"\nexits with 0 if it is allowed, {DENIED} if it is denied (of a Service, for any of "
        f"its\nPods), {UNKNOWN} if that is not known",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options_again(parser)
    filtered = parser.add_argument(
        "filter",
        nargs="*",
        metavar="FLOW",
        help="a filter (docs/filters.md): the newest such record",
    )
    filtered.of = "filter"  # what completes it: `completing`
    parser.add_argument(
        "--from",
        dest="source",
        metavar="END",
        help="who connects: namespace/name of a Pod, or an address",
    )
    parser.add_argument(
        "--to",
        dest="destination",
        metavar="END:PORT",
        help="who is called: namespace/name of a Pod or a Service, or an address",
    )
    parser.add_argument("--protocol", help=f"{PROTOCOL} (default), udp, sctp, icmp, ...")
    parser.add_argument(
        "--at", metavar="WHEN", default="", help="as of then, in the forms of --since (now)"
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        default="",
        help=f"FLOW: records from when: {WHEN} ({DEFAULT_SINCE})",
    )
    parser.add_argument("-a", "--all", action="store_true", help="also rules that do not match")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.set_defaults(run=lambda options: run(options, connect(options)))


def run(options: argparse.Namespace, client: Client) -> int:
    """Print the explanation; return what `EXITS` has for its verdict."""
    answer = client.get(PATH, _query(options))
    if options.output == "json":
        print(visible_json(answer, indent=2))
    else:
        console = tables.console()
        for part in text(answer, whole=options.all):
            console.print(part)
    return EXITS[answer["verdict"]]


def _query(options: argparse.Namespace) -> dict[str, str]:
    if options.filter:
        if options.source or options.destination or options.at or options.protocol:
            raise SettingsError(
                ["FLOW is a record: --from, --to, --at and --protocol are for what is none"]
            )
        query = {"filter": " ".join(options.filter), "from": moment(options.since, "--since")}
    elif not options.source or not options.destination:
        raise SettingsError(["name a connection: FLOW, or --from and --to"])
    elif options.since:
        raise SettingsError(["--since is for FLOW: as of when is --at"])
    else:
        query = {
            "source": options.source,
            "destination": options.destination,
            "protocol": options.protocol or PROTOCOL,
            "at": moment(options.at, "--at"),
        }
    return {name: value for name, value in query.items() if value}


def text(answer: Mapping[str, Any], *, whole: bool) -> Iterator[Text]:
    """Go through the parts of an explanation, as the console prints them.

    Rules that do not match are left out unless it is to be whole, or nothing but they explains it.
    """
    when = "now" if answer["now"] else f"at {tables.moment(answer['at'])}"
    if answer["service"]:
        yield _line(f"Service {answer['service']}: ", answer["verdict"], f" {when}")
    for note in answer["notes"]:
        yield _plain(f"note: {note}")
    for number, connection in enumerate(answer["connections"]):
        if number or answer["service"] or answer["notes"]:
            yield Text("")
        source, destination = (connection[side]["text"] for side in ("source", "destination"))
        port = f" {connection['port']}" if connection["port"] else ""
        called = f"{source} -> {destination} {connection['protocol']}{port}: "
        # Of a time that nobody knows, what follows is as of another one.
        verdict = connection["verdict"] if answer["known"] else "unknown"
        yield _line(called, verdict, f" {when}")
        for name, end in (("egress", source), ("ingress", destination)):
            yield from _way(connection[name], end, whole=whole)
    if answer["more"]:
        yield _plain(f"{answer['more']} more Pods of the Service are not shown")


def _way(way: Mapping[str, Any], end: str, *, whole: bool) -> Iterator[Text]:
    yield Text("")
    yield _plain(f"{way['direction']} at {end}: {way['text']}")
    reported = way["reported"]
    if reported and (reported["action"] or reported["agrees"] is False):
        differs = " differs" if reported["agrees"] is False else ""
        yield _plain(f"the record{differs}: {reported['text']}", 2)
    shown = whole or way["denies"] or way["conclusion"] in {"unknown", "no-rule"}
    stage = ""
    for number, step in enumerate(way["steps"], 1):
        apart = step["matches"] and not step["isolation"]
        if not (shown or step["decides"] or apart):
            continue
        heading = STAGES[step["stage"]].format(step["tier"])
        if heading != stage:
            stage = heading
            yield _plain(stage, 2)
        yield from _step(number, step)
    if way["omitted"]:
        yield _plain(f"... and {way['omitted']} more rules", 2)
    if whole:
        for other in way["others"]:
            yield _plain(f"{_policy(other['policy'])} does not select it: {other['why']}", 2)
        if way["othersOmitted"]:
            yield _plain(f"... and {way['othersOmitted']} more policies do not select it", 2)


def _step(number: int, step: Mapping[str, Any]) -> Iterator[Text]:
    rule = "default isolation" if step["isolation"] else step["rule"] or "all of it"
    style = {True: "bold", False: "", None: "yellow"}[step["matches"]] if step["reached"] else "dim"
    yield _plain(f"{number:>3}. {_policy(step['policy'])} {rule}: {step['action']}", 2, style)
    ending = ", decides" if step["decides"] else "" if step["reached"] else " (not reached)"
    said = MATCHES[step["matches"]]
    choices = _missed(step)
    if len(choices) > 1:
        yield _plain(f"{said}, none of these{ending}", 7, style)
        for choice in choices:
            yield _plain(f"- {choice['what']}: {choice['why'] or 'matches'}", 7, style)
        omitted = step["peersOmitted"] if choices is step["peers"] else step["portsOmitted"]
        if omitted:
            yield _plain(f"- and {omitted} more", 7, style)
    else:
        yield _plain(f"{said}: {step['why']}{ending}" if step["why"] else said + ending, 7, style)


def _missed(step: Mapping[str, Any]) -> list[Any]:
    """Return the peers, else the ports, of which a rule that does not match has none that does."""
    if step["matches"] is False:
        for choices in (step["peers"], step["ports"]):
            if choices and all(choice["matches"] is False for choice in choices):
                found: list[Any] = choices
                return found
    return []


def _policy(policy: Mapping[str, str]) -> str:
    name = "/".join(part for part in (policy["namespace"], policy["name"]) if part)
    return f"{policy['kind']} {name}"


def _plain(text: str, indent: int = 0, style: str = "") -> Text:
    """Return a text that keeps to its indentation; a name is never broken."""
    lines = wrap(
        visible(text),
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return Text("\n".join(lines), style)


def _line(before: str, verdict: str, after: str) -> Text:
    return Text.assemble(
        (visible(before), "bold"), (verdict.upper(), f"bold {COLORS[verdict]}"), visible(after)
    )
