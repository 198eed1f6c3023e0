import asyncio
import ipaddress
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowvis.aggregator.api.listeners import MAX_LOCAL
from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.errors import SystemRefused
from flowvis.runtime.http import ANSWERING, WAITING
from flowvis.runtime.listeners import SPARE_DESCRIPTORS, listen, raise_descriptor_limit
from flowvis.runtime.settings import load
from flowvis.transport.datagram_server import OWN, DatagramServer
from flowvis.transport.receiving import open_datagram_sockets
from flowvis.transport.server import Server

SCRIPT = """
import logging, resource
from flowvis.runtime.listeners import raise_descriptor_limit
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_NOFILE, (300, {hard}))
print(raise_descriptor_limit({sessions}, {guests}))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_any_address_takes_both_families() -> None:
    (listener,) = listen("::", 0)
    with listener:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listener.getsockname()[1])).close()


def test_without_ipv6_it_takes_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    (listener,) = listen("::", 0)
    with listener:
        assert listener.family is socket.AF_INET
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()


def test_a_name_with_two_addresses_has_one_port() -> None:
    listeners = listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


def test_a_star_is_all_addresses() -> None:
    (listener,) = listen("*", 0)
    with listener:
        assert listener.getsockname()[0] in {"::", "0.0.0.0"}


NAMED = """
import socket, sys
from flowvis.runtime.listeners import listen
from flowvis.transport.receiving import open_datagram_sockets
for place in sys.argv[1:]:
    listeners = listen(place, 0)
    print(*(listener.getsockname()[0] for listener in listeners))
    datagrams = open_datagram_sockets(place, 0, 65536)
    print(*(each.sock.getsockname()[0] for each in datagrams))
"""


def test_names_of_addresses_that_are_missing_or_there_twice(tmp_path: Path) -> None:
    """As where IPv6 is off, and /etc/hosts has it nevertheless."""
    hosts = "127.0.0.1 twice\n127.0.0.1 twice\n127.0.0.1 part\n2001:db8::1 part\n"
    (tmp_path / "hosts").write_text(hosts)
    inside = f'mount --bind {tmp_path}/hosts /etc/hosts && ip link set lo up && exec "$@"'
    command = ["unshare", "--mount", "--net", "sh", "-c", inside, "sh", sys.executable, "-c", NAMED]
    done = subprocess.run([*command, "twice", "part"], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip("no namespaces here")
    assert done.stdout.split() == ["127.0.0.1"] * 4, done.stderr


@pytest.mark.parametrize("open_them", [listen, partial(open_datagram_sockets, buffer_bytes=65536)])
@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("192.0.2.1", "Cannot assign requested address; is it an address of this machine?"),
        ("a..b", "listen address 'a..b': no name or address"),
        ("n" * 64, "no name or address"),
    ],
)
def test_what_is_no_address_of_ours_is_said(
    open_them: Callable[[str, int], list[Any]], host: str, problem: str
) -> None:
    with pytest.raises(SystemRefused, match=re.escape(problem)):
        open_them(host, 0)


@pytest.mark.parametrize("open_them", [listen, partial(open_datagram_sockets, buffer_bytes=65536)])
def test_a_port_that_is_taken_is_said(open_them: Callable[[str, int], list[Any]]) -> None:
    (first,) = open_them("127.0.0.1", 0)
    one = first if isinstance(first, socket.socket) else first.sock
    with one, pytest.raises(SystemRefused, match="does another program listen there"):
        open_them("127.0.0.1", one.getsockname()[1])


def test_an_address_of_one_link() -> None:
    """Bound with its scope, without which it is none."""
    found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    links = [(one[0], one[5]) for one in found if one[3] == "20"]
    if not links:
        pytest.skip("no link has an address of its own here")
    (number, device) = links[0]
    host = f"{ipaddress.IPv6Address(int(number, 16))}%{device}"
    datagrams = open_datagram_sockets(host, 0, 65536)
    for one in (*listen(host, 0), *(each.sock for each in datagrams)):
        with one:
            assert one.getsockname()[3] == socket.if_nametoindex(device)


@pytest.mark.parametrize(
    ("hard", "soft", "room"),
    [(4000, 2024, 1000), (1900, 1900, 950), (500, 500, 250)],
    ids=["enough", "less", "little"],
)
def test_descriptors_are_raised_as_far_as_allowed(hard: int, soft: int, room: int) -> None:
    done = raised(hard, sessions=1000, guests=256)
    assert list(map(int, done.stdout.split())) == [room, soft]
    assert (f"room for {room} sessions only" in done.stderr) == (room < 1000)


@pytest.mark.parametrize(("hard", "soft"), [(9000, 3868), (3500, 3500)], ids=["enough", "less"])
def test_there_are_descriptors_for_many_readers(hard: int, soft: int) -> None:
    done = raised(hard, sessions=100, guests=3000)
    assert list(map(int, done.stdout.split())) == [100, soft]
    said = "room for fewer connections than are allowed: raise the limit of open files to 3868"
    assert (said in done.stderr) == (hard == 3500)


def raised(hard: int, *, sessions: int, guests: int) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(hard=hard, sessions=sessions, guests=guests)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_an_aggregator_has_descriptors_for_the_connections_of_its_api(protocol: str) -> None:
    text = f"""
aggregatorTransportProtocol: {protocol}
listen: {{address: 127.0.0.1, port: 0, maxSessions: 50}}
apiServer: {{maxConnections: 1500}}
"""
    aggregator = Aggregator(load(AggregatorSettings, text.encode(), {}))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        asyncio.run(opened(aggregator.server))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert soft == SPARE_DESCRIPTORS + 1500 + (50 if protocol == "TCP" else 0)


async def opened(server: Server | DatagramServer) -> None:
    await server.start()
    await server.stop()


def test_there_are_descriptors_for_all_that_can_come_beside_sessions() -> None:
    """Else who fills all places for strangers keeps probes from being answered."""
    taken = MAX_LOCAL + WAITING + ANSWERING + OWN
    assert taken + 64 <= SPARE_DESCRIPTORS  # files, destinations, the API server


def test_descriptors_that_are_enough_stay() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit(0)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
