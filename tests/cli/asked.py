"""An aggregator with an embedded store that has connections of known numbers, for what asks it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aggregator.harness import Aggregator, deliver, exported
from flowvis.transport.certificates import issue_server, load_ca

ADMIN, SHOP = "admin-0123456789abcdef", "shop-0123456789abcdef-0"
SERVICE_NAME = "flow-aggregator.flow-aggregator.svc"
REMEMBERED = 40
HOUR_S = 3600


@dataclass
class Asked:
    """The aggregator, and how it is reached."""

    aggregator: Aggregator
    path: Path

    @property
    def socket(self) -> list[str]:
        """The options that name it by its socket."""
        return ["--socket", str(self.path / "control.sock")]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.api_port}"

    @property
    def api_port(self) -> int:
        return int(self.aggregator.control.get("status")["apiPort"])

    @property
    def ca(self) -> Path:
        return self.path / "ca.crt"

    def tell(self, *rows: dict[str, Any]) -> None:
        """Have records written to the store."""
        before = self.aggregator.books()["collector"]["received"]
        deliver(self.aggregator, exported(*rows))
        self.aggregator.settled(before + len(rows))


@contextmanager
def asked(path: Path) -> Iterator[Asked]:
    path.mkdir(exist_ok=True)
    tokens = path / "tokens"
    tokens.write_text(f"{ADMIN} admin\n{SHOP} sam shop\n")
    tokens.chmod(0o600)
    settings = {
        "clickHouse": {
            "enable": True,
            "databaseURL": f"embedded://{path}/store",
            "commitInterval": "1s",
        },
        "apiServer": {
            "tokenFile": str(tokens),
            "apiPort": 0,
            "certificate": str(path / "api.crt"),
            "key": str(path / "api.key"),
        },
        "recordBufferSize": REMEMBERED,
    }
    aggregator = Aggregator(path, settings)
    issue_server(load_ca(path), ["localhost", SERVICE_NAME]).write(path, "api")
    try:
        yield Asked(aggregator.start(), path)
    finally:
        aggregator.end()


def connection(
    number: int, source: str, target: str, octets: int, *, ago_s: int = 5, denied: bool = False,
    now_s: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Return a connection within a node that ended so long ago; `number` is its port."""
    end_s = (now_s or int(time.time())) - ago_s
    packets = octets // 1000 + 1
    (source_space, source_pod), (target_space, target_pod) = (
        name.split("/") for name in (source, target)
    )
    found = {
        "flowStartSeconds": end_s - 1,
        "flowStartMilliseconds": end_s * 1000 - 1000,
        "flowEndSeconds": end_s,
        "flowEndMilliseconds": end_s * 1000,
        "flowEndReason": 3,
        "sourceIP": f"10.1.{number >> 8}.{number & 255}",
        "destinationIP": "10.2.0.1",
        "sourceTransportPort": number,
        "destinationTransportPort": 80,
        "protocolIdentifier": 6,
        "flowType": 1,
        "sourcePodNamespace": source_space,
        "sourcePodName": source_pod,
        "sourceNodeName": "n1",
        "destinationPodNamespace": target_space,
        "destinationPodName": target_pod,
        "destinationNodeName": "n1",
        "octetTotalCount": octets,
        "octetDeltaCount": octets,
        "packetTotalCount": packets,
        "packetDeltaCount": packets,
        "reverseOctetTotalCount": 0 if denied else 10,
        "reverseOctetDeltaCount": 0 if denied else 10,
        "reversePacketTotalCount": 0 if denied else 1,
        "reversePacketDeltaCount": 0 if denied else 1,
    }
    if denied:
        found |= {
            "ingressNetworkPolicyRuleAction": 2,
            "ingressNetworkPolicyName": "strict",
            "ingressNetworkPolicyNamespace": "shop",
        }
    return found


CONNECTIONS = (
    ("shop/cart-0", "shop/orders-0", 4_000_000, 5, False),
    ("shop/cart-0", "shop/orders-0", 1_000_000, 6, False),
    ("shop/frontend-1", "shop/cart-0", 2_000_000, 7, False),
    ("batch/report-1", "shop/orders-0", 60, 8, True),
    ("batch/report-1", "shop/orders-0", 60, 9, True),
    ("shop/cart-0", "shop/orders-0", 500_000, 5 + HOUR_S, False),
    ("shop/frontend-1", "shop/cart-0", 1_990_000, 6 + HOUR_S, False),
    ("shop/cart-0", "batch/report-1", 300_000, 7 + HOUR_S, False),
)
"""Source, destination, bytes, seconds ago, denied: of the last minutes and the hour before."""


def known() -> list[dict[str, Any]]:
    """Return the connections as records.

    Their order is always the same, and those of the last minutes are of one interval of ten.
    """
    now_s = int(time.time())
    latest, earliest = (
        pick(ago_s for *_, ago_s, _ in CONNECTIONS if ago_s < HOUR_S) for pick in (min, max)
    )
    while (now_s - latest) // 600 != (now_s - earliest) // 600:
        now_s -= 1
    return [
        connection(1000 + n, source, target, octets, ago_s=ago_s, denied=denied, now_s=now_s)
        for n, (source, target, octets, ago_s, denied) in enumerate(CONNECTIONS)
    ]
