"""The daemons' configuration files in the lab; the API server tells the rest.

Intervals are short, so that a run of seconds has several of each.
"""

from pathlib import Path
from typing import Any

import yaml

from flowvis.lab.isolation import RUN
from flowvis.lab.plan import CONTROL_ADDRESSES, NODES, Node
from flowvis.lab.rules import DENIED_GROUP

ROOM = RUN / "flowvis"
"""Every file of the lab."""

MOUNTED = ROOM / "mounted"
"""The exporters' certificates, as the kubelet mounts them."""

CONTROL_SOCKET = ROOM / "flow-aggregator.sock"
STORE = f"embedded://{ROOM}/store"

AGGREGATOR = "flow-aggregator"
SERVER_NAME = "flow-aggregator.flow-aggregator.svc"

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


def write(*, events: bool) -> None:
    """Write all files of all daemons."""
    ROOM.mkdir()
    _write(AGGREGATOR, _aggregator(), ROOM / "own")
    for node in NODES:
        _write(exporter_name(node), _exporter(node, events=events), MOUNTED)


def _write(name: str, settings: dict[str, Any], certificates: Path) -> None:
    pair = {"certificate": "tls.crt", "key": "tls.key"}
    common = {
        "tls": {
            **settings.pop("tls", {}),
            **{key: str(certificates / file) for key, file in {"ca": "ca.crt", **pair}.items()},
        },
        "log": {"format": "json"},
        "status": {"address": "127.0.0.1", "port": STATUS_PORT},
    }
    (ROOM / f"{name}.yaml").write_text(yaml.safe_dump({**settings, **common}, sort_keys=False))


def _aggregator() -> dict[str, Any]:
    return {
        "activeFlowRecordTimeout": f"{ACTIVE_RECORD_S:g}s",
        "recordContents": {"podLabels": True},
        "clusterID": "lab",
        "clickHouse": {"enable": True, "databaseURL": STORE, "commitInterval": "1s"},
        "certificates": {"issue": True, "checkInterval": "1s"},
        "listen": {"maxSessionAge": "3s"},
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
        "denied": {"nflogGroups": [DENIED_GROUP]},
        "tls": {"serverName": SERVER_NAME},
    }
