"""Runs inside a private world: the lab's traffic without daemons. Prints, as JSON lines, what each
connection's witness and each node's conntrack counted."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

from conntrack_list import PAIR, conntrack
from flowvis.lab import isolation, network, traffic
from flowvis.lab.namespaces import inside, set_sysctls
from flowvis.lab.plan import NODES
from flowvis.lab.rules import Tuple, read_witness
from flowvis.lab.scenarios import choose

LOST = re.compile("Discards|Drop|Errors|Errs|RetransSegs|Prune|NoRoutes")
TOLD = {"net.netfilter.nf_conntrack_acct": 1, "net.netfilter.nf_conntrack_log_invalid": 255}


def gone(host: str) -> dict[str, int]:
    """What the kernel of a host says that it has dropped, or not taken for a part of a connection.

    Without the ones that are zero: queues of the whole machine, links, IP and conntrack.
    """
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    found = {"softnet dropped": sum(int(line.split()[1], 16) for line in lines)}
    for command in (["ip", "-s", "-j", "link"], ["conntrack", "-S"], ["nstat", "-asz", "-j"]):
        with inside(host):
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        match command[0]:
            case "ip":
                for link in json.loads(said):
                    for way, counts in link["stats64"].items():
                        found[f"{link['ifname']} {way}"] = counts["dropped"] + counts["errors"]
            case "conntrack":
                for name, value in PAIR.findall(said):
                    if name not in ("cpu", "found", "clash_resolve", "search_restart"):
                        found[f"conntrack {name}"] = found.get(f"conntrack {name}", 0) + int(value)
            case _:
                counts = json.loads(said)["kernel"]
                found |= {name: counts[name] for name in counts if LOST.search(name)}
    return {name: value for name, value in found.items() if value}


async def have_traffic(duration_s: float) -> None:
    async with traffic.servers():
        await traffic.run(choose([]), duration_s)
        await asyncio.sleep(1.0)  # the last FIN


def main() -> None:
    isolation.settle()
    network.build()
    for node in NODES:
        set_sysctls(node.name, TOLD)
    asyncio.run(have_traffic(float(sys.argv[1])))
    tables = {node.name: conntrack(node.name) for node in NODES}
    for scenario in choose([]):
        witness = read_witness(scenario.client.host)
        server, server_port = scenario.server
        for port in scenario.client_ports:
            key = Tuple(scenario.protocol, scenario.client_address, port, server, server_port)
            tuple_ = tuple(map(str, key))
            seen = {node: table[tuple_] for node, table in tables.items() if tuple_ in table}
            counts: dict[str, object] = {"witness": witness[key], "conntrack": seen}
            if any(one[0] != witness[key].packets for one in seen.values()):
                hosts = (scenario.client.host, *(node.name for node in NODES))
                counts["gone"] = {host: gone(host) for host in hosts}
            line = {"scenario": scenario.name, **counts}
            sys.stdout.write(json.dumps(line) + "\n")


main()
