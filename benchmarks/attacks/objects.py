"""Objects that whoever may write one in a namespace can make."""

import json
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.attacks import ATTACKER, Findings, Target, attack
from benchmarks.peer import Records, connect, context

HOSTILE = b"\x0a\x60"  # 10.96
PODS = 500
FOLDER = "objects"


def _pods(path: Path) -> dict[str, Any]:
    """A cluster of some Pods, from files that are read again when they change."""
    folder = path / FOLDER
    folder.mkdir()
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{n}", "namespace": "shop", "labels": {"app": f"a{n}"}},
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "podIPs": [{"ip": f"10.96.{n >> 8}.{n & 255}"}]},
        }
        for n in range(1, PODS)
    ]
    _write(folder / "pods.json", *pods)
    return {"inventory": {"files": [str(folder)]}}


def _write(path: Path, *items: dict[str, Any]) -> None:
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _policy(*ingress: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "hostile", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": ingress},
    }


def _decided(target: Target, over: Event) -> Findings:
    """Report connections from all Pods, over which the policy decides."""
    made = Records(domain=12)
    with connect(target.port, context(target.directory), ATTACKER) as session:
        session.sendall(made.templates())
        port = 1024
        while not over.wait(0.5):
            port += 1
            ours: dict[str, Any] = {"sourceTransportPort": port, "destinationIP": "10.96.0.1"}
            names = dict.fromkeys(("sourcePodName", "destinationPodName"), "")
            session.sendall(b"".join(made.messages(HOSTILE, range(1, PODS), **ours, **names)))
    return {}


@attack("policy-of-many-selectors", prepare=_pods)
def many_selectors(target: Target, over: Event) -> Findings:
    """A policy of 1 MB with 10,000 selectors, each of which every Pod fits."""
    peers = [
        {"podSelector": {"matchExpressions": [{"key": f"k{n}", "operator": "DoesNotExist"}]}}
        for n in range(10_000)
    ]
    _write(target.directory / FOLDER / "policy.json", _policy({"from": peers}))
    return _decided(target, over)


@attack("policy-of-overlapping-blocks", prepare=_pods)
def overlapping_blocks(target: Target, over: Event) -> Findings:
    """A policy of 0.6 MB with 8,000 address blocks over each other."""
    peers = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"172.16.{n >> 8}.{n & 255}/32"]}}
        for n in range(8_000)
    ]
    _write(target.directory / FOLDER / "policy.json", _policy({"from": peers}))
    return _decided(target, over)


@attack("aliases-of-aliases", prepare=_pods)
def aliases(target: Target, over: Event) -> Findings:
    """Nine lines of YAML that stand for a node with nine billion addresses."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    node = "kind: Node\nmetadata: {name: x}\nstatus: {addresses: *a8}\n"
    (target.directory / FOLDER / "node.yaml").write_text("\n".join([*lines, node]))
    return _decided(target, over)
