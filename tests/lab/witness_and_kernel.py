"""Runs inside a private world: the lab's traffic without daemons. Prints, as JSON lines, what each
connection's witness and each node's conntrack counted."""

import asyncio
import json
import sys

from conntrack_list import conntrack
from flowvis.lab import isolation, network, traffic
from flowvis.lab.namespaces import set_sysctls
from flowvis.lab.plan import NODES
from flowvis.lab.rules import Tuple, read_witness
from flowvis.lab.scenarios import choose


async def have_traffic(duration_s: float) -> None:
    async with traffic.servers():
        await traffic.run(choose([]), duration_s)
        await asyncio.sleep(1.0)  # the last FIN


def main() -> None:
    isolation.settle()
    network.build()
    for node in NODES:
        set_sysctls(node.name, {"net.netfilter.nf_conntrack_acct": 1})
    asyncio.run(have_traffic(float(sys.argv[1])))
    tables = {node.name: conntrack(node.name) for node in NODES}
    for scenario in choose([]):
        witness = read_witness(scenario.client.host)
        server, server_port = scenario.server
        for port in scenario.client_ports:
            key = Tuple(scenario.protocol, scenario.client_address, port, server, server_port)
            tuple_ = tuple(map(str, key))
            seen = {node: table[tuple_] for node, table in tables.items() if tuple_ in table}
            line = {"scenario": scenario.name, "witness": witness[key], "conntrack": seen}
            sys.stdout.write(json.dumps(line) + "\n")


main()
