"""External collectors: their settings, and the destinations that these make."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from flowvis.aggregator.destinations import json_lines
from flowvis.aggregator.destinations.ipfix import IpfixDestination
from flowvis.aggregator.destinations.json_lines import JsonDestination
from flowvis.aggregator.destinations.kind import CERTIFICATES, Kind, Place, Problems
from flowvis.aggregator.destinations.sending import CollectorDestination
from flowvis.aggregator.enrichment.uids import with_uids
from flowvis.delivery.destination import Destination
from flowvis.fields import AGGREGATED, Field
from flowvis.ipfix.exporter import PROBE, least_message
from flowvis.ipfix.receivers import AntreaRelease, parse_release, understood
from flowvis.runtime.settings import Duration, option, section
from flowvis.transport.address import CollectorAddress, parse_collector_address, parse_host
from flowvis.transport.client import Client
from flowvis.transport.tls import VERSIONS, TlsFiles

NAMES = frozenset(
    {
        *(f"{end}{of}" for end in ("source", "destination") for of in ("PodName", "PodNamespace")),
        *("sourceNodeName", "destinationNodeName", "destinationServicePortName"),
        *(
            f"{way}NetworkPolicy{of}"
            for way in ("ingress", "egress")
            for of in ("Name", "Namespace", "RuleName")
        ),
        *("egressName", "egressNodeName"),
    }
)
"""Fields that `includeK8sNames: false` leaves out."""
RULE_NAMES = frozenset(f"{way}NetworkPolicyRuleName" for way in ("ingress", "egress"))
"""Of these, those that stay where the policy has its UID, which rules have not."""
MAX_MESSAGE = 65535  # over TCP and TLS there is no other limit than the length field's


class RecordFormat(Enum):
    """What a collector is sent."""

    IPFIX = "IPFIX"
    JSON = "JSON"


def collector_address(text: str) -> CollectorAddress:
    """Read `flowCollector.address`, whose protocol is tcp unless it says otherwise."""
    return parse_collector_address(text, default_protocol="tcp")


@dataclass(frozen=True)
class CollectorTls:
    """TLS towards the external collector, from files in one directory."""

    enable: bool = option(False, doc="TLS over tcp; the same as the protocol tls in the address")
    ca_secret_name: str = option(
        "", doc="The Secret that `directory` holds ca.crt of; empty: the system's CAs"
    )
    server_name: str = option(
        "",
        parse=parse_host,
        takes="a name or address",
        doc="The name in the collector's certificate; empty: the host",
    )
    client_secret_name: str = option(
        "", doc="The Secret that `directory` holds tls.crt and tls.key of; empty: no certificate"
    )
    min_version: str = option(
        "",
        doc="The oldest TLS to speak; empty: VersionTLS12",
        choices=("", *VERSIONS),
    )
    directory: Path = option(
        CERTIFICATES / "flow-collector", doc="Where ca.crt, tls.crt and tls.key are"
    )


@dataclass(frozen=True)
class FlowCollector:
    """An external IPFIX collector."""

    enable: bool = option(False, doc="Whether aggregated records go to an IPFIX collector")
    address: CollectorAddress | None = option(
        None,
        doc="`host`, `host:port` or `host:port:protocol`: tcp, udp or tls; port 4739 and tcp by "
        "default. Over udp nobody notices what is lost on the way",
        parse=collector_address,
    )
    observation_domain_id: int | None = option(
        None,
        doc="Observation domain of the records; by default a hash (FNV-1) of the cluster's ID",
        minimum=0,
        maximum=0xFFFFFFFF,
    )
    record_format: RecordFormat = option(
        RecordFormat.IPFIX,
        doc="IPFIX, or JSON: an object a line, with the elements' names as keys; over udp one in "
        "each datagram, which may go in fragments",
    )
    template_refresh_timeout: Duration = option(
        600.0,
        doc="How often templates go out anew over udp, as a collector that was restarted knows "
        "none; 0: only at first",
        minimum=0,
    )
    antrea_version: AntreaRelease | None = option(
        None,
        doc="The release of Antrea that the collector is built like, where it is older than 2.3 "
        "(go-ipfix up to 0.11): such a one ends the session at elements that it does not know, so "
        "it gets only those that it does. Empty: all elements",
        parse=parse_release,
        takes="a release such as '2.2', in quotes",
    )
    max_ipfix_msg_size: int = option(
        0,
        doc=f"Largest message in bytes: what a template takes ({least_message(AGGREGATED)}) to "
        "65535; 0: 65535. Over udp at most what the path takes without fragments",
        minimum=0,
        maximum=65535,
    )
    tls: CollectorTls = section(CollectorTls, doc="TLS towards the collector")
    include_k8s_names: bool = option(
        True,
        doc="Whether records have the names and namespaces of Pods, nodes, Services, policies and "
        "Egresses",
        key="includeK8sNames",
    )
    include_k8s_uids: bool = option(
        False,
        doc="Whether records have the UIDs of Pods, nodes, Services, policies and Egresses, each "
        "after its name: Antrea's elements 159 to 167, 16 bytes, zeros where there is none",
        key="includeK8sUIDs",
    )
    max_pending_records: int = option(
        262_144,  # some 700 bytes each: 180 MB
        doc="Records that wait while the collector is away or slow; then the oldest are dropped",
        minimum=1,
    )
    required: bool = option(
        False, doc="Whether exporters keep their records until they are on the way to the collector"
    )

    def check(self) -> Problems:
        """Yield what does not go together, or does not exist yet."""
        if self.enable and self.address is None:
            yield "address", "is needed when the collector is enabled"
        if self.tls.enable and self._protocol == "udp":
            yield "tls.enable", "TLS is over tcp: leave it false, or use a tls or tcp address"
        least = least_message(self.fields)
        if 0 < self.max_ipfix_msg_size < least:
            problem = f"{self.max_ipfix_msg_size}: 0, or {least} (what a template takes) to 65535"
            yield "maxIPFIXMsgSize", problem

    @property
    def _protocol(self) -> str:
        return self.address.protocol if self.address is not None else ""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that the collector is sent."""
        fields = with_uids(AGGREGATED) if self.include_k8s_uids else AGGREGATED
        fields = understood(fields, self.antrea_version)
        if self.include_k8s_names:
            return fields
        without = NAMES - RULE_NAMES if self.include_k8s_uids else NAMES
        return tuple(field for field in fields if field.name not in without)


