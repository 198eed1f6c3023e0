"""What the cluster's objects in files add to records, up to the store and the API."""

from pathlib import Path

import yaml

from inventory.kubernetes_objects import node, pod
from policies.cluster import antrea, matching
from waiting import block_until

from .harness import Aggregator, connection, deliver, exported, running

COLUMNS = (
    "sourceWorkloadKind, sourceWorkloadName, destinationWorkloadKind, destinationWorkloadName,"
    " sourcePodName, destinationPodName, destinationNodeName, egressName, egressIP, egressNodeName,"
    " destinationZone"
)


def test_egress_workloads_and_nodes(tmp_path: Path) -> None:
    owner = {"kind": "StatefulSet", "name": "client", "controller": True}
    agent = {"kind": "DaemonSet", "name": "agent", "controller": True}
    ports = {"hostNetwork": True, "containers": [{"ports": [{"containerPort": 80}]}]}
    egress = antrea("Egress", "way-out", appliedTo={"podSelector": matching(app="client")})
    egress["status"] = {"egressNode": "n3", "egressIP": "192.0.2.200"}
    objects = [
        pod("client-0", "10.0.0.1", node="n1", labels={"app": "client"}, ownerReferences=[owner]),
        pod("agent-x", "192.0.2.2", node="n2", spec=ports, ownerReferences=[agent]),
        node("n2", "192.0.2.2", "10.0.2.0/24", labels={"topology.kubernetes.io/zone": "b"}),
        egress,
    ]
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump_all(objects))
    settings = {
        "inventory": {"files": [str(tmp_path / "cluster.yaml")]},
        "clickHouse": {
            "enable": True,
            "databaseURL": f"embedded://{tmp_path}/store",
            "commitInterval": "1s",
        },
    }
    to = connection(1) | {"flowType": 3, "sourcePodName": "client-0", "sourceNodeName": "n1"}
    with running(tmp_path / "aggregator", settings) as aggregator:
        out, here = "198.51.100.9", "192.0.2.2"
        deliver(aggregator, exported(to | {"destinationIP": out}, to | {"destinationIP": here}))
        aggregator.settled(2)
        assert (
            "1 of 1 Pod addresses, one being 10.0.0.1" in aggregator.control.get("status")["ranges"]
        )
        left = [
            "StatefulSet",
            "client",
            "",
            "",
            "client-0",
            "",
            "",
            "way-out",
            "192.0.2.200",
            "n3",
            "",
        ]
        to_node = ["StatefulSet", "client", "DaemonSet", "agent", "client-0", "agent-x", "n2"]
        rows = aggregator.sql(f"SELECT {COLUMNS} FROM flows ORDER BY destinationIP DESC")
        assert rows == [left, [*to_node, "", "", "", "b"]]
        for row in aggregator.control.lines("flows", {"pod": "client-0"}):
            names = COLUMNS.replace(" ", "").split(",")
            assert [row[name] for name in names] in rows
        _named_networks(aggregator, out)


def test_open_flows_are_chosen_by_what_they_will_be_written_with(tmp_path: Path) -> None:
    """What a filter says of workloads, Egresses and others' Pods was true of none of them."""
    owner = {"kind": "StatefulSet", "name": "client", "controller": True}
    egress = antrea("Egress", "way-out", appliedTo={"podSelector": matching(app="client")})
    egress["status"] = {"egressNode": "n3", "egressIP": "192.0.2.200"}
    objects = [
        pod("client-0", "10.0.0.1", node="n1", labels={"app": "client"}, ownerReferences=[owner]),
        pod("server-0", "10.0.2.1", node="n2", namespace="back"),
        node("n2", "192.0.2.2", "10.0.2.0/24", labels={"topology.kubernetes.io/zone": "b"}),
        egress,
    ]
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump_all(objects))
    settings = {
        "inventory": {"files": [str(tmp_path / "cluster.yaml")]},
        "activeFlowRecordTimeout": "10m",
        "inactiveFlowRecordTimeout": "20m",
    }
    of = connection(1) | {"flowType": 3, "sourcePodName": "client-0", "sourceNodeName": "n1"}
    out, inside = "198.51.100.9", "10.0.2.1"
    with running(tmp_path / "aggregator", settings) as aggregator:
        deliver(aggregator, exported(of | {"destinationIP": out}, of | {"destinationIP": inside}))
        block_until(lambda: aggregator.control.get("status")["flows"] == 2)
        for wish, addresses in (
            ("src.workload = client and cluster = east", {out, inside}),
            ("kind = StatefulSet and type = to-external", {out}),
            ("egress = way-out", {out}),
            ("dst.pod = back/server-0 and dst.zone = b", {inside}),
            ("type = inter-node", {inside}),
        ):
            rows = list(aggregator.control.lines("api/v1/live", {"filter": wish}))
            assert {row["destinationIP"] for row in rows} == addresses, wish
        shown = aggregator.control.get("flowrecords", {"dstip": inside})
        assert [flow["destinationPodNamespace"] for flow in shown] == ["back"]


def _named_networks(aggregator: Aggregator, address: str) -> None:
    """What was stored before has the names that the configuration has now."""

    def groups() -> list[list[object]]:
        of_client = {"filter": "src.pod = client-0", "from": "-1d"}
        query = {"by": "dst.network", "measure": "records", **of_client}
        rows: list[list[object]] = aggregator.control.get("api/v1/query", query)["rows"]
        return rows

    assert groups() == [["", 2]]
    network = {"name": "partner", "cidrs": [f"{address}/32"]}
    aggregator.configure({"networks": [network]})
    block_until(lambda: ["partner", 1] in groups())
    assert sorted(groups()) == [["", 1], ["partner", 1]]
    live = list(aggregator.control.lines("flows", {"filter": "dst.network = partner"}))
    assert [row["destinationIP"] for row in live] == [address]
    options = aggregator.control.get("api/v1/complete", {"text": "network = "})["options"]
    assert [each["text"] for each in options] == ["partner"]
    aggregator.configure({"networks": [network | {"cidrs": ["203.0.113.0/240"]}]}, reported=False)
    aggregator.logged("networks[0].cidrs[0]: '203.0.113.0/240' is no network")
    assert ["partner", 1] in groups()
