"""The daemons' configuration files in the lab; the API server tells the rest.

Intervals are short, so that a run of seconds has several of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
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

COLLECTOR_PORT = 4739

CONTROL_SOCKET = ROOM / "flow-aggregator.sock"
EMBEDDED = f"embedded://{ROOM}/store"
SERVER_PORT, SERVER_RELAY_PORT = 9000, 19000
"""Of a ClickHouse server, and of the relay to it, where a fault wants one."""

SERVER = f"tcp://127.0.0.1:{SERVER_PORT}"
RELAYED_SERVER = f"tcp://127.0.0.1:{SERVER_RELAY_PORT}"

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


@dataclass(frozen=True)
class Asked:
    """What a run wants otherwise than most."""

    events: bool = True
    """Whether the exporters subscribe to conntrack's events."""
    token: str = ""
    """Whoever has it may use the aggregator's API."""
    short_sessions: bool = True
    """Whether exporters are sent away every few seconds, to prove that it costs nothing.

    Each time they wait longer before they come again: a run survives it, who looks on sees it."""
    store: str = EMBEDDED
    aggregator: Sequence[Mapping[str, Any]] = ()
    """Parts of its file that take the place of others."""
    exporter: Sequence[Mapping[str, Any]] = ()


def write(asked: Asked) -> None:
    """Write all files of all daemons."""
    ROOM.mkdir()
    tokens = _tokens()
    tokens.touch(mode=0o600)
    tokens.write_text(f"{asked.token} demo\n" if asked.token else "")
    aggregator = {**_aggregator(asked.store), "tls": _files(ROOM / "own")}
    if asked.short_sessions:
        aggregator["listen"] = {"maxSessionAge": "3s"}
    _write(AGGREGATOR, reduce(_with, asked.aggregator, aggregator))
    for node in NODES:
        tls = _objects() if node == NODE_2 else _files(MOUNTED)
        exporter = {**_exporter(node, events=asked.events), "tls": tls}
        _write(exporter_name(node), reduce(_with, asked.exporter, exporter))


def _with(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which those of `more` take the place of theirs, section by section."""
    merged = dict(settings)
    for key, value in more.items():
        before = merged.get(key)
        merged[key] = _with(before, value) if isinstance(before, dict) else value
    return merged


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


def _aggregator(store: str) -> dict[str, Any]:
    return {
        "activeFlowRecordTimeout": f"{ACTIVE_RECORD_S:g}s",
        "recordContents": {"podLabels": True},
        "clickHouse": {"enable": True, "databaseURL": store, "commitInterval": "1s"},
        "flowMetrics": {"enable": True},
        "certificates": {"issue": True, "checkInterval": "1s"},
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
            "flowCollectorAddr": f"{NAMES.namespace}/{AGGREGATOR}:{COLLECTOR_PORT}:tls",
            "flowPollInterval": "1s",
            "activeFlowExportTimeout": "2s",
            "idleFlowExportTimeout": "4s",
        },
        "nodeName": node.name,
        "conntrack": {"events": events},
        "denied": {"nflogGroups": [DENIED_GROUP]},
    }
