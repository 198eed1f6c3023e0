import resource
import socket
import subprocess
import sys

import pytest

from flowvis.runtime.listeners import listen, raise_descriptor_limit

SCRIPT = """
import logging, resource
from flowvis.runtime.listeners import raise_descriptor_limit
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_NOFILE, (300, {hard}))
print(raise_descriptor_limit(1000))
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


@pytest.mark.parametrize(
    ("hard", "soft", "warned"), [(4000, 1256, False), (500, 500, True)], ids=["enough", "less"]
)
def test_descriptors_are_raised_as_far_as_allowed(hard: int, soft: int, warned: bool) -> None:
    command = [sys.executable, "-c", SCRIPT.format(hard=hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert list(map(int, done.stdout.split())) == [244 if warned else 1000, soft]
    assert ("room for 244 sessions only" in done.stderr) == warned


def test_descriptors_that_are_enough_stay() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit(0)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
