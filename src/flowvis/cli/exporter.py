"""flow-exporter: exports the connections of one node as flow records."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flowvis.errors import FlowvisError, SettingsError
from flowvis.exporter.daemon import NAME, FlowExporter
from flowvis.exporter.settings import ExporterSettings
from flowvis.runtime import logs, settings
from flowvis.runtime.build import version_text
from flowvis.runtime.process import serve

DEFAULT_CONFIG = Path("/etc/flow-exporter/flow-exporter.conf")

DESCRIPTION = """\
Reads the connections of this node's kernel (conntrack), adds what is known of its Pods and of
Services, and sends them as IPFIX flow records to a flow-aggregator or any other IPFIX collector.
Needs root, or CAP_NET_ADMIN and a writable /proc/sys/net/netfilter.
"""

EXAMPLES = """\
examples:
  flow-exporter --config flow-exporter.conf
  flow-exporter check --config flow-exporter.conf      what it would do, or what is wrong

a small configuration, to watch this host's own connections:
  flowExporter: {flowCollectorAddr: "collector.example:4739:tls"}
  tls: {ca: ca.crt, certificate: client.crt, key: client.key}

on a Kubernetes node, in addition:
  nodeName: node-1
  inventory: {files: [cluster.yaml]}    of kubectl get pods,services,nodes -A -o yaml

`flowctl certs` issues the certificates. All options: docs/configuration.md.
"""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon, or check its configuration; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        loaded = _load(options.config)
        if options.command == "check":
            FlowExporter(loaded)
            print(settings.effective(loaded), end="")
            return 0
        return _run(loaded)
    except FlowvisError as error:
        for line in str(error).splitlines():
            print(f"{NAME}: {line}", file=sys.stderr)
        return 1


def _run(loaded: ExporterSettings) -> int:
    logs.configure(loaded.log.format, loaded.log.level)
    log.info("%s", version_text(NAME))
    if not loaded.flow_exporter.enable:
        log.warning("flowExporter.enable is false: nothing is exported")
    elif loaded.flow_exporter.protocol_filter == ():
        log.warning("flowExporter.protocolFilter is empty: nothing is exported")
    daemon = FlowExporter(loaded)
    code = serve(daemon.components, grace_s=loaded.grace_period)
    return code if daemon.closing_books() else 1


def _load(path: Path) -> ExporterSettings:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from error
    try:
        return settings.load(ExporterSettings, data, os.environ)
    except SettingsError as error:
        raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_text(NAME))
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "check"),
        default="run",
        help="run (the default), or check the configuration and print the effective one",
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help=f"YAML (default: {DEFAULT_CONFIG})"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
