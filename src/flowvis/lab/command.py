"""flowctl lab: two nodes with Pods on this machine."""

import argparse
import signal
import sys
from pathlib import Path
from random import randrange
from typing import Any

from flowvis.lab import doors, isolation
from flowvis.lab.cni import CNIS
from flowvis.lab.configuration import PAUSE_S
from flowvis.lab.doors import Doors
from flowvis.lab.faults import FAULTS
from flowvis.lab.options import Options
from flowvis.lab.scenarios import SCENARIOS
from flowvis.lab.shell import shell
from flowvis.runtime.durations import parse_duration

MAX_SEED = 1 << 32

DESCRIPTION = """\
Two nodes with Pods in network namespaces of this machine, with real traffic between them, a
flow-exporter on each node, a flow-aggregator, a ClickHouse and a stand-in API server. Everything
lives in a private world of namespaces that the kernel takes back when the command ends, however it
ends. Needs root, or a kernel that lets users make namespaces.
"""

EXAMPLES = """\
examples:
  flowctl lab demo                          flows as they arrive, a link to the console; it stays
  flowctl lab demo --no-keep                ... or ends by itself, with every byte checked
  flowctl lab run --duration 30s -o json    every byte checked; exit code 0 only if all agree
  flowctl lab run --scenario service --fault restart-aggregator
  flowctl lab run --cni pools --rounds 2
  flowctl lab run --duration 10m --fault kill-any --seed 7
  flowctl lab run --fault flood --fault api-server
  python -m tools.alerts --scale 0.01 > rules.yml
  flowctl lab run --fault store-stops --prometheus rules.yml
"""


def add_arguments(commands: Any) -> None:
    """Add `lab` and its commands to flowctl's; each parsed result has `run(options) -> int`."""
    lab = commands.add_parser(
        "lab",
        help="two nodes with Pods on this machine, for tests and demos",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = lab.add_subparsers(required=True, metavar="COMMAND", title="commands")
    run = kinds.add_parser("run", help="traffic, then the verdict: was every byte recorded?")
    _add_run_arguments(run, duration_s=20.0)
    run.add_argument("-o", "--output", choices=("text", "json"), default="text")
    run.add_argument(
        "--prometheus",
        type=_text,
        metavar="RULES",
        help="have a Prometheus with this file of rules scrape the daemons, say which alerts "
        "fired, and fail where one that the faults should raise was not raised, or another was",
    )
    run.set_defaults(run=_run, command="run", keep=False)
    demo = kinds.add_parser("demo", help="traffic, and its flows as they arrive")
    _add_run_arguments(demo, duration_s=20.0)
    demo.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        default=sys.stdin.isatty() and sys.stdout.isatty(),
        help="stay, with traffic going on, until interrupted (default: at a terminal)",
    )
    demo.set_defaults(run=_run, command="demo", output="text")
    scenarios = kinds.add_parser("scenarios", help="what traffic there is")
    scenarios.set_defaults(run=_list, listed={s.name: s.about for s in SCENARIOS if not s.fault})
    faults = kinds.add_parser("faults", help="what can go wrong meanwhile")
    faults.set_defaults(run=_list, listed={name: fault.about for name, fault in FAULTS.items()})
    entry = kinds.add_parser("shell", help="a shell in the lab that is running")
    entry.add_argument("host", nargs="?", default="", help="a node or Pod; default: the aggregator")
    entry.add_argument("--pid", type=int, help="which lab, where several are running")
    entry.set_defaults(run=lambda options: shell(options.host, options.pid))


def _add_run_arguments(parser: argparse.ArgumentParser, duration_s: float) -> None:
    parser.add_argument(
        "--duration",
        type=_duration,
        default=duration_s,
        help=f"how long the traffic lasts, as 30s or 1m30s (default {duration_s:g}s)",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[scenario.name for scenario in SCENARIOS if not scenario.fault],
        metavar="NAME",
        help="only this one; may be repeated (see `flowctl lab scenarios`)",
    )
    parser.add_argument(
        "--cni",
        choices=CNIS,
        default="ranges",
        help="where Pods' addresses come from: "
        + "; ".join(f"{name}: {one.about}" for name, one in CNIS.items())
        + " (default ranges)",
    )
    parser.add_argument(
        "--rounds",
        type=_count,
        default=1,
        metavar="N",
        help="in all but the first, clients that send datagrams or are denied go on from their "
        f"ports, after {PAUSE_S:g} s in which the kernel forgets them (default 1)",
    )
    parser.add_argument(
        "--events",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether exporters subscribe to conntrack's events beside polling",
    )
    parser.add_argument(
        "--fault",
        action="append",
        choices=FAULTS,
        metavar="NAME",
        help="what goes wrong meanwhile; may be repeated (see `flowctl lab faults`)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="decides when faults at random moments happen (default: another each time)",
    )


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error}") from error


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _list(arguments: argparse.Namespace) -> int:
    width = max(map(len, arguments.listed))
    for name, about in arguments.listed.items():
        sys.stdout.write(f"{name:{width}}  {about}\n")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command != "demo":
        return isolation.enter([_options(arguments, Doors()).to_json()])
    with doors.opened() as found:
        options = _options(arguments, found)
        code = isolation.enter([options.to_json()], inherits=found.descriptors)
    # To be interrupted is how a demo that stays ends.
    return 0 if options.keep and code == 128 + signal.SIGINT else code


def _options(arguments: argparse.Namespace, found: Doors) -> Options:
    return Options(
        command=arguments.command,
        duration_s=arguments.duration,
        scenarios=tuple(arguments.scenario or ()),
        cni=arguments.cni,
        rounds=arguments.rounds,
        events=arguments.events,
        faults=tuple(arguments.fault or ()),
        seed=randrange(MAX_SEED) if arguments.seed is None else arguments.seed,  # noqa: S311
        rules=getattr(arguments, "prometheus", None) or "",
        output=arguments.output,
        keep=arguments.keep,
        doors=found,
    )
