"""The daemons' configuration files in the lab; the API server tells the rest.

Intervals are short, so that a run of seconds has several of each.
"""

from pathlib import Path
from typing import Any

import yaml

from flowvis.aggregator.certificates.authority import Names
from flowvis.lab.isolation import RUN
from flowvis.lab.plan import NODE_2, NODES, LabNode
from flowvis.lab.rules import DENIED_GROUP

ROOM = RUN / "flowvis"
"""Every file of the lab."""

MOUNTED = ROOM / "mounted"
"""The exporters' certificates, as the kubelet mounts them; node-2's asks the API instead."""

CONTROL_SOCKET = ROOM / "flow-aggregator.sock"
STORE = f"embedded://{ROOM}/store"

API_PORT = 10348
"""Of the aggregator's API on loopback, without TLS."""

AGGREGATOR = "flow-aggregator"

NAMES = Names()
"""The objects of the certificates."""

STATUS_PORT = 9739
"""The same for all: each daemon has a network namespace of its own."""

ACTIVE_RECORD_S = 3.0
"""How often the aggregator writes a flow that goes on."""

TRACKING = {
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": 1,
    "net.netfilter.nf_conntrack_tcp_timeout_close": 1,
    "net.netfilter.nf_conntrack_udp_timeout": 2,
}
"""With these a node forgets ended connections at once, so that only events can report them."""


PAUSE_S = 6.0
"""Between rounds: longer than all of these, shorter than denied connections are known."""


def exporter_name(node: LabNode) -> str:
    """Return the name of the exporter on a node."""
    return f"flow-exporter-{node.name}"


def write(*, events: bool, token: str = "") -> None:
    """Write all files of all daemons; whoever has the token may use the aggregator's API."""
    ROOM.mkdir()
    tokens = _tokens()
    tokens.touch(mode=0o600)
    tokens.write_text(f"{token} demo\n" if token else "")
    _write(AGGREGATOR, {**_aggregator(), "tls": _files(ROOM / "own")})
    for node in NODES:
        tls = _objects() if node == NODE_2 else _files(MOUNTED)
        _write(exporter_name(node), {**_exporter(node, events=events), "tls": tls})


def _write(name: str, settings: dict[str, Any]) -> None:
    common = {
        "log": {"format": "json"},
        "status": {"address": "127.0.0.1", "port": STATUS_PORT},
    }
    (ROOM / f"{name}.yaml").write_text(yaml.safe_dump({**settings, **common}, sort_keys=False))


def _files(folder: Path) -> dict[str, str]:
    files = {"ca": "ca.crt", "certificate": "tls.crt", "key": "tls.key"}
    return {key: str(folder / name) for key, name in files.items()}


def _objects() -> dict[str, str]:
    return {
        "caConfigMap": f"{NAMES.namespace}/{NAMES.ca_config_map}",
        "clientSecret": f"{NAMES.namespace}/{NAMES.client_secret}",
    }


def _tokens() -> Path:
    return ROOM / "tokens"


def _aggregator() -> dict[str, Any]:
    return {
        "activeFlowRecordTimeout": f"{ACTIVE_RECORD_S:g}s",
        "recordContents": {"podLabels": True},
        "clickHouse": {"enable": True, "databaseURL": STORE, "commitInterval": "1s"},
        "certificates": {"issue": True, "checkInterval": "1s"},
        "listen": {"maxSessionAge": "3s"},
        "controlSocket": str(CONTROL_SOCKET),
        "apiServer": {
            "address": "127.0.0.1",
            "apiPort": API_PORT,
            "tls": False,
            "tokenFile": str(_tokens()),
        },
    }


def _exporter(node: LabNode, *, events: bool) -> dict[str, Any]:
    return {
        "flowExporter": {
            "enable": True,
            "flowCollectorAddr": f"{NAMES.namespace}/{AGGREGATOR}:4739:tls",
            "flowPollInterval": "1s",
            "activeFlowExportTimeout": "2s",
            "idleFlowExportTimeout": "4s",
        },
        "nodeName": node.name,
        "conntrack": {"events": events},
        "denied": {"nflogGroups": [DENIED_GROUP]},
    }
