"""flowctl: live flows, queries, the books, certificates, passwords and the lab."""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

from flowvis.cli import completing, target
from flowvis.cli.client import Refused
from flowvis.cli.output import said
from flowvis.cli.start import end_by_signals
from flowvis.errors import FlowvisError, SettingsError
from flowvis.runtime.extras import extra
from flowvis.runtime.visible import visible

DESCRIPTION = "Ask flowvis: flows of the past and as they come, who talks to whom, what changed."

EXAMPLES = """\
examples:
  flowctl flows --follow                                  records as they come
  flowctl flows 'src.namespace = shop and verdict = denied' --since 1h
  flowctl top --by src.workload,dst.workload --since 6h   who talks most
  flowctl map --since 1h                                  who talks to whom
  flowctl diff --since 1d                                 what changed since yesterday
  flowctl explain --from shop/cart-0 --to shop/orders-0:8080   allowed or denied, and why
  flowctl --context prod top                              ... of an aggregator in a cluster
  flowctl status --check                                  one line and an exit code, for monitoring
"""

COMMANDS: Mapping[str, str] = {
    "flows": "flows",
    "top": "top",
    "map": "graph",
    "series": "series",
    "diff": "diff",
    "explain": "explain",
    "nodes": "nodes",
    "open": "browse",
    "sql": "sql",
    "fields": "fields",
    "status": "status",
    "certs": "certs",
    "credentials": "credentials",
    "replay": "replay",
    "completion": "completing",
}
"""The modules of this package that the commands are, in the order of the help."""
LAB = "lab"

_COMMAND = "command parser"
"""Of the options: the parser of the command that they are of."""
_AGO = re.compile(r"-\d")
_LONG = re.compile(r"--[a-z][a-z-]*")
INTERRUPTED = 130  # what shells say of a process that SIGINT ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
        end_by_signals()  # nothing here is left half done
    try:
        return said("flowctl", partial(_run, arguments))
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code."""
    try:
        arguments = attached(arguments)
        meant = [LAB] if completing.asks_for(LAB) else []
        parser = _parser([*commands_in(arguments), *meant])
        options, unknown = parser.parse_known_args(arguments)
        if unknown:
            _refuse(getattr(options, _COMMAND, parser), unknown)
        try:
            return int(options.run(options))
        except argparse.ArgumentTypeError as error:  # of what only all arguments together show
            parser.error(str(error))
    except FlowvisError as error:
        for line in [*str(error).split("\n"), *_place(error)]:
            print(f"flowctl: {visible(line)}", file=sys.stderr)
        return 1


def _refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """Say what a command does not know, and what may have been meant."""
    known = [text for action in completing.actions_of(parser) for text in action.option_strings]
    meant = get_close_matches(unknown[0].partition("=")[0], known, n=1, cutoff=0.8)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    parser.error(f"unrecognized arguments: {' '.join(map(visible, unknown))}{hint}")


def attached(arguments: Sequence[str]) -> list[str]:
    """Attach values like -2d to the option before them, as argparse takes them for options."""
    found: list[str] = []
    for argument in arguments:
        if _AGO.match(argument) and found and _LONG.fullmatch(found[-1]):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def _place(error: FlowvisError) -> list[str]:
    """Show where in a filter an error is, and what could stand there."""
    if not isinstance(error, Refused) or error.place is None:
        return []
    from flowvis.cli.layout import excerpt

    cells = shutil.get_terminal_size().columns - len(_SAID) if sys.stderr.isatty() else None
    lines = [f"  {line}" for line in excerpt(error.filter_text, *error.place, cells)]
    return [*lines, error.remedy] if error.remedy else lines


_SAID = "flowctl:   "
"""What is before such a line."""


class _Version(argparse.Action):
    """Prints what this build is; only then are the leaves imported, which the line tells of."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from flowvis.runtime.build import version_text

        print(version_text(parser.prog))
        parser.exit()


def commands_in(arguments: Sequence[str]) -> list[str]:
    """Return the command that is meant; all of them for help, or where none is.

    To import what all of them need takes half a second. Which of the words is the command is found
    as the parser does that runs it: a word before it may be the value of an option.
    """
    finder = _Finder("flowctl", add_help=False)
    finder.add_argument("-h", "--help", action="store_true")
    finder.add_argument("--version", action="store_true")
    target.add_options(finder)
    finder.add_argument("words", nargs=argparse.PARSER)
    try:
        found, _ = finder.parse_known_args(arguments)
    except _NoCommandError:
        return list(COMMANDS)
    name = found.words[0]
    if found.help or completing.WANTED in os.environ or name not in {*COMMANDS, LAB}:
        return list(COMMANDS)
    return [name]


class _NoCommandError(Exception):
    """There is no command, or what is before it is wrong; the parser of all of them says so."""


class _Finder(argparse.ArgumentParser):
    """Says nothing."""

    def error(self, message: str) -> NoReturn:
        raise _NoCommandError(message)


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowctl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="what this build is")
    target.add_options(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    with extra("people", "tables for people"):
        for name in COMMANDS:
            if name in names:
                module = import_module(f"flowvis.cli.{COMMANDS[name]}")
                module.add_arguments(commands, target.connect)
    _add_lab(commands, with_lab=LAB in names)
    for command in commands.choices.values():
        command.set_defaults(**{_COMMAND: command})
    completing.complete(parser)
    return parser


def _add_lab(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", *, with_lab: bool
) -> None:
    """Add the lab's commands; its modules are imported only when they are asked for."""
    if with_lab:
        if find_spec("flowvis.lab") is None:
            raise SettingsError(["the lab is not in this image: it comes with a checkout"])
        import_module("flowvis.lab.command").add_arguments(commands)
    else:
        commands.add_parser(LAB, help="two nodes with Pods on this machine, for tests and demos")


if __name__ == "__main__":
    sys.exit(main())
