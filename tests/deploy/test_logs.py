"""deploy/logs over lines of each log: what Loki gets."""

import io
import logging
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from tools.fluent_bit import AUDIT_FIELDS, in_ruby

from deploy.fluent_bit import FluentBit, Record
from deploy.rendered import DEPLOY, LOGS, objects, of, workload
from flowvis.denials.audit import PATTERNS
from flowvis.runtime.logs import JsonFormatter, LimitedLog, TextFormatter
from policies.cluster import Cluster, Connection, Pod, labels, namespace, passes

HASH = "0123456789abcdef" * 4
AGENT = f"/var/log/containers/antrea-agent-x7k2p_kube-system_antrea-agent-{HASH}.log"
CONTROLLER = (
    f"/var/log/containers/antrea-controller-6d4c-9qz_kube-system_antrea-controller-{HASH}.log"
)
EXPORTER = f"/var/log/containers/flow-exporter-8s2vv_flow-exporter_flow-exporter-{HASH}.log"
AUDIT = "/var/log/antrea/networkpolicy/np.log"
OVS = "/var/log/antrea/openvswitch/ovs-vswitchd.log"
AT = "2026-09-30T02:14:03.512873114Z"

Sent = tuple[dict[str, str], Record]


@pytest.fixture(scope="module")
def node() -> FluentBit:
    (container,) = workload("fluent-bit", LOGS)["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value", "node-1") for each in container["env"]}
    return FluentBit(DEPLOY / "logs", environment)


def cri(*lines: str) -> list[str]:
    return [f"{AT} stderr F {line}" for line in lines]


def one(found: list[Sent]) -> Sent:
    (sent,) = found
    return sent


@pytest.fixture(params=[TextFormatter, JsonFormatter])
def written(request: pytest.FixtureRequest) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A log as our daemons write it, in either form."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    logger = logging.getLogger("flowvis.transport.server")
    logger.addHandler(handler)
    try:
        yield logger, stream
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    "message",
    [
        "session begun",
        "stopped",
        'refused "x" = \\d{3}\tand more',
        "level=error logger=other msg=mine",
        "zurück 拒否 \u2028 \x85 \x1b[31m",
        "two\nlines of a peer's",
        "{'a': 1}",
        "",
    ],
)
def test_our_own_in_both_forms(
    node: FluentBit, written: tuple[logging.Logger, io.StringIO], message: str
) -> None:
    logger, stream = written
    LimitedLog(logger).log(logging.WARNING, "192.0.2.7:4739", "%s", message, reason=message)
    found = node.sent(EXPORTER, cri(*stream.getvalue().splitlines()))
    got, record = one(found)
    assert got == {
        "job": "fluentbit-flowvis",
        "flowvis_log_category": "flowvis.transport.server",
        "container": "flow-exporter",
        "log_level": "warning",
        "nodename": "node-1",
    }
    shown = record["message"].replace("\\n", "\n")
    assert visible(shown) == visible(message)
    assert visible(record["reason"]) == visible(message)
    assert record["peer"] == "192.0.2.7:4739"
    assert record["podname"] == "flow-exporter-8s2vv"
    assert not record.keys() & {"log", "path", "fields", "level", "logger", "msg", "_p"}


def visible(text: str) -> str:
    """What of a text no form has to write in another way."""
    return re.sub(r"\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|[^ -~]", "", text).replace("\\n", "")


def test_a_traceback_is_one_entry(
    node: FluentBit, written: tuple[logging.Logger, io.StringIO]
) -> None:
    logger, stream = written
    for peer in ("192.0.2.7:1", "192.0.2.8:1"):
        try:
            int("time=1 level=x\n\nmore")
        except ValueError as error:
            LimitedLog(logger).log(logging.ERROR, peer, "failed", error=error)
    found = node.sent(EXPORTER, cri(*stream.getvalue().splitlines()))
    assert [record["peer"] for _, record in found] == ["192.0.2.7:1", "192.0.2.8:1"]
    for got, record in found:
        assert got["log_level"] == "error"
        assert "ValueError: invalid literal" in record["traceback"]
        assert "more" in record["traceback"]