@dataclass(frozen=True)
class FurtherCollector(FlowCollector):
    """One of several external collectors, beside `flowCollector`."""

    enable: bool = option(True, doc="Whether aggregated records go to this collector")
    name: str = option(
        "",
        doc="What its counters are called by: lower-case letters, digits and hyphens; needed",
    )

    def check(self) -> Problems:
        """Yield what does not go together, or is missing."""
        yield from super().check()
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", self.name):
            problem = "1 to 32 lower-case letters, digits and hyphens, which its counters have"
            yield "name", f"{self.name!r}: {problem}"


def repeated_names(collectors: Sequence[FurtherCollector]) -> Problems:
    """Yield the problem of names that several have."""
    names = Counter(each.name for each in collectors)
    for name, number in names.items():
        if number > 1:
            yield "flowCollectors", f"{number} are called {name!r}: each has a name of its own"


def make(
    chosen: FlowCollector, place: Place, before: Destination | None
) -> IpfixDestination | JsonDestination:
    """Return what sends to a collector."""
    client = _client(chosen)
    if isinstance(before, CollectorDestination):
        client.stats = before.stats
    surroundings = place.surroundings
    options: dict[str, Any] = {
        "capacity": chosen.max_pending_records,
        "max_bytes": place.max_bytes,
        "fields": chosen.fields,
        "grace_s": surroundings.grace_s,
        "required": chosen.required,
    }
    if chosen.record_format is RecordFormat.JSON:
        return JsonDestination(client, place.stage, **options)
    configured = chosen.observation_domain_id
    return IpfixDestination(
        client,
        place.stage,
        domain=surroundings.observation_domain if configured is None else lambda: configured,
        max_message=chosen.max_ipfix_msg_size or MAX_MESSAGE,
        template_refresh_s=round(chosen.template_refresh_timeout) or None,
        **options,
    )


def _client(chosen: FlowCollector) -> Client:
    if chosen.address is None:
        raise ValueError("chosen that passed their check have an address")
    address, tls = chosen.address, chosen.tls
    is_json = chosen.record_format is RecordFormat.JSON
    probe = json_lines.PROBE if is_json else PROBE
    if tls.enable:
        address = replace(address, protocol="tls")
    if address.protocol != "tls":
        return Client(address, probe=probe, fragments=is_json)
    named = bool(tls.client_secret_name)
    files = TlsFiles(
        ca=tls.directory / "ca.crt" if tls.ca_secret_name else None,
        certificate=tls.directory / "tls.crt" if named else None,
        key=tls.directory / "tls.key" if named else None,
        min_version=tls.min_version or "VersionTLS12",
    )
    return Client(address, files, server_name=tls.server_name, probe=probe)


def _cluster(chosen: FlowCollector, settings: Any) -> str | None:
    """Return of what the observation domain is made, where it is the cluster's."""
    return settings.cluster_id if chosen.observation_domain_id is None else None


_CONNECTED = "1 while a session with the external collector stands"

KIND = Kind(
    "flow_collector",
    "ipfix",
    make,
    metrics="flow_collector",
    healthy=("flow_collector_connected", _CONNECTED),
    beside=_cluster,
)

SEVERAL = replace(
    KIND,
    attribute="flow_collectors",
    name="collector",
    several=True,
    weight=0.5,
    metrics="flow_collectors",
    healthy=("flow_collectors_connected", _CONNECTED),
)
