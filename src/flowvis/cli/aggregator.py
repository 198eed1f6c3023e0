"""flow-aggregator: receives, correlates and stores flow records."""

import logging
import sys

from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.destinations.table import KINDS
from flowvis.aggregator.metrics import NAME
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli.daemon import DaemonCommand

DESCRIPTION = """\
Receives flow records of all nodes as IPFIX, joins the two halves of each connection, and writes one
complete record per connection and interval to ClickHouse, and to whatever else is configured:
IPFIX collectors, Kafka, S3, files, Prometheus.
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


def announce(loaded: AggregatorSettings) -> None:
    """Log what follows from the settings."""
    commits = logging.DEBUG if loaded.click_house.debug else logging.NOTSET
    logging.getLogger("flowvis.clickhouse").setLevel(commits)
    if not any(kind.chosen(loaded) for kind in KINDS):
        log.warning("no destination is enabled: records can only be seen with flowctl flows")


COMMAND = DaemonCommand(NAME, DESCRIPTION, EXAMPLES, AggregatorSettings, Aggregator, announce)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