def test_what_a_runtime_cut_is_whole_again(node: FluentBit) -> None:
    line = 'time=2026-09-30T02:14:03.512Z level=info logger=flowvis msg="a b"'
    lines = [f"{AT} stderr P {line[:40]}", f"{AT} stderr F {line[40:]}"]
    assert one(node.sent(EXPORTER, lines))[1]["message"] == "a b"


KLOG = [
    (
        "I0930 02:14:03.512873       1 networkpolicy_controller.go:633] Syncing Node NetworkPolicy",
        ("I", "networkpolicy_controller", "Syncing Node NetworkPolicy"),
    ),
    (
        'E1231 23:59:59.999999  104522 server.go:81] "Failed" err="a]b: \\"x\\"" pod="a/b"',
        ("E", "server", '"Failed" err="a]b: \\"x\\"" pod="a/b"'),
    ),
    ("W0101 00:00:00.000000       1 reflector.go:424] ", ("W", "reflector", None)),
    ("F0101 00:00:00.000000       1 main.go:1] W0101 x", ("F", "main", "W0101 x")),
    ("I0101 00:00:00.000000       1 zz.generated.go:9] x", ("I", "zz.generated", "x")),
]


@pytest.mark.parametrize(("line", "wanted"), KLOG)
@pytest.mark.parametrize(
    ("path", "labelled"),
    [
        (AGENT, ("fluentbit-antrea", "agent_log_category")),
        (CONTROLLER, ("fluentbit-antrea-controller", "controller_log_category")),
    ],
)
def test_antreas(
    node: FluentBit,
    path: str,
    labelled: tuple[str, str],
    line: str,
    wanted: tuple[str, str, str | None],
) -> None:
    got, record = one(node.sent(path, cri(line)))
    (job, label), (level, category, message) = labelled, wanted
    assert got == {"job": job, label: category, "log_level": level, "nodename": "node-1"}
    assert record.get("message") == message
    assert record["code"] == line[1:5]
    assert record["stream"] == "stderr"


STRANGE = [
    "goroutine 1 [running]:",
    "\tmain.main()",
    "[INFO] starting",
    "I0930 02:14:03 1 short.go:1] no fraction",
    "I0930 02:14:03.512873 1 a b.go:1] x",
    "",
    "null",
    "[1]",
    "time=",
    " x",
]


@pytest.mark.parametrize("line", STRANGE)
@pytest.mark.parametrize("path", [AGENT, CONTROLLER, EXPORTER])
def test_what_no_parser_knows_is_sent_whole(node: FluentBit, path: str, line: str) -> None:
    got, record = one(node.sent(path, cri(line)))
    assert record["message"] == line
    assert "log_level" not in got
    assert got["nodename"] == record["nodename"] == "node-1"


TIME = "2026/09/30 02:14:03.512873"
NEW = (
    f"{TIME} AntreaPolicyIngressRule AntreaNetworkPolicy:shop/web deny-rest Ingress Drop 44900 "
    "shop/web-7d9c4-q7m2n 10.0.1.23 48212 10.0.2.41 8443 TCP 60 my-label"
)
PUBLISHED = (
    "2023/02/14 11:23:54.727335 AntreaPolicyIngressRule AntreaClusterNetworkPolicy:acnp-acme-allow "
    "FrontEnd_Rule Allow 14000 10.34.6.14 46868 10.34.6.5 8082 TCP 60"
)
PING = (
    f"{TIME} EgressDefaultRule K8sNetworkPolicy <nil> Egress Reject <nil> <nil> "
    "fd00::1 <nil> fd00::2 <nil> IPv6-ICMP 104 <nil>"
)
FIRST = (
    f"{TIME} AntreaPolicyEgressRule AntreaNetworkPolicy:shop/db Drop 61800 "
    "SRC: 10.0.0.1 DEST: 10.0.0.2 60 TCP"
)


