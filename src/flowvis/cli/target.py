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
_OPTIONS = {
    "--socket": (
        "PATH",
        f"its control socket (its controlSocket); default: {control_path(None, os.environ)}",
    ),
    "--server": ("URL", f"its API, as https://HOST:10348; or {SERVER}"),
    "--token-file": (
        "PATH", f"a file with the token that says who asks; or {TOKEN}, the token itself",
    ),
    "--ca": (
        "PATH", f"the CA (PEM) that --server's certificate is of; or {CA}; default: the system's",
    ),
    "--context": (
        "NAME", "that of the cluster of a context of the kubeconfig; - for the current one",
    ),
    "--kubeconfig": ("PATH", "default: as kubectl has it"),
}  # fmt: skip
PLUGIN = "kubectl-flowvis"
"""Under this name on the PATH, flowctl is `kubectl flowvis`, and asks the cluster by default."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the main parser."""
    group = parser.add_argument_group(
        "which aggregator",
        "by default the one of this machine; as kubectl-flowvis that of the current context",
    )
    for flag, (metavar, text) in _OPTIONS.items():
        group.add_argument(flag, metavar=metavar, help=text)
    group.add_argument(
        "-n",
        "--namespace",
        dest="aggregator_namespace",
        metavar="NAME",
        help=f"where it is in the cluster ({NAMESPACE}); after the command: a condition on flows",
    )


def add_options_again(parser: argparse.ArgumentParser) -> None:
    """Let them stand after the command as well, but for -n, which there is a filter's."""
    for flag, (metavar, _) in _OPTIONS.items():
        parser.add_argument(
            flag, metavar=metavar, default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def connect(options: argparse.Namespace) -> Client:
    """Return a client of the aggregator that the options name."""
    return Client(way(options, os.environ))


def way(options: argparse.Namespace, environment: Mapping[str, str]) -> Way:
    """Return the way to the aggregator that is named.

    SettingsError where two are, or what is given beside says nothing on this way.
    """
    in_cluster = options.context or options.kubeconfig
    as_plugin = Path(sys.argv[0]).name == PLUGIN
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
        _refuse(options, "--server", "-n")
        return Server(
            options.server, token(options, environment), _path(options.ca or environment.get(CA))
        )
    if in_cluster or (as_plugin and not options.socket):
        from flowvis.cli.cluster import Cluster

        _refuse(options, "an aggregator in a cluster", "--ca")
        return Cluster(
            _path(options.kubeconfig),
            None if options.context == "-" else options.context,
            options.aggregator_namespace or NAMESPACE,
            token(options, environment),
        )
    _refuse(options, "a control socket", "-n", "--ca", "--token-file")
    return ControlSocket(control_path(_path(options.socket), environment))


_MEANT = {
    "-n": ("aggregator_namespace", "for --context: after the command it is a condition on flows"),
    "--ca": ("ca", "for --server"),
    "--token-file": ("token_file", "for --server and --context"),
}


def _refuse(options: argparse.Namespace, way: str, *flags: str) -> None:
    """SettingsError of an option that would change nothing: whoever gives it thinks it does."""
    for flag in flags:
        name, meant = _MEANT[flag]
        if getattr(options, name) is not None:
            raise SettingsError([f"{flag} says nothing to {way}: it is {meant}"])


def token(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    """Return the token that is given; "" if none is. SettingsError names a file that has none."""
    path = _path(options.token_file)
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


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _checked(text: str, where: str) -> str:
    """Return a token as a header can have it; its text is in no message."""
    found = text.strip()
    if len(found) > MAX_TOKEN_BYTES or not (found.isascii() and " " not in found):
        raise SettingsError([f"{where}: not one token, of characters of ASCII without spaces"])
    if found and not found.isprintable():
        raise SettingsError([f"{where}: more than one line: a token is one word"])
    return found
