"""What all commands are made of: a parser with examples, and options that several have."""

import argparse
from collections.abc import Callable
from textwrap import fill
from typing import Any

from flowvis.cli.client import Client
from flowvis.cli.target import add_options_again

Commands = Any
"""What argparse's `add_subparsers` returns."""

Connect = Callable[[argparse.Namespace], Client]
"""Makes a client of the aggregator that the options name."""

ENDING = """\
which aggregator: --socket, --server, --context and their like (flowctl --help)
exit codes: 0 done, 1 an error (stderr says which), 2 wrong usage, 130 interrupted"""


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    description: str,
    *examples: str,
    positional: str = "[FILTER]",
) -> argparse.ArgumentParser:
    """Add a command that asks an aggregator; its help has examples: arguments, `# what they do`.

    `positional`: what its usage has before options.
    """
    shown = "\n".join(f"  flowctl {name} {example}".rstrip() for example in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        usage=f"flowctl {name} {positional} [options]".replace("  ", " "),
        description=paragraph(description),
        epilog=f"examples:\n{shown}\n\n{ENDING}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options_again(parser)
    return parser


def paragraph(text: str) -> str:
    """Wrap a description: parsers whose help keeps the lines of examples wrap none."""
    return fill(text, 78)


def add_output(parser: argparse.ArgumentParser, *forms: str) -> None:
    """Add -o; the first form is the default."""
    parser.add_argument(
        "-o", "--output", choices=forms, default=forms[0], help=f"default: {forms[0]}"
    )


def count(text: str) -> int:
    """Read a whole number above 0."""
    if not (text.isascii() and text.isdecimal() and int(text[:18]) > 0 and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on")
    return int(text)