def test_the_form_of_13_fields(node: FluentBit) -> None:
    got, record = one(node.sent(AUDIT, [PUBLISHED]))
    assert got == {
        "job": "fluentbit-antrea-netpolicy",
        "nodename": "node-1",
        "action": "Allow",
    }
    assert record == {
        "date": "2023/02/14",
        "time": "11:23:54.727335",
        "ovsTableName": "AntreaPolicyIngressRule",
        "antreaNativePolicyReference": "AntreaClusterNetworkPolicy:acnp-acme-allow",
        "ruleName": "FrontEnd_Rule",
        "action": "Allow",
        "openflowPriority": "14000",
        "sourceIP": "10.34.6.14",
        "sourcePort": "46868",
        "destinationIP": "10.34.6.5",
        "destinationPort": "8082",
        "protocol": "TCP",
        "packetLength": 60,
        "packetCount": "1",
        "nodename": "node-1",
    }


@pytest.mark.parametrize("name", ["deny-rest", "to 10.1.1.1 5 TCP 60", "Drop Ingress", " a  拒否 "])
@pytest.mark.parametrize(("counted", "count"), [("", "1"), (" [7 packets in 1.011379442s]", 7)])
def test_the_form_with_direction_and_pod(
    node: FluentBit, name: str, counted: str, count: object
) -> None:
    line = NEW.replace("deny-rest", name) + counted
    got, record = one(node.sent("/var/log/antrea/networkpolicy/np-2026-09-30.log", [line]))
    assert got["action"] == "Drop"
    assert record["ruleName"] == name
    assert record["direction"] == "Ingress"
    assert record["appliedToReference"] == "shop/web-7d9c4-q7m2n"
    assert (record["sourceIP"], record["destinationPort"]) == ("10.0.1.23", "8443")
    assert record["logLabel"] == "my-label"
    assert record["packetCount"] == count


def test_other_forms(node: FluentBit) -> None:
    (_, ping), (_, first) = node.sent(AUDIT, [PING, FIRST])
    assert (ping["ruleName"], ping["sourceIP"], ping["protocol"]) == (
        "<nil>",
        "fd00::1",
        "IPv6-ICMP",
    )
    assert (first["sourceIP"], first["destinationIP"], first["packetLength"]) == (
        "10.0.0.1",
        "10.0.0.2",
        60,
    )
    assert "ruleName" not in first


