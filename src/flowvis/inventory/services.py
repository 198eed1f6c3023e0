"""Service ports and nodes by address, as they were when the index was built."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from flowvis.addresses import Network
from flowvis.batch import Column
from flowvis.inventory.networks import NONE, Lookup, Networks, address_column, legs
from flowvis.inventory.objects import Node, ServicePort
from flowvis.inventory.topology import Topology
from flowvis.native import pack_keys
from flowvis.strings import Strings


class NodeIndex:
    """Nodes by their addresses, their legs in the Pod network included.

    An address that several have is that of the youngest: the object of a node that is gone may stay
    for a while, and its address be another's meanwhile.
    """

    def __init__(self, nodes: Sequence[Node], pod_networks: Sequence[Network]) -> None:
        self.objects = tuple(sorted(nodes, key=lambda node: -node.created_ms))
        places = [
            (address, handle)
            for handle, node in enumerate(self.objects)
            for address in (*node.addresses, *chain.from_iterable(map(legs, node.pod_networks)))
        ]
        self._addresses = Lookup(address_column(a for a, _ in places), [h for _, h in places])
        of_nodes = [network for node in nodes for network in node.pod_networks]
        self._pod_networks = Networks([*pod_networks, *of_nodes])
        self._topology = Topology(nodes)

    def find(self, addresses: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the handle of the node that each address is of; NONE where it is of none."""
        return self._addresses.find(addresses)

    def topology(
        self, names: Column, strings: Strings
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Return the codes of the zones and regions of nodes by the codes of their names."""
        return self._topology.codes(names, strings)

    def have_pods_at(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which addresses lie in a Pod network and are not a node's own leg in it."""
        return np.asarray(self.in_ranges(addresses) & (self.find(addresses) == NONE))

    def in_ranges(self, addresses: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which addresses lie in a Pod network."""
        return self._pod_networks.contain(addresses)


class ServiceIndex:
    """Service ports by where they are called: their addresses, and node ports at any node.

    A Service has its addresses and its ports once each, however many there are: whoever may make
    one could name thousands of both. An address that several Services have is asked for in each.
    """

    def __init__(self, ports: Sequence[ServicePort], nodes: NodeIndex) -> None:
        """All ports of one Service follow each other, and have one and the same `addresses`."""
        self.objects = tuple(ports)
        self._nodes = nodes
        services: list[tuple[bytes, ...]] = []
        service_of = np.zeros(len(self.objects), dtype=np.uint32)
        for handle, port in enumerate(self.objects):
            if not services or port.addresses is not services[-1]:
                services.append(port.addresses)
            service_of[handle] = len(services) - 1
        self._ports = Lookup(
            _keys(
                service_of,
                np.array([port.port for port in self.objects], dtype=np.uint16),
                np.array([port.protocol for port in self.objects], dtype=np.uint8),
            ),
            range(len(self.objects)),
        )
        having: dict[bytes, list[int]] = {}
        for number, its in enumerate(services):
            for address in dict.fromkeys(its):
                having.setdefault(address, []).append(number)
        self._addresses = Lookup(address_column(having), range(len(having)))
        counts = np.array([len(those) for those in having.values()], dtype=np.int64)
        self._ends = np.cumsum(counts)
        self._firsts = self._ends - counts
        self._having = np.fromiter(chain.from_iterable(having.values()), dtype=np.uint32)
        opened = [(handle, port) for handle, port in enumerate(ports) if port.node_port]
        self._node_ports = Lookup(
            pack_keys(
                np.array([port.node_port for _, port in opened], dtype=np.uint16),
                np.array([port.protocol for _, port in opened], dtype=np.uint8),
            ),
            [handle for handle, _ in opened],
        )

    def find(
        self,
        addresses: NDArray[np.uint8],
        ports: Column,
        protocols: Column,
        of_nodes: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Return the handle of the Service port that each destination calls; NONE where none.

        `of_nodes` says which addresses are nodes' beside those that their objects name.
        """
        handles = self._at_addresses(addresses, ports, protocols)
        rest = np.flatnonzero(handles == NONE)
        at_nodes = self._nodes.find(addresses[rest]) != NONE
        if of_nodes is not None:
            at_nodes |= of_nodes[rest]
        rest = rest[at_nodes]
        if len(rest):
            handles[rest] = self._node_ports.find(pack_keys(ports[rest], protocols[rest]))
        return handles

    def _at_addresses(
        self, addresses: NDArray[np.uint8], ports: Column, protocols: Column
    ) -> NDArray[np.int64]:
        """Return the handle of the first Service port at each address; NONE where none."""
        handles = np.full(len(addresses), NONE, dtype=np.int64)
        places = self._addresses.find(addresses)
        rows = np.flatnonzero(places != NONE)
        at, ends = self._firsts[places[rows]], self._ends[places[rows]]
        while len(rows):
            found = self._ports.find(_keys(self._having[at], ports[rows], protocols[rows]))
            handles[rows] = found
            at = at + 1
            more = (found == NONE) & (at < ends)
            rows, at, ends = rows[more], at[more], ends[more]
        return handles


def _keys(services: Column, ports: Column, protocols: Column) -> NDArray[np.uint8]:
    keys: NDArray[np.uint8] = pack_keys(
        services, ports.astype(np.uint16), protocols.astype(np.uint8)
    )
    return keys
