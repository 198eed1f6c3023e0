"""The same packets through the kernel's default zone and another one, as on a node with Antrea.

What comes for a node port is translated in the default zone, goes out by `antrea-gw0` and comes in
again at its other end, where all is tracked in Antrea's zone, to the Pod; answers go the same way.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from exporter.test_connections import IDLE, T0, balanced, rows
from exporter.test_default_zone import CHAIN, table
from flowvis.conntrack.sources.source import Conntrack
from flowvis.exporter.tables.connections import ConnectionTable
from flowvis.exporter.tables.scope import ANTREA_ZONES
from flowvis.fields import FlowType
from namespaces import CLONE_NEWNET, call, run
from waiting import PATIENCE_S

CLIENT, NODE, GATEWAY, POD = "198.51.100.9", "192.0.2.1", "10.0.1.1", "10.0.1.10"

LINKS = f"""
link add client type veth peer name eth0 netns {{client}}
link add pod type veth peer name eth0 netns {{pod}}
link add antrea-gw0 address 02:00:00:00:00:01 type veth peer name ovs address 02:00:00:00:00:02
address add {NODE}/32 dev lo
address add {GATEWAY}/24 dev antrea-gw0
link set client up
link set pod up
link set antrea-gw0 up
link set ovs up
route add {CLIENT} dev client
neigh add {POD} lladdr 02:00:00:00:00:02 dev antrea-gw0
neigh add {GATEWAY} lladdr 02:00:00:00:00:01 dev ovs
neigh add {CLIENT} lladdr 02:00:00:00:00:01 dev ovs
route add {POD} dev pod table 100
route add default dev ovs table 101
rule del pref 0
rule add pref 10 iif ovs lookup 100
rule add pref 11 iif pod lookup 101
rule add pref 100 lookup local
"""

RULES = f"""
table ip node {{
    chain zones {{
        type filter hook prerouting priority raw;
        iifname {{ "ovs", "pod" }} ct zone set {ANTREA_ZONES[0]}
    }}
    chain marks {{
        type filter hook forward priority filter;
        iifname {{ "ovs", "pod" }} ct mark set 2
    }}
    chain called {{
        type nat hook prerouting priority dstnat;
        iifname "client" ip daddr {NODE} udp dport 30080 dnat to {POD}:8080
    }}
    chain hidden {{
        type nat hook postrouting priority srcnat;
        iifname "client" oifname "antrea-gw0" masquerade
        oifname "client" ip saddr {POD} snat to {NODE}
    }}
}}
"""

SYSCTLS = ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0")


class Host:
    """A process in a network namespace of its own."""

    def __init__(self) -> None:
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec sleep 600"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def configure(self, address: str, gateway: str) -> None:
        for text in (
            f"address add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {gateway} dev eth0",
            f"route add default via {gateway} dev eth0",
        ):
            run("nsenter", "-t", str(self.process.pid), "-n", "ip", *text.split())

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("setns", there, CLONE_NEWNET)
            yield
        finally:
            call("setns", home, CLONE_NEWNET)
            os.close(home)
            os.close(there)

    def datagram(self, address: str, port: int = 0) -> socket.socket:
        with self.inside():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.settimeout(PATIENCE_S)
            made.bind((address, port))
        return made

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def hosts(namespace: None) -> Iterator[tuple[Host, Host]]:
    """The client and the Pod, on both sides of this namespace, the node."""
    client, pod = Host(), Host()
    try:
        for setting in SYSCTLS:
            run("sysctl", "-qw", f"net.ipv4.{setting}")
        run("nft", RULES)
        pids = {"client": client.process.pid, "pod": pod.process.pid}
        for line in LINKS.format(**pids).strip().splitlines():
            run("ip", *line.split())
        for setting in ("ovs.accept_local=1", "antrea-gw0.accept_local=1", "pod.proxy_arp=1"):
            run("sysctl", "-qw", f"net.ipv4.conf.{setting}")
        client.configure(CLIENT, NODE)
        pod.configure(POD, GATEWAY)
        yield client, pod
    finally:
        client.end()
        pod.end()


def exchange(client: socket.socket, server: socket.socket, to: tuple[str, int]) -> tuple[str, int]:
    """A question and its answer; whom the server saw."""
    client.sendto(b"question", to)
    seen: tuple[str, int]
    question, seen = server.recvfrom(100)
    server.sendto(question, seen)
    assert client.recvfrom(100)[0] == b"question"
    return seen


@pytest.fixture
def kernel(hosts: tuple[Host, Host]) -> Iterator[Conntrack]:
    source = Conntrack((*ANTREA_ZONES, 0))
    source.open()
    source.prepare()
    yield source
    source.close()


def watched(source: Conntrack) -> ConnectionTable:
    connections = table()
    connections.event(source.read_events(), T0)
    connections.poll(source.poll(), T0)
    connections.sweep()
    balanced(connections)
    return connections


@pytest.mark.kernel
def test_a_client_from_outside(hosts: tuple[Host, Host], kernel: Conntrack) -> None:
    client, pod = hosts
    with client.datagram(CLIENT, 50_000) as sender, pod.datagram(POD, 8080) as server:
        seen = exchange(sender, server, (NODE, 30080))
    assert seen[0] == GATEWAY
    batch = watched(kernel).due(T0 + IDLE)
    expected = (CLIENT, 50_000, POD, 8080, *seen, NODE, 30080, FlowType.FROM_EXTERNAL)
    assert rows(batch, *CHAIN) == [expected]
    assert batch.texts("destinationServicePortName") == ["shop/web:udp"]
    assert rows(batch, "packetTotalCount", "reversePacketTotalCount") == [(1, 1)]


@pytest.mark.kernel
def test_a_pod_that_calls_the_outside(hosts: tuple[Host, Host], kernel: Conntrack) -> None:
    client, pod = hosts
    with pod.datagram(POD, 41_000) as sender, client.datagram(CLIENT, 53) as server:
        seen = exchange(sender, server, (CLIENT, 53))
    assert seen[0] == NODE
    expected = (POD, 41_000, CLIENT, 53, *seen, "", 0, FlowType.TO_EXTERNAL)
    assert rows(watched(kernel).due(T0 + IDLE), *CHAIN) == [expected]