def test_an_audit_line_cut_short_is_sent_whole(node: FluentBit) -> None:
    got, record = one(node.sent(AUDIT, [NEW[:90]]))
    assert record == {"message": NEW[:90], "nodename": "node-1"}
    assert got == {"job": "fluentbit-antrea-netpolicy", "nodename": "node-1"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_exporters_expressions_are_all_of_it(pattern: str) -> None:
    """Each group has a name in Loki, and nothing is left that only Python knows."""
    names = re.findall(r"\(\?P<(\w+)>", pattern)
    ruby = in_ruby(pattern, AUDIT_FIELDS)
    assert re.findall(r"\(\?<(\w+)>", ruby) == [AUDIT_FIELDS[name] for name in names]
    assert set(re.findall(r"\(\?(.)", ruby)) == {"m", "<", ":"}
    with pytest.raises(KeyError, match="new"):
        in_ruby(rf"{pattern}(?P<new>x)", AUDIT_FIELDS)


@pytest.mark.parametrize(
    ("line", "labelled", "rest"),
    [
        ("00001|vlog|INFO|opened log file", ("INFO", "vlog"), (None, "opened log file")),
        ("99999|dpif(handler12)|WARN|a|b", ("WARN", "dpif"), ("handler12", "a|b")),
        ("00042|fatal_signal|ERR|", ("ERR", "fatal_signal"), (None, None)),
        ("00043|bridge|EMER|拒否 ] x", ("EMER", "bridge"), (None, "拒否 ] x")),
    ],
)
def test_ovs(
    node: FluentBit, line: str, labelled: tuple[str, str], rest: tuple[str | None, str | None]
) -> None:
    got, record = one(node.sent(OVS, [f"2026-09-30T02:14:03.512Z|{line}"]))
    level, category = labelled
    assert got == {
        "job": "fluentbit-antrea-ovs",
        "nodename": "node-1",
        "ovs_log_level": level,
        "ovs_category": category,
    }
    assert (record.get("thread"), record.get("message")) == rest
    assert record["date"] == "2026-09-30T02:14:03.512Z"


def test_files_of_others_are_not_read(node: FluentBit) -> None:
    with pytest.raises(ValueError, match="not enough"):
        node.sent(f"/var/log/containers/web-0_shop_web-{HASH}.log", cri("x"))


def test_what_is_read_is_mounted_and_what_is_kept_outlives_the_pod(node: FluentBit) -> None:
    pod = workload("fluent-bit", LOGS)["spec"]["template"]["spec"]
    hosts = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    mounts = {
        m["mountPath"]: m.get("readOnly", False)
        for m in pod["containers"][0]["volumeMounts"]
        if m["name"] in hosts
    }
    assert set(mounts) == set(hosts.values())  # a link in it leads where it does on the node
    (state,) = (path for path, read_only in mounts.items() if not read_only)
    positions = [each.one("DB") for each in node.inputs]
    assert len(set(positions)) == len(positions)
    assert all(position.startswith(f"{state}/") for position in positions)
    for each in node.inputs:
        for path in each.one("Path").split(","):
            assert any(PurePosixPath(path).is_relative_to(mount) for mount in mounts)
        assert each.one("storage.type") == "filesystem"
    assert node.filters[0].one("emitter_storage.type") == "filesystem"
    assert all(each.one("Retry_Limit") == "no_limits" for each in node.outputs)


def test_who_may_talk_to_it() -> None:
    name = "app.kubernetes.io/name"
    ports = (("status", 6, 2020),)
    bit = Pod("flow-logs", "bit", "10.0.0.1", labels(**{name: "fluent-bit"}), named_ports=ports)
    others = [
        Pod("loki", "gateway", "10.0.0.2"),
        Pod("kube-system", "dns", "10.0.0.3", labels(**{"k8s-app": "kube-dns"})),
        Pod("monitoring", "prometheus", "10.0.0.4", labels(**{name: "prometheus"})),
        Pod("shop", "web", "10.0.0.5"),
    ]
    spaces = ("flow-logs", "loki", "kube-system", "monitoring", "shop")
    cluster = Cluster([bit, *others])
    cluster.apply(*(namespace(each) for each in spaces), *of(LOGS, "NetworkPolicy"))
    asked: dict[tuple[str, str, int, str], bool] = {
        ("flow-logs/bit", "loki/gateway", 8080, "TCP"): True,
        ("flow-logs/bit", "loki/gateway", 3100, "TCP"): True,
        ("flow-logs/bit", "kube-system/dns", 53, "UDP"): True,
        ("monitoring/prometheus", "flow-logs/bit", 2020, "TCP"): True,
        ("flow-logs/bit", "loki/gateway", 22, "TCP"): False,
        ("flow-logs/bit", "shop/web", 8080, "TCP"): False,
        ("flow-logs/bit", "198.51.100.7", 443, "TCP"): False,
        ("shop/web", "flow-logs/bit", 2020, "TCP"): False,
    }
    found = cluster.decide([Connection(*each) for each in asked])
    assert [passes(each) for each in found] == list(asked.values())


def test_another_configuration_restarts_it() -> None:
    (kept,) = of(LOGS, "ConfigMap")
    assert re.fullmatch(r"fluent-bit-\w{10}", kept["metadata"]["name"])
    text: Any = yaml.safe_dump_all(objects(LOGS))
    assert text.count(kept["metadata"]["name"]) == 2
