"""Antrea's own metrics that dashboards show, each once, with its labels.

Names are those of Antrea 2.8's docs/prometheus-integration.md. Of the agent's about connections our
exporter has the same, so that one panel shows either.
"""

from collections.abc import Iterator
from dataclasses import dataclass

INSTANCE = 'instance=~"$instance"'
"""Of the variable that chooses what is scraped."""
MINUTE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Series:
    """A metric: a counter or a gauge, or what has a sum and a count of its observations."""

    name: str
    labels: tuple[str, ...] = ()
    """Beside those that Prometheus itself puts on everything."""
    observed: bool = False

    def of(self, *conditions: str, suffix: str = "") -> str:
        """Return its series of what is chosen, those that meet conditions as well."""
        return f"{self.name}{suffix}{{{', '.join((INSTANCE, *conditions))}}}"

    def rate(self, *conditions: str, suffix: str = "") -> str:
        """Return by how much it grows a second."""
        return f"rate({self.of(*conditions, suffix=suffix)}{MINUTE})"

    def mean(self, by: str, *conditions: str) -> str:
        """Return the mean of what was observed of late, in its own unit."""
        total, count = (
            f"sum by ({by}) ({self.rate(*conditions, suffix=suffix)})"
            for suffix in ("_sum", "_count")
        )
        return f"{total} / ({count} > 0)"


def _agent(name: str, *labels: str, observed: bool = False) -> Series:
    return Series(f"antrea_agent_{name}", labels, observed)


def _controller(name: str, *, observed: bool = False) -> Series:
    return Series(f"antrea_controller_{name}", (), observed)


def _proxy(name: str, *, observed: bool = False) -> Series:
    return Series(f"antrea_proxy_{name}", ("ip_family",), observed)


CONNECTIONS = _agent("conntrack_total_connection_count")
CONNECTIONS_LIMIT = _agent("conntrack_max_connection_count")
CONNECTIONS_TRACKED = _agent("conntrack_antrea_connection_count")
DENIED = _agent("denied_connection_count")
POLL_SECONDS = _agent("conntrack_poll_cycle_duration_seconds", observed=True)
COLLECTOR_SESSIONS = _agent("flow_collector_reconnection_count")
OF_BOTH = (
    CONNECTIONS, CONNECTIONS_LIMIT, CONNECTIONS_TRACKED, DENIED, POLL_SECONDS, COLLECTOR_SESSIONS,
)  # fmt: skip
"""That our exporter has as well."""

PODS = _agent("local_pod_count")
POLICIES = _agent("networkpolicy_count")
EGRESS_RULES = _agent("egress_networkpolicy_rule_count")
INGRESS_RULES = _agent("ingress_networkpolicy_rule_count")
OVS_FLOWS = _agent("ovs_flow_count", "table_id", "table_name")
OVS_OPERATIONS = _agent("ovs_flow_ops_count", "operation")
OVS_ERRORS = _agent("ovs_flow_ops_error_count", "operation")
OVS_LATENCY = _agent("ovs_flow_ops_latency_milliseconds", "operation", observed=True)
OVS_METERS = _agent("ovs_meter_packet_dropped_count", "meter_id")

ENDPOINT_UPDATES = _proxy("total_endpoints_updates")
SERVICE_UPDATES = _proxy("total_services_updates")
ENDPOINTS = _proxy("total_endpoints_installed")
SERVICES = _proxy("total_services_installed")
PROXY_SYNC = _proxy("sync_proxy_rules_duration_seconds", observed=True)

GROUPS = ("network_policy", "address_group", "applied_to_group")
"""What the controller works out."""
QUEUES = {what: _controller(f"length_{what}_queue") for what in GROUPS}
PROCESSED = {what: _controller(f"{what}_processed") for what in GROUPS}
SYNC = {what: _controller(f"{what}_sync_duration_milliseconds", observed=True) for what in GROUPS}
CLUSTER_POLICY_STATUS = _controller("acnp_status_updates")
POLICY_STATUS = _controller("annp_status_updates")
POLICY_STATUS_BEFORE = _controller("anp_status_updates")
"""What it was called until Antrea 1.12."""


def series() -> Iterator[Series]:
    """Yield all of them."""
    for value in globals().values():
        if isinstance(value, Series):
            yield value
        elif isinstance(value, dict):
            yield from (each for each in value.values() if isinstance(each, Series))
