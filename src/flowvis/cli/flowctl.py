"""flowctl: live flows, queries, the books, certificates, passwords and the lab."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from flowvis.aggregator.api.control import control_path
from flowvis.cli.client import ControlClient
from flowvis.errors import FlowvisError, SettingsError
from flowvis.runtime.build import version_text
from flowvis.runtime.extras import extra
from flowvis.runtime.visible import visible

DESCRIPTION = "Look into flowvis: live flows, queries, the books; issue certificates; run the lab."

EXAMPLES = """\
examples:
  flowctl flows --follow                        records as they come
  flowctl flows --namespace shop -o json        the latest of one namespace, a JSON object a line
  flowctl explain --from shop/cart-0 --to shop/orders-0:8080    allowed or denied, and why
  flowctl sql "SELECT sourcePodName, sum(octetDeltaCount) FROM flows GROUP BY 1"
  flowctl nodes                                 what comes from each node, and what is missing
  flowctl status                                what runs, and whether the books balance
  flowctl status --check                        one line and an exit code, for monitoring
  flowctl certs --directory certs --server flow-aggregator.example --client node-1
  flowctl lab demo                              two nodes with Pods on this machine
"""

INTERRUPTED = 130  # what shells say of a process that SIGINT ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    if arguments is None:
        arguments = sys.argv[1:]
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing here is left half done: no traceback
    try:
        options = _parser(with_lab="lab" in arguments[:3]).parse_args(arguments)
        return int(options.run(options))
    except FlowvisError as error:
        for line in str(error).split("\n"):
            print(f"flowctl: {visible(line)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(*, with_lab: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowctl",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_text("flowctl"))
    parser.add_argument(
        "--socket",
        type=Path,
        default=None,
        help="the aggregator's control socket (its controlSocket); "
        f"default: {control_path(None, os.environ)}",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    with extra("people", "tables for people"):
        from flowvis.cli import certs, credentials, explain, flows, nodes, sql, status
    for command in (flows, explain, nodes, sql, status, certs, credentials):
        command.add_arguments(commands, connect)
    _add_lab(commands, with_lab=with_lab)
    return parser


def connect(options: argparse.Namespace) -> ControlClient:
    """Return a client of the aggregator that the options name."""
    return ControlClient(control_path(options.socket, os.environ))


def _add_lab(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", *, with_lab: bool
) -> None:
    """Add the lab's commands; its modules are imported only when they are asked for."""
    if with_lab:
        if find_spec("flowvis.lab") is None:
            raise SettingsError(["the lab is not in this image: it comes with a checkout"])
        import_module("flowvis.lab.command").add_arguments(commands)
    else:
        commands.add_parser("lab", help="two nodes with Pods on this machine, for tests and demos")


if __name__ == "__main__":
    sys.exit(main())
