"""What all commands are made of: a parser with examples, and options that several have."""

import argparse
from collections.abc import Callable
from typing import Any

from flowvis.cli.client import Client

Commands = Any
"""What argparse's `add_subparsers` returns."""

Connect = Callable[[argparse.Namespace], Client]
"""Makes a client of the aggregator that the options name."""

EXIT_CODES = "exit codes: 0 done, 1 an error (one line on stderr says which), 2 wrong usage"


def add_command(
    commands: Commands, name: str, summary: str, description: str, *examples: str
) -> argparse.ArgumentParser:
    """Add a command, whose help has examples: lines of `command  # what it shows`."""
    shown = "\n".join(f"  flowctl {name} {example}".rstrip() for example in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{shown}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_output(parser: argparse.ArgumentParser, *forms: str) -> None:
    """Add -o; the first form is the default."""
    parser.add_argument(
        "-o", "--output", choices=forms, default=forms[0], help=f"default: {forms[0]}"
    )


def count(text: str) -> int:
    """Read a whole number above 0."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:18]) and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on")
    return int(text)
