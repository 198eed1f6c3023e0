"""The daemons' configuration files, certificates and inventory in the lab.

Intervals are short, so that a run of seconds has several of each.
"""

from datetime import datetime
from typing import Any

import yaml

from flowvis.lab import inventory
from flowvis.lab.isolation import RUN
from flowvis.lab.plan import CONTROL_ADDRESSES, NODES, Node
from flowvis.transport.certificates import issue_ca, issue_client, issue_server

ROOM = RUN / "flowvis"
"""Every file of the lab."""

CONTROL_SOCKET = ROOM / "flow-aggregator.sock"
STORE = f"embedded://{ROOM}/store"

AGGREGATOR = "flow-aggregator"

STATUS_PORT = 9739
"""The same for all: each daemon has a network namespace of its own."""

ACTIVE_RECORD_S = 3.0
"""How often the aggregator writes a flow that goes on."""

TRACKING = {
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": 1,
    "net.netfilter.nf_conntrack_tcp_timeout_close": 1,
    "net.netfilter.nf_conntrack_udp_timeout": 2,
}
"""With these a node forgets ended connections at once, so that only events can tell of them."""


def exporter_name(node: Node) -> str:
    """Return the name of the exporter on a node."""
    return f"flow-exporter-{node.name}"


def write(now: datetime, *, events: bool) -> None:
    """Write all files of all daemons."""
    ROOM.mkdir()
    (ROOM / "inventory.yaml").write_text(inventory.document(now))
    ca = issue_ca("flowvis lab")
    ca.write(ROOM, "ca")
    issue_server(ca, CONTROL_ADDRESSES).write(ROOM, AGGREGATOR)
    _write(AGGREGATOR, _aggregator())
    for node in NODES:
        name = exporter_name(node)
        issue_client(ca, node.name).write(ROOM, name)
        _write(name, _exporter(node, events=events))


def _write(name: str, settings: dict[str, Any]) -> None:
    files = {
        "inventory": {"files": [str(ROOM / "inventory.yaml")]},
        "tls": {
            "ca": str(ROOM / "ca.crt"),
            "certificate": str(ROOM / f"{name}.crt"),
            "key": str(ROOM / f"{name}.key"),
        },
        "log": {"format": "json"},
        "status": {"address": "127.0.0.1", "port": STATUS_PORT},
    }
    (ROOM / f"{name}.yaml").write_text(yaml.safe_dump({**settings, **files}, sort_keys=False))


def _aggregator() -> dict[str, Any]:
    return {
        "activeFlowRecordTimeout": f"{ACTIVE_RECORD_S:g}s",
        "recordContents": {"podLabels": True},
        "clusterID": "lab",
        "clickHouse": {"enable": True, "databaseURL": STORE, "commitInterval": "1s"},
        "controlSocket": str(CONTROL_SOCKET),
    }


def _exporter(node: Node, *, events: bool) -> dict[str, Any]:
    return {
        "flowExporter": {
            "enable": True,
            "flowCollectorAddr": f"{CONTROL_ADDRESSES[0]}:4739:tls",
            "flowPollInterval": "1s",
            "activeFlowExportTimeout": "2s",
            "idleFlowExportTimeout": "4s",
        },
        "nodeName": node.name,
        "conntrack": {"events": events},
    }
