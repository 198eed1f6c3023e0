"""The addresses of a network namespace, from its kernel."""

import errno
import os
import resource
import socket

import pytest

from flowvis.exporter import own_addresses
from flowvis.exporter.own_addresses import OwnAddresses
from inventory.kubernetes_objects import addresses
from namespaces import new_namespace, run

ASKED = ["10.77.0.254", "2001:db8:7::1", "10.77.0.9", "198.51.100.1", "127.0.0.1", "::1"]


def known(own: OwnAddresses) -> list[bool]:
    return [bool(found) for found in own.contain(addresses(ASKED))]


async def test_addresses_that_come_and_go() -> None:
    with new_namespace():
        own = OwnAddresses()
        await own.start()
        assert known(own) == [False] * 6  # loopback's are nobody's in particular
        run("ip", "link", "add", "bridge0", "type", "bridge")
        run("ip", "link", "set", "bridge0", "up")
        run("ip", "address", "add", "10.77.0.254/24", "dev", "bridge0")
        run("ip", "address", "add", "2001:db8:7::1/64", "dev", "bridge0", "nodad")
        assert known(own) == [True, True, False, False, False, False]
        run("ip", "address", "del", "10.77.0.254/24", "dev", "bridge0")
        # Of a point-to-point link the peer's address is not ours.
        run("ip", "address", "add", "10.77.0.9", "peer", "198.51.100.1", "dev", "bridge0")
        assert known(own) == [False, True, True, False, False, False]
        await own.stop()


async def test_very_many_addresses() -> None:
    with new_namespace():
        run("ip", "link", "add", "bridge0", "type", "bridge")
        own = OwnAddresses()
        await own.start()
        assert not own.contain(addresses(["10.77.9.9"])).any()
        lines = [f"address add 10.77.{n // 250}.{n % 250 + 1}/32 dev bridge0" for n in range(3000)]
        batch = "\n".join(lines).encode()
        run("sh", "-c", f"printf '%s\n' '{batch.decode()}' | ip -batch -")
        all_of_them = [f"10.77.{n // 250}.{n % 250 + 1}" for n in range(3000)]
        assert own.contain(addresses(all_of_them)).all()
        await own.stop()


async def test_a_list_that_failed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing changes any more."""
    monkeypatch.setattr(own_addresses, "AGAIN_S", 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with new_namespace():
        own = OwnAddresses()
        await own.start()
        run("ip", "link", "add", "bridge0", "type", "bridge")
        run("ip", "link", "set", "bridge0", "up")
        run("ip", "address", "add", "10.77.0.254/24", "dev", "bridge0")
        free = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            assert not any(known(own))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(free)
        assert known(own) == [True, False, False, False, False, False]
        await own.stop()


async def test_a_kernel_that_refuses_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(groups: int = 0) -> socket.socket:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(own_addresses, "_open", refuse)
    own = OwnAddresses()
    await own.start()
    assert known(own) == known(own) == [False] * 6
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Operation not permitted" in caplog.text
