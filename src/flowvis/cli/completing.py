"""Shell completion: options and commands by argparse, names and values by asking the aggregator.

argcomplete calls us with what has been typed. An action that has the attribute `of` is completed by
what that says: `filter`, `dimension`, `measure`, or a name of the filter language, whose values are
asked for.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowvis.cli import target
from flowvis.cli.client import Client
from flowvis.cli.command import Commands, Connect
from flowvis.errors import FlowvisError
from flowvis.runtime.extras import extra

WANTED = "_ARGCOMPLETE"  # the variable that argcomplete sets
LINE = "COMP_LINE"  # what has been typed
TIMEOUT_S = 3.0  # nobody waits longer for a list of words
SHELLS = ("bash", "zsh", "fish")
COMMANDS = ["flowctl"]

Completer = Callable[..., Mapping[str, str]]


def add_arguments(commands: Commands, connect: Connect) -> None:  # noqa: ARG001  asks nobody
    """Add the command's parser."""
    parser = commands.add_parser(
        "completion",
        help="shell completion of commands, names and values",
        description="Print what makes a shell complete flowctl's words.",
        epilog='examples:\n  eval "$(flowctl completion bash)"        # in ~/.bashrc\n'
        "  flowctl completion fish > ~/.config/fish/completions/flowctl.fish",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a shell's code."""
    with extra("people", "shell completion"):
        import argcomplete
    shellcode: Any = getattr(argcomplete, "shellcode")  # noqa: B009  not in its __all__
    print(shellcode(COMMANDS, shell=options.shell))
    return 0


def asks_for(word: str) -> bool:
    """Whether a shell asks what may follow on a line that has a word."""
    return WANTED in os.environ and word in os.environ.get(LINE, "").split()


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may follow, and exit; return at once if none does."""
    if WANTED not in os.environ:
        return
    with extra("people", "shell completion"):
        import argcomplete
    for action in actions_of(parser):
        if of := getattr(action, "of", None):
            action.completer = _completer(of)  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Go through the actions of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001  argparse has no other list of them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from actions_of(command)


def _completer(of: str) -> Completer:
    def completer(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Mapping[str, str]:
        try:
            client = Client(target.way(parsed_args, os.environ), TIMEOUT_S)
            if of == "filter":
                return filters(client, " ".join(parsed_args.filter or ()), prefix)
            if of in {"dimension", "measure"}:
                return listed(client, of, prefix)
            return values(client, of, prefix)
        except FlowvisError:
            return {}  # a line of errors in the middle of a prompt helps nobody

    return completer


def filters(client: Client, before: str, word: str) -> Mapping[str, str]:
    """Return what a word of a filter may become, with help; `before` are the words before it."""
    text = f"{before} {word}" if before else word
    start, options = _options(client, text)
    start -= len(text) - len(word)
    if start < 0:
        return {}
    return {f"{word[:start]}{each['text']}": each["help"] for each in options}


def listed(client: Client, of: str, word: str) -> Mapping[str, str]:
    """Return what the last of some names with commas between may become."""
    document = client.get("api/v1/fields")
    if of == "measure":
        known = {each["name"]: each["help"] for each in document["measures"]}
    else:
        known = dict(_dimensions(document["names"]))
    head, comma, last = word.rpartition(",")
    return {f"{head}{comma}{name}": text for name, text in known.items() if name.startswith(last)}


def values(client: Client, name: str, word: str) -> Mapping[str, str]:
    """Return the values that a name has, which begin with a word; those that need no quotes."""
    _, options = _options(client, f"{name} = {word}")
    return {
        each["text"]: each["help"]
        for each in options
        if each["kind"] == "value" and not each["text"].startswith('"')
    }


def _options(client: Client, text: str) -> tuple[int, list[Mapping[str, Any]]]:
    """Return from where on the end of a text may become what; nothing that moves a terminal."""
    answer = client.get("api/v1/complete", {"text": text, "position": str(len(text))})
    return answer["from"], [each for each in answer["options"] if each["text"].isprintable()]


def _dimensions(names: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for each in names:
        if each["dimension"]:
            sides = ("src.", "dst.") if each["sides"] else ("",)
            for side in sides:
                yield f"{side}{each['name']}", each["help"]
