"""flow-exporter: exports the connections of one node as flow records."""

import logging
import sys

from flowvis.cli.daemon import DaemonCommand
from flowvis.exporter.daemon import NAME, FlowExporter
from flowvis.exporter.settings import ExporterSettings

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


def announce(loaded: ExporterSettings) -> None:
    """Log what follows from the settings."""
    if not loaded.flow_exporter.enable:
        log.warning("flowExporter.enable is false: nothing is exported")
    elif loaded.flow_exporter.protocol_filter == ():
        log.warning("flowExporter.protocolFilter is empty: nothing is exported")


COMMAND = DaemonCommand(NAME, DESCRIPTION, EXAMPLES, ExporterSettings, FlowExporter, announce)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
