"""flowctl explain, against a real control socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from aggregator.explained import BEGAN, cluster, explained, pod
from flowvis.cli.flowctl import main

DENIED = """\
shop/orders-1 -> shop/orders-0 tcp 8080: DENIED now

egress at shop/orders-1: no policy selects shop/orders-1: allowed

ingress at shop/orders-0: NetworkPolicy shop/orders isolates shop/orders-0, and
  no rule allows it
  NetworkPolicies
    1. NetworkPolicy shop/orders ingress[0]: allow
       no: Pods with app=cart in namespace shop: it has app=orders
    2. NetworkPolicy shop/orders ingress[1]: allow
       no: Pods in namespaces with team=b: namespace shop has team=a
    3. NetworkPolicy shop/orders default isolation: drop
       matches, decides
"""


async def flowctl(path: Path, *arguments: str, **objects: Any) -> int:
    async with explained(path, *cluster(*objects.get("more", ()))):
        socket = str(path / "control.sock")
        return await asyncio.to_thread(main, ["--socket", socket, "explain", *arguments])


async def test_what_denies_a_connection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--from", "shop/orders-1", "--to", "shop/orders-0:8080")
    assert await flowctl(tmp_path, *arguments) == 3
    assert capsys.readouterr().out == DENIED


async def test_what_allows_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--from", "ops/probe", "--to", "shop/orders-0:1")
    assert await flowctl(tmp_path, *arguments) == 0
    short = capsys.readouterr().out
    assert (
        "ingress at shop/orders-0: allowed by NetworkPolicy shop/orders, rule ingress[1]" in short
    )
    assert ("2. NetworkPolicy shop/orders ingress[1]: allow\n       matches, decides") in short
    assert "ingress[0]" not in short
    assert await flowctl(tmp_path, *arguments, "--all") == 0
    whole = capsys.readouterr().out
    assert "it has app=probe" not in whole  # its namespace misses by more
    assert "no: Pods with app=cart in namespace shop: it is in namespace ops" in whole
    assert "NetworkPolicy shop/orders default isolation: drop" in whole


async def test_json_is_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--from", "shop/cart-0", "--to", "shop/orders:80", "-o", "json")
    assert await flowctl(tmp_path, *arguments) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "differs"
    assert [one["verdict"] for one in answer["connections"]] == ["allowed", "denied"]


async def test_a_time_before_anything_was_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--from", "shop/cart-0", "--to", "shop/orders-0:1", "--at", str(BEGAN - 1))
    assert await flowctl(tmp_path, *arguments) == 4
    found = capsys.readouterr().out
    assert "shop/cart-0 -> shop/orders-0 tcp 1: UNKNOWN at" in found
    assert "note: which policies there were then is not known" in found


async def test_times_are_those_of_other_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("--from", "ops/probe", "--to", "shop/orders-0:1")
    assert await flowctl(tmp_path, *named, "--at", "90m") == 4  # before all that is known
    assert await flowctl(tmp_path, "pod = nobody", "--since", "1h30m") == 1
    assert "no store is configured" in capsys.readouterr().err


async def test_it_fits_into_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"matchLabels": {f"example.org/label-{n}": "x" * 20 for n in range(8)}}
    wide = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "wide", "namespace": "shop"},
        "spec": {
            "podSelector": {},
            "ingress": [{"from": [{"podSelector": wanted}]}],
        },
    }
    odd = pod("shop", "odd\x1b[31m", "10.0.0.9")
    arguments = ("--from", "10.0.0.9", "--to", "shop/cart-0:1", "--all")
    assert await flowctl(tmp_path, *arguments, more=(wide, odd)) == 3
    found = capsys.readouterr().out
    assert max(map(len, found.splitlines())) <= 80
    assert "\x1b" not in found


async def test_each_peer_and_port_that_misses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [{"port": 5000 + number} for number in range(12)]
    blocks = [{"ipBlock": {"cidr": "10.9.0.0/16"}}, {"podSelector": {"matchLabels": {"app": "z"}}}]
    rules = [{"from": blocks}, {"ports": ports}]
    both = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "both", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "cart"}}, "ingress": rules},
    }
    arguments = ("--from", "shop/orders-0", "--to", "shop/cart-0:1")
    assert await flowctl(tmp_path, *arguments, more=(both,)) == 3
    found = capsys.readouterr().out
    assert (
        """\
    1. NetworkPolicy shop/both ingress[0]: allow
       no, none of these
       - Pods with app=z in namespace shop: it has app=orders
       - 10.9.0.0/16: 10.0.0.2 is not in it
    2. NetworkPolicy shop/both ingress[1]: allow
       no, none of these
       - tcp 5000: not tcp 1
"""
        in found
    )
    assert found.count("not tcp 1\n") == 10
    assert "       - and 2 more\n" in found


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "name a connection: FLOW, or --from and --to"),
        (("--from", "shop/cart-0"), "name a connection"),
        (("pod = x", "--from", "shop/cart-0"), "FLOW is a record"),
        (("pod = x", "--protocol", "udp"), "FLOW is a record"),
        (("--from", "shop/cart-0", "--to", "1.2.3.4:1", "--since", "1h"), "--since is for FLOW"),
        (("--from", "shop/cart-0", "--to", "shop/order:1"), "do you mean shop/orders-0"),
    ],
)
async def test_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Any, problem: str
) -> None:
    assert await flowctl(tmp_path, *arguments) == 1
    assert problem in capsys.readouterr().err
