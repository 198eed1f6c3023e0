"""antrea-agent.conf, of all its releases, as a document of flow-exporter.

Until 1.13 the exporter's options were at the outermost level. Until 1.0 there was a frequency in
place of the active timeout, until 1.1 the collector was spoken to over tcp unless `tls` was asked
for elsewhere; since 2.4 it is gRPC by default.
"""

from flowvis.runtime.durations import format_duration, parse_duration
from flowvis.runtime.older import Older, is_blank, named
from flowvis.transport.address import parse_collector_address

SECTION = "flowExporter"
GATE = "FlowExporter"
DEFAULT_POLL = "5s"
PLAIN_COLLECTOR = "flow-aggregator/flow-aggregator:4739:tcp"
GRPC_PORT = ":14739:grpc"  # of Antrea's aggregator, which takes IPFIX beside it
IPFIX_PORT = ":4739:tls"
MAX_FREQUENCY = 1 << 32

AGENT = frozenset({
    "antreaClientConnection", "antreaProxy", "apiPort", "auditLogging", "clientConnection",
    "clusterPort", "cniSocket", "defaultMTU", "disableTXChecksumOffload", "dnsServerOverride",
    "egress", "enableBridgingMode", "enableIPSecTunnel", "enablePrometheusMetrics",
    "enableTLSToFlowAggregator", "externalNode", "featureGates", "fqdnCacheMinTTL",
    "hostGateway", "hostNetworkAcceleration", "hostNetworkMode", "hostProcPathPrefix", "ipsec",
    "kubeAPIServerOverride", "memberlist", "multicast", "multicastInterfaces", "multicluster",
    "noSNAT", "nodePortLocal", "nodeType", "nplPortRange", "ovsBridge", "ovsDatapathType",
    "ovsRunDir", "packetInRate", "podCIDRs", "secondaryNetwork", "serviceCIDR", "serviceCIDRv6",
    "snatFullyRandomPorts", "tlsCipherSuites", "tlsMinVersion", "trafficEncapMode",
    "trafficEncryptionMode", "transportInterface", "transportInterfaceCIDRs", "tunnelCsum",
    "tunnelPort", "tunnelType", "wireGuard",
})  # fmt: skip
"""The agent's own options, of all releases from 0.9 to 2.7."""


def from_antrea(older: Older) -> None:
    """Make an antrea-agent.conf a document of ours; ours stays as it is."""
    _gates(older)
    _address(older)
    older.move("flowPollInterval", f"{SECTION}.flowPollInterval")
    older.move("activeFlowExportTimeout", f"{SECTION}.activeFlowExportTimeout")
    older.move("idleFlowExportTimeout", f"{SECTION}.idleFlowExportTimeout")
    _frequency(older)
    older.leave(AGENT, "antrea-agent.conf")


def _gates(older: Older) -> None:
    """Take over the one gate that is ours: without it nothing was exported, whatever else said."""
    gates = older.document.get("featureGates")
    if not isinstance(gates, dict):
        return  # none is set: a document of Antrea's all the same
    if GATE in gates:
        path = f"{SECTION}.enable"
        older.warnings.append(f"featureGates.{GATE}: today's key is {path}")
        gate = gates[GATE]
        if gate is not True or is_blank(older.value(path)):
            older.put(path, gate, f"featureGates.{GATE}")
    others = [gate for gate in gates if gate != GATE]
    if others:
        older.warnings.append(f"featureGates, without a meaning here: {named(others)}")
    older.document["featureGates"] = None


def _address(older: Older) -> None:
    """Take over where the collector is, with the protocol that its release meant."""
    path = f"{SECTION}.flowCollectorAddr"
    before_1_1 = {"flowExportFrequency", "enableTLSToFlowAggregator"} & older.document.keys()
    tls = older.document.pop("enableTLSToFlowAggregator", None)
    older.move("flowCollectorAddr", path)
    if tls is False and is_blank(older.value(path)):
        older.put(path, PLAIN_COLLECTOR, "enableTLSToFlowAggregator")
    address = older.value(path)
    if before_1_1 and path in older.origins and isinstance(address, str):
        address = _with_protocol(address, tls=tls is True)
        older.document[SECTION]["flowCollectorAddr"] = address
    if tls is not None:
        older.warnings.append(
            f"enableTLSToFlowAggregator: today the protocol in {path} ({address or 'tls'})"
        )
    if isinstance(address, str) and address.endswith(GRPC_PORT):
        ipfix = address.removesuffix(GRPC_PORT) + IPFIX_PORT
        older.put(path, ipfix, older.origins.get(path, path))
        older.warnings.append(f"{path}: {address} is gRPC, which is not spoken: {ipfix} is used")


def _with_protocol(address: str, *, tls: bool) -> str:
    """Write out what such an address meant before 1.1: tcp by default, with TLS if asked for."""
    try:
        parsed = parse_collector_address(address, default_protocol="tcp")
    except ValueError:
        return address  # refused with its reason when it is read
    text = str(parsed)
    return text.removesuffix(":tcp") + ":tls" if tls and parsed.protocol == "tcp" else text


def _frequency(older: Older) -> None:
    """Make polls per export a timeout; 0 was the default."""
    if "flowExportFrequency" not in older.document:
        return
    path = f"{SECTION}.activeFlowExportTimeout"
    frequency = older.document.pop("flowExportFrequency")
    if not is_blank(older.value(path)):
        older.warnings.append(f"flowExportFrequency: not used, as {path} is given")
        return
    today = f"flowExportFrequency: today's key is {path}, the frequency times the poll interval"
    if is_blank(frequency) or (type(frequency) is int and frequency == 0):
        older.warnings.append(today)
        return
    poll = older.value(f"{SECTION}.flowPollInterval")
    timeout = frequency  # to be refused, by its own name, if it is no number of polls
    if type(frequency) is int and 0 < frequency <= MAX_FREQUENCY:
        try:
            timeout = format_duration(
                frequency * parse_duration(DEFAULT_POLL if is_blank(poll) else poll)
            )
        except (ValueError, TypeError):  # the poll interval is refused already
            return
        today += f" ({timeout})"
    older.warnings.append(today)
    older.put(path, timeout, "flowExportFrequency")
