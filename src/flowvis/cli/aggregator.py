"""flow-aggregator: receives, correlates and stores flow records."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.metrics import NAME
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.errors import FlowvisError, SettingsError
from flowvis.runtime import logs, settings
from flowvis.runtime.build import version_text
from flowvis.runtime.process import serve

DEFAULT_CONFIG = Path("/etc/flow-aggregator/flow-aggregator.conf")

DESCRIPTION = """\
Receives flow records of all nodes as IPFIX, joins the two halves of each connection, and writes one
complete record per connection and interval to ClickHouse, to another IPFIX collector, or to both.
"""

EXAMPLES = """\
examples:
  flow-aggregator --config flow-aggregator.conf
  flow-aggregator check --config flow-aggregator.conf      what it would do, or what is wrong

a small configuration:
  clickHouse: {enable: true, databaseURL: "embedded:///var/lib/flowvis"}
  tls: {ca: ca.crt, certificate: flow-aggregator.crt, key: flow-aggregator.key}

`flowctl certs` issues the certificates, `flowctl status` looks into a running aggregator. All
options: docs/configuration.md.
"""

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon, or check its configuration; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        loaded = _load(options.config)
        if options.command == "check":
            Aggregator(loaded)
            print(settings.effective(loaded), end="")
            return 0
        return _run(loaded)
    except FlowvisError as error:
        for line in str(error).splitlines():
            print(f"{NAME}: {line}", file=sys.stderr)
        return 1


def _run(loaded: AggregatorSettings) -> int:
    logs.configure(loaded.log.format, loaded.log.level)
    if loaded.click_house.debug:
        logging.getLogger("flowvis.clickhouse").setLevel(logging.DEBUG)
    log.info("%s", version_text(NAME))
    aggregator = Aggregator(loaded)
    if not (loaded.click_house.enable or loaded.flow_collector.enable):
        log.warning("no destination is enabled: records can only be seen with flowctl flows")
    code = serve(aggregator.components, grace_s=loaded.grace_period)
    return code if aggregator.closing_books() else 1


def _load(path: Path) -> AggregatorSettings:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from error
    try:
        return settings.load(AggregatorSettings, data, os.environ)
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
