"""flowctl certs: the CA and the certificates of mutual TLS."""

import argparse
from pathlib import Path

from flowvis.cli.command import Commands, Connect
from flowvis.transport.certificates import Issued, issue_ca, issue_client, issue_server, load_ca

DESCRIPTION = """\
Issue certificates for one year. In the directory, ca.crt and ca.key are made if they are not there;
each server and client becomes NAME.crt and NAME.key, its first name being the file's.
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
        default=[],
        metavar="NAME[,NAME...]",
        help="issue a server certificate for DNS names and IP addresses, separated by commas",
    )
    parser.add_argument(
        "--client", action="append", default=[], metavar="NAME", help="issue a client certificate"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Issue what is asked for and print the files."""
    directory: Path = options.directory
    ca = _ca(directory)
    for text in options.server:
        names = [name for name in text.split(",") if name]
        if names:
            _report(*issue_server(ca, names).write(directory, _file(names[0])))
    for name in options.client:
        _report(*issue_client(ca, name).write(directory, _file(name)))
    return 0


def _ca(directory: Path) -> Issued:
    if (directory / "ca.key").exists() or (directory / "ca.crt").exists():
        return load_ca(directory)
    ca = issue_ca()
    _report(*ca.write(directory, "ca"))
    return ca


def _file(name: str) -> str:
    """The name as a file's: nothing that leaves the directory or hides."""
    return name.replace("/", "-").replace(":", "-").lstrip(".")


def _report(certificate: Path, key: Path) -> None:
    print(certificate)
    print(key)
