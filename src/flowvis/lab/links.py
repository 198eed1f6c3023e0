"""The relays of a run: on each node's way to the aggregator, and on the aggregator's to its store.

On a node, rules turn the exporter's own connections to a relay in the node's network, which
connects from there: the aggregator sees the address that it always sees.
"""

import socket
from functools import partial

from flowvis.lab import namespaces
from flowvis.lab.configuration import COLLECTOR_PORT
from flowvis.lab.plan import CONTROL_ADDRESSES, NODES
from flowvis.lab.relay import PLAIN, Behaviour, Relay

RELAY_PORT = 14739
RELAYED = 0x4739
"""The mark of the relay's own connections, which are not turned to it again."""

RULES = f"""table inet relay {{
  chain turn {{
    type nat hook output priority -150;
    meta mark != {RELAYED} tcp dport {COLLECTOR_PORT} redirect to :{RELAY_PORT}
  }}
}}
"""

LOSSES = """table inet losses {{
  chain leaving {{
    type filter hook postrouting priority 0;
    tcp dport {port} {chance} drop
  }}
  chain arriving {{
    type filter hook prerouting priority 0;
    tcp sport {port} {chance} drop
  }}
}}
"""
"""Only what the node itself exchanges with the aggregator has this port."""


class Links:
    """The relays to the aggregator, one on each node, and that to the store, if it is a server."""

    def __init__(self, store: tuple[int, int] | None = None) -> None:
        """`store`: the port of the relay to it, and its own."""
        self.nodes: list[Relay] = []
        self.store: Relay | None = None
        self._store_ports = store

    async def open(self) -> None:
        """Turn connections to the relays."""
        host, port = CONTROL_ADDRESSES[0], COLLECTOR_PORT
        for node in NODES:
            connect = partial(connecting, node.name, host, port)
            self.nodes.append(Relay(listening(node.name, RELAY_PORT), connect))
        if self._store_ports is not None:
            own, port = self._store_ports
            self.store = Relay(listening("", own), partial(connecting, "", "127.0.0.1", port))
        for relay in self._relays():
            await relay.start()
        for node in NODES:
            namespaces.nft(node.name, ["-f", "-"], RULES)

    async def close(self) -> None:
        """End all that is relayed."""
        for relay in self._relays():
            await relay.stop()

    def _relays(self) -> list[Relay]:
        return [*self.nodes, *([self.store] if self.store is not None else ())]

    def behave(self, behaviour: Behaviour = PLAIN) -> None:
        """Let the relays to the aggregator treat connections so."""
        for relay in self.nodes:
            relay.behaviour = behaviour

    def cut(self) -> None:
        """Reset the exporters' sessions."""
        for relay in self.nodes:
            relay.cut()


def lose(percent: int) -> None:
    """Let each node lose so many of the packets to and from the aggregator, at random."""
    chance = f"numgen random mod 100 < {percent}" if percent < 100 else ""
    for node in NODES:
        rules = LOSSES.format(port=COLLECTOR_PORT, chance=chance)
        namespaces.nft(node.name, ["-f", "-"], rules)


def lose_nothing() -> None:
    """Let no packet be lost any more."""
    for node in NODES:
        namespaces.nft(node.name, ["delete", "table", "inet", "losses"])


def listening(namespace: str, port: int) -> socket.socket:
    """Return a socket in a namespace to accept connections on loopback with."""
    with namespaces.inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    made.bind(("127.0.0.1", port))
    return made


def connecting(namespace: str, host: str, port: int) -> socket.socket:
    """Return a socket in a namespace that is being connected; no relay takes it."""
    with namespaces.inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, RELAYED)
    made.connect_ex((host, port))
    return made
