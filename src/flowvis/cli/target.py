"""Which aggregator a command asks: the options, the environment, and the client that they make."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flowvis.aggregator.api.control import control_path
from flowvis.cli.client import Client, ControlSocket, Server, Way
from flowvis.errors import SettingsError

MAX_TOKEN_BYTES = 64 << 10  # HTTP servers take no longer headers
SERVER, TOKEN, CA = "FLOWVIS_SERVER", "FLOWVIS_TOKEN", "FLOWVIS_CA"  # variables
NAMESPACE = "flow-aggregator"  # where deploy/ puts it
PLUGIN = "kubectl-flowvis"
"""Under this name on the PATH, flowctl is `kubectl flowvis`, and asks the cluster by default."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the main parser."""
    group = parser.add_argument_group(
        "which aggregator",
        "by default the one of this machine; as kubectl-flowvis the current context's",
    )
    group.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="its control socket (its controlSocket); "
        f"default: {control_path(None, os.environ)}",
    )
    group.add_argument(
        "--server", metavar="URL", help=f"its API, as https://HOST:10348; or {SERVER}"
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="PATH",
        help=f"a file with the token that says who asks; or {TOKEN}, the token itself",
    )
    group.add_argument(
        "--ca",
        type=Path,
        metavar="PATH",
        help=f"the CA (PEM) that --server's certificate is of; or {CA}; default: the system's",
    )
    group.add_argument(
        "--context",
        metavar="NAME",
        help="that of the cluster of a context of the kubeconfig; - for the current one",
    )
    group.add_argument("--kubeconfig", type=Path, metavar="PATH", help="default: as kubectl has it")
    group.add_argument(
        "-n",
        "--namespace",
        dest="aggregator_namespace",
        default=NAMESPACE,
        metavar="NAME",
        help=f"where it is in the cluster ({NAMESPACE})",
    )


def connect(options: argparse.Namespace) -> Client:
    """Return a client of the aggregator that the options name."""
    return Client(way(options, os.environ))


def way(options: argparse.Namespace, environment: Mapping[str, str]) -> Way:
    """Return the way to the aggregator that is named; SettingsError where two are."""
    in_cluster = options.context or options.kubeconfig
    named = [
        option
        for option, value in (
            ("--socket", options.socket),
            ("--server", options.server),
            ("--context or --kubeconfig", in_cluster),
        )
        if value
    ]
    if len(named) > 1:
        raise SettingsError([f"{' and '.join(named)}: each names an aggregator: give one"])
    if not named and environment.get(SERVER):
        options.server = environment[SERVER]
    if options.server:
        ca = options.ca or (Path(environment[CA]) if environment.get(CA) else None)
        return Server(options.server, token(options, environment), ca)
    if in_cluster or (not options.socket and Path(sys.argv[0]).name == PLUGIN):
        from flowvis.cli.cluster import Cluster

        return Cluster(
            options.kubeconfig,
            None if options.context == "-" else options.context,
            options.aggregator_namespace,
            token(options, environment),
        )
    return ControlSocket(control_path(options.socket, environment))


def token(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Return the token that is given; "" if none is. SettingsError names a file that has none."""
    path: Path | None = options.token_file
    if path is None:
        return _checked(environment.get(TOKEN, ""), TOKEN)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TOKEN_BYTES + 1).decode(errors="replace")
    except OSError as error:
        raise SettingsError([f"--token-file {path}: {error.strerror}"]) from error
    if not text.strip():
        raise SettingsError([f"--token-file {path}: it is empty"])
    return _checked(text, f"--token-file {path}")


def _checked(text: str, where: str) -> str:
    """Return a token as a header can have it; its text is in no message."""
    found = text.strip()
    if len(found) > MAX_TOKEN_BYTES or not (found.isascii() and " " not in found):
        raise SettingsError([f"{where}: not one token, of characters of ASCII without spaces"])
    if found and not found.isprintable():
        raise SettingsError([f"{where}: more than one line: a token is one word"])
    return found
