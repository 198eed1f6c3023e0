"""flowctl certs: the CA and the certificates of mutual TLS."""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from flowvis.cli.command import Commands, Connect
from flowvis.errors import SettingsError
from flowvis.transport.certificates import (
    VALIDITY,
    Issued,
    issue_ca,
    issue_client,
    issue_server,
    load_ca,
)

CA = "ca"  # the name of its files
CA_VALIDITY = 10 * VALIDITY  # who renews what it signed does not replace it
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*")

DESCRIPTION = """\
Issue certificates for one year. In the directory, ca.crt and ca.key are made if they are not there,
for ten years; each server and client becomes NAME.crt and NAME.key, its first name being the
file's; what is there of that name is replaced, but never the CA.
"""

EXAMPLES = """\
examples:
  flowctl certs --directory certs --server flow-aggregator,10.0.0.5 --client node-1 --client node-2
  flowctl certs --directory certs --client node-3          later, from the same CA

Then give the aggregator    tls: {ca: certs/ca.crt, certificate: certs/flow-aggregator.crt, ...}
and each exporter           tls: {ca: certs/ca.crt, certificate: certs/node-1.crt, ...}
ca.key stays where you issue.
"""


def add_arguments(commands: Commands, _: Connect) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "certs",
        help="issue certificates for mutual TLS",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--directory", type=Path, required=True, help="where the files are")
    parser.add_argument(
        "--server",
        action="append",
        type=_names,
        default=[],
        metavar="NAME[,NAME...]",
        help="issue a server certificate for DNS names and IP addresses, separated by commas",
    )
    parser.add_argument(
        "--client",
        action="append",
        type=_client,
        default=[],
        metavar="NAME",
        help="issue a client certificate",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Issue what is asked for and print the files."""
    directory: Path = options.directory
    servers: list[list[str]] = options.server
    clients: list[str] = options.client
    _apart([*(names[0] for names in servers), *clients])
    was_there = _has_ca(directory)
    ca = _ca(directory)
    _mind_the_end(ca, directory)
    for names in servers:
        _report(*issue_server(ca, names).write(directory, _file(names[0])))
    for name in clients:
        _report(*issue_client(ca, name).write(directory, _file(name)))
    if was_there and not (servers or clients):
        asked = "no certificate was asked for (--server, --client)"
        print(f"flowctl: {directory} has a CA; {asked}", file=sys.stderr)
    return 0


def _names(text: str) -> list[str]:
    """Read the names of a server; ArgumentTypeError says which nobody can call it by."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r}: no name")
    for name in names:
        if not (_HOST.fullmatch(name) or _is_address(name)):
            raise argparse.ArgumentTypeError(f"{name!r}: no DNS name (in ASCII), and no address")
    return names


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _client(text: str) -> str:
    """Read a client's name; ArgumentTypeError says what is none."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r}: no name")
    return text


def _apart(names: Sequence[str]) -> None:
    """SettingsError of names whose files are those of another, or the CA's."""
    known = {CA: "the CA"}
    for name in names:
        file = _file(name)
        if not file:
            raise SettingsError([f"{name!r}: no name of a file"])
        if file in known:
            raise SettingsError(
                [f"{name!r}: {file}.crt and {file}.key would be those of {known[file]}"]
            )
        known[file] = repr(name)


def _has_ca(directory: Path) -> bool:
    return (directory / "ca.key").exists() or (directory / "ca.crt").exists()


def _ca(directory: Path) -> Issued:
    if _has_ca(directory):
        return load_ca(directory)
    ca = issue_ca(validity=CA_VALIDITY)
    _report(*ca.write(directory, CA))
    return ca


def _mind_the_end(ca: Issued, directory: Path) -> None:
    """Say that what is issued lasts for less than a year, as its CA does; SettingsError if over."""
    end = ca.certificate.not_valid_after_utc
    left = end - datetime.now(UTC)
    way = "make another in another directory; a file of both is tls.ca until all have new ones"
    if left <= timedelta(0):
        raise SettingsError([f"{directory}/ca.crt ended at {end:%Y-%m-%d %H:%M}Z: {way}"])
    if left < VALIDITY:
        text = f"{directory}/ca.crt ends at {end:%Y-%m-%d %H:%M}Z, and so does this: {way}"
        print(f"flowctl: {text}", file=sys.stderr)


def _file(name: str) -> str:
    """The name as a file's: nothing that leaves the directory or hides."""
    return name.replace("/", "-").replace(":", "-").lstrip(".")


def _report(certificate: Path, key: Path) -> None:
    print(certificate)
    print(key)
