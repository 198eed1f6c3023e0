"""Open vSwitch with its userspace datapath between two hosts, in namespaces of their own."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from namespaces import CLONE_NEWNET, call, new_namespace, run
from waiting import block_until

ZONES = (65520, 65510)
"""Antrea's, of IPv4 and IPv6."""

FLOWS = """
table=0,priority=10,arp,actions=normal
table=0,priority=10,icmp6,icmp_type=135,actions=normal
table=0,priority=10,icmp6,icmp_type=136,actions=normal
table=0,priority=6,udp,tp_dst=5300,actions=ct(table=1,zone=65520,nat)
table=0,priority=6,udp,tp_src=53,actions=ct(table=1,zone=65520,nat)
table=0,priority=5,ip,actions=ct(table=1,zone=65520)
table=0,priority=5,ipv6,actions=ct(table=1,zone=65510)
table=1,priority=20,udp,tp_dst=5300,ct_state=+trk+new,actions=ct(commit,zone=65520,nat(dst=10.9.0.2:53),table=2)
table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit,zone=65520,exec(load:0x13->NXM_NX_CT_MARK[],load:0x1234->NXM_NX_CT_LABEL[0..31])),normal
table=1,priority=10,ipv6,ct_state=+trk+new,actions=ct(commit,zone=65510),normal
table=1,priority=1,actions=normal
table=2,actions=normal
"""

_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17


@dataclass
class Switch:
    """The daemons, and two hosts behind their ports."""

    directory: Path
    hosts: tuple[int, int]
    """Descriptors of the hosts' network namespaces; 10.9.0.1 and .2, fd09::1 and ::2."""

    @property
    def control(self) -> Path:
        return self.directory / "vswitchd.ctl"

    def dpctl(self, *command: str) -> str:
        return run("ovs-appctl", "-t", str(self.control), *command)

    @contextlib.contextmanager
    def inside(self, host: int) -> Iterator[None]:
        """Be in a host's network namespace: sockets that are opened now are there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("setns", self.hosts[host], CLONE_NEWNET)
            yield
        finally:
            call("setns", home, CLONE_NEWNET)
            os.close(home)

    def socket(self, host: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with self.inside(host):
            return socket.socket(family, kind, protocol)


@contextlib.contextmanager
def switching(directory: Path) -> Iterator[Switch]:
    """Start it in a new namespace, which the calling thread enters until it ends."""
    daemons: list[subprocess.Popen[bytes]] = []
    variables = {name: str(directory) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR")}
    database = f"unix:{directory}/db.sock"

    def daemon(*command: str) -> None:
        with (directory / "log").open("ab") as log:
            environment = os.environ | variables
            daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    with new_namespace():
        hosts = (_host(directory, 1), _host(directory, 2))
        switch = Switch(directory, hosts)
        try:
            schema = "/usr/share/openvswitch/vswitch.ovsschema"
            run("ovsdb-tool", "create", str(directory / "conf.db"), schema)
            daemon(
                "ovsdb-server", str(directory / "conf.db"), f"--remote=p{database}",
                f"--unixctl={directory}/ovsdb.ctl",
            )  # fmt: skip
            block_until((directory / "db.sock").exists)
            daemon("ovs-vswitchd", database, f"--unixctl={switch.control}", "--disable-system")
            # A socket has its name before anybody listens on it.
            vsctl = ("ovs-vsctl", f"--db={database}", "--retry", "--timeout=90")
            run(*vsctl, "--no-wait", "init")
            ports = [word for n in (1, 2) for word in ("--", "add-port", "br0", f"p{n}")]
            bridge = ("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
            run(*vsctl, *bridge, *ports)
            (directory / "flows").write_text(FLOWS)
            management = f"unix:{directory}/br0.mgmt"
            run("ovs-ofctl", "-O", "OpenFlow13", "add-flows", management, f"{directory}/flows")
            yield switch
        finally:
            for each in reversed(daemons):
                each.terminate()
                each.wait()
            for host in hosts:
                os.close(host)


def _host(directory: Path, number: int) -> int:
    """Make a namespace behind a port of the switch; return its descriptor."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        call("unshare", CLONE_NEWNET)
        there = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        call("setns", home, CLONE_NEWNET)
        pid = os.getpid()
        run("ip", "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0",
            "address", f"02:00:00:00:09:0{number}", "netns", f"/proc/{pid}/fd/{there}")  # fmt: skip
        run("ip", "link", "set", f"p{number}", "up")
        call("setns", there, CLONE_NEWNET)
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
        run("ip", "addr", "add", f"fd09::{number}/64", "dev", "eth0", "nodad")
        _checksums_off("eth0")
        call("setns", home, CLONE_NEWNET)
        return there
    finally:
        os.close(home)


def _checksums_off(interface: str) -> None:
    """Have the kernel write checksums: a switch in user space sees what no hardware completes."""
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
