# ruff: noqa: E501  prose, and PromQL
"""The alerts that there are. Metrics of nodes come from the aggregator: it hears of all of them.

A counter that begins with a loss has no increase: Prometheus never saw it at 0. What is new since
the span began counts as a whole, therefore.
"""

from flowvis.aggregator.reporters import SKEW_S
from flowvis.runtime.dropped import PAGES
from tools.alerts.alert import WINDOW, Alert, Severity

CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING

LOSSES = sorted({str(one) for page in PAGES for one in page.dropped or () if one.is_loss})
DROPPED = f'flowvis_ledger_records_total{{what="dropped",reason=~"{"|".join(LOSSES)}"}}'

ENTRIES, LIMIT = (
    "flowvis_aggregator_node_conntrack_entries",
    "flowvis_aggregator_node_conntrack_limit",
)
FILL = f"max by (cluster, node) ({ENTRIES} / {LIMIT})"

AHEAD = "flowvis_aggregator_node_clock_ahead_seconds"
ENDS = "certificate_end_timestamp_seconds"
DAY_S = 86400
CERTIFICATE_DAYS = 30  # ours are renewed 90 days before their end
SILENT_S = 300  # ours say how they are every 30 s
ACKNOWLEDGED_S = 120  # usual are 70 to 100 s: when the flow has been written, and that is stored
BEHIND_S = 300  # commits take seconds
MINUTES_BEHIND_S, HOURS_BEHIND_S = 1800, 4 * 3600  # after a kill 15 minutes, and 2 h 10, are usual
AHEAD_S = 1800  # of a table that fills


def grown(metric: str, by: str) -> str:
    """Return PromQL for by how much a counter grew, where it did, the first loss included."""
    return (
        f"sum by ({by}) (increase({metric}[{WINDOW}])) > 0\n"
        f"or sum by ({by}) ({metric} unless {metric} offset {WINDOW}) > 0"
    )


ALERTS = (
    Alert(
        "FlowvisBooksUnbalanced",
        CRITICAL,
        "flowvis_ledger_imbalance_records != 0",
        "{{ $labels.instance }}: the books of {{ $labels.stage }} are wrong by {{ $value }} records",
        "Each stage of each daemon counts what it received, and what became of it. Here records are "
        "gone, or came twice, and no count says so: a defect of ours, and the only kind of loss that "
        "nothing else tells of.",
        (
            "`flowctl status` and the `books of ...` lines of the daemon's log: which stage, since when.",
            "Errors in the log of that time, and `quarantineDirectory`.",
        ),
        (
            (
                "Please report it with these. A restart begins new books; records that come after it are "
                "counted rightly."
            ),
        ),
        for_s=60,
    ),
    Alert(
        "FlowvisRecordsDropped",
        WARNING,
        grown(DROPPED, "cluster, namespace, pod, instance, stage, reason"),
        "{{ $labels.instance }}: {{ $labels.stage }} dropped {{ $value | humanize }} records: "
        "{{ $labels.reason }}",
        "Records are gone that somebody wanted. The alert's labels `stage` and `reason` say where and "
        "why; answers about that time say that they are incomplete.",
        (
            "[What each reason means](operating.md#the-books), and the log's line `records dropped`.",
            "`flowctl status`: which destination is behind, and why.",
        ),
        (
            (
                "By reason, as [operating](operating.md#the-books-name-a-loss) says: more room, or mend "
                "what takes nothing."
            ),
        ),
    ),
    Alert(
        "FlowvisAggregatorAbsent",
        CRITICAL,
        'absent(flowvis_build_info{daemon="flow-aggregator"})',
        "no flow-aggregator is scraped",
        "Prometheus has no flow-aggregator: it does not run, or Prometheus does not reach its status "
        "port. Exporters keep their records until they have no more room.",
        (
            "`kubectl -n flow-aggregator get pods`, and the log of the last one (`--previous`).",
            "Prometheus's page of targets: is there one, and with which error?",
        ),
        (
            "Start it, or mend the way from Prometheus to port 9739 ([network](security.md#network)).",
        ),
        for_s=300,
    ),
    Alert(
        "FlowvisExporterSilent",
        WARNING,
        "sum by (cluster, node) (flowvis_aggregator_node_sessions) == 0\n"
        "or min by (cluster, node) (flowvis_aggregator_node_silent_seconds)"
        f" > {SILENT_S}",
        "node {{ $labels.node }}: nothing comes from its exporter",
        "A node of the cluster has no session with the aggregator, or one in which nothing comes. What "
        "happens there is not recorded now; a flow-exporter that runs keeps it, and sends it later.",
        (
            "`flowctl nodes`: since when, and of which nodes. All at once: see the aggregator.",
            (
                "`kubectl -n flow-exporter get pods -o wide`, and the log of the node's Pod: it names the "
                "certificate, address, Service or limit at fault."
            ),
            "`flowvis_aggregator_server_refused_total` and `..._server_errors_total`, by reason.",
        ),
        (
            (
                "Follow [Nothing comes in](operating.md#nothing-comes-in). A node that is meant to have "
                "no exporter: silence the alert for it."
            ),
        ),
        for_s=300,
    ),
    Alert(
        "FlowvisExporterDisconnected",
        WARNING,
        "flowvis_exporter_client_connected == 0",
        "{{ $labels.instance }}: the exporter has no session with its collector",
        "As the exporter itself sees it; also where the collector is not flowvis's. Its records wait, as "
        "long as there is room.",
        (
            "Its log, which says why each attempt failed; `flowvis_exporter_client_lost_total` by reason.",
        ),
        ("Follow [Nothing comes in](operating.md#nothing-comes-in), from point 4.",),
        for_s=300,
    ),
    Alert(
        "FlowvisMessagesLost",
        WARNING,
        f"increase(flowvis_aggregator_ipfix_lost_records_total[{WINDOW}]) > 0",
        "{{ $labels.instance }}: {{ $value | humanize }} records never came, by their sequence numbers",
        "The sequence numbers of IPFIX have gaps: an exporter sent records that did not come. Over TLS "
        "that is a restarted exporter or a defect; over UDP what networks do.",
        (
            "`flowctl nodes`: the column of what was lost names the nodes.",
            (
                "Over UDP: `flowvis_aggregator_server_kernel_dropped_total` and `..._server_dropped_total`; "
                "what is in neither was lost on the way."
            ),
        ),
        (
            "Use TLS, where the exporter can; else see [Over UDP](operating.md#over-udp): buffers, rates.",
        ),
    ),
    Alert(
        "FlowvisConnectionsMissed",
        WARNING,
        f"increase(flowvis_exporter_table_ended_unobserved_total[{WINDOW}]) > 0\n"
        f"or increase(flowvis_exporter_table_unseen_total[{WINDOW}]) > 0",
        "{{ $labels.instance }}: of {{ $value | humanize }} connections the end, or all, was not seen",
        "Connections ended while no exporter ran there, or their events were lost: what they did last is in "
        "no record.",
        (
            "Was the exporter killed, or away for long? `kubectl describe` says so, and why.",
            "`flowvis_exporter_conntrack_lost_events_total`: the kernel had no room for events.",
        ),
        (
            (
                "[An exporter was killed](operating.md#an-exporter-was-killed), "
                "[events are lost](operating.md#events-are-lost)."
            ),
        ),
    ),
    Alert(
        "FlowvisClockSkew",
        WARNING,
        f"max by (cluster, node) ({AHEAD}) > {SKEW_S:g}\n"
        f"or min by (cluster, node) ({AHEAD}) < {-SKEW_S - 1:g}",
        "node {{ $labels.node }}: its clock is {{ $value }} s ahead of the aggregator's",
        "Pods are found by the times that records have, so a clock that is wrong gives flows to the Pods "
        "that had an address before or after. Below 0 the clock is behind, or messages come late.",
        (
            "`chronyc tracking` or `timedatectl` on the node, and on the aggregator's.",
            "All nodes alike: it is the aggregator's node. One, and below 0: its network may be slow.",
        ),
        ("Let the node's time service run and reach its servers.",),
        for_s=300,
    ),
    Alert(
        "FlowvisConntrackFilling",
        WARNING,
        f"{FILL} > 0.8",
        "node {{ $labels.node }}: conntrack is {{ $value | humanizePercentage }} full",
        "The kernel's table of connections has little room left. When it is full, packets of new "
        "connections are dropped (`nf_conntrack: table full` in dmesg).",
        (
            (
                "Who opens them: `flowctl top --by src.workload --measure connections`; the console's "
                "page of the node."
            ),
            "Many unanswered: a scan, or a SYN flood (`flowctl flows` with state SYN_SENT or SYN_RECV).",
        ),
        (
            (
                "Stop who floods, by a NetworkPolicy; or raise `net.netfilter.nf_conntrack_max` and "
                "`nf_conntrack_buckets` (each connection takes some 320 bytes of the kernel's memory); or "
                "lower `nf_conntrack_tcp_timeout_established`, which is five days."
            ),
        ),
        for_s=120,
    ),
    Alert(
        "FlowvisConntrackFull",
        CRITICAL,
        f"{FILL} > 0.95",
        "node {{ $labels.node }}: conntrack is {{ $value | humanizePercentage }} full",
        "As FlowvisConntrackFilling, but now: new connections of and to this node fail, or are about to.",
        ("As there; `dmesg` of the node says whether it drops already.",),
        ("As there. `conntrack -D` of the flood's source gives room at once.",),
        for_s=30,
    ),
    Alert(
        "FlowvisConntrackRising",
        WARNING,
        f"max by (cluster, node) (predict_linear({ENTRIES}[{WINDOW}], {AHEAD_S}) / {LIMIT}) > 1\n"
        f"and {FILL} > 0.2",
        "node {{ $labels.node }}: at this pace conntrack is full within half an hour",
        "Connections grow so fast that the table is full in half an hour: a SYN flood, a scan, a client "
        "that never closes, a burst of load.",
        (
            "As for FlowvisConntrackFilling: who opens them, and are they answered?",
            "Denied connections do not stay in the table; unanswered ones do, for a minute or two.",
        ),
        ("As for FlowvisConntrackFilling, while there is time.",),
        for_s=60,
        window_s=300,
    ),
    Alert(
        "FlowvisCertificateEnding",
        WARNING,
        f"(flowvis_aggregator_{ENDS} or flowvis_exporter_{ENDS}) - time() < {CERTIFICATE_DAYS * DAY_S}",
        "{{ $labels.instance }}: its certificate ends in {{ $value | humanizeDuration }}",
        "A daemon's certificate is valid for less than a month. Those that flowvis issues are renewed three "
        "months before, so something is in the way; after the end no session begins.",
        (
            "Whose is it: flow-aggregator's own (`certificates.issue`), or yours, by cert-manager?",
            (
                "The aggregator's log and `flowvis_aggregator_certificates_failures_total`: may it write its "
                "Secret and ConfigMap?"
            ),
            "An exporter's: does the mounted Secret change, and does its log say that it took it?",
        ),
        (
            (
                "Mend what renews it, or issue one: `flowctl certs`. Daemons take changed files without a "
                "restart."
            ),
        ),
    ),
    Alert(
        "FlowvisDestinationDown",
        CRITICAL,
        "flowvis_aggregator_destination_healthy == 0",
        "{{ $labels.instance }}: {{ $labels.destination }} takes no records",
        "A destination (the store, a collector, Kafka, S3) cannot be reached, is full, or refuses what it is "
        "sent. Records wait, in memory, in the spool and at the exporters; then the oldest are lost.",
        (
            (
                "`flowctl status`: its own words. Unreachable: its Pod, its Service, policies. Refused: user, "
                "password, schema. No space: its volume."
            ),
        ),
        (
            (
                "Mend it there; the aggregator goes on by itself within half a minute. For longer outages: "
                "[what destinations hold](delivery.md#what-destinations-hold)."
            ),
        ),
        for_s=120,
    ),
    Alert(
        "FlowvisDestinationBehind",
        WARNING,
        f"flowvis_aggregator_destination_behind_seconds > {BEHIND_S}",
        "{{ $labels.instance }}: {{ $labels.destination }} is {{ $value | humanizeDuration }} behind",
        "It takes records, but not as fast as they come, or has much to make up for after an outage.",
        (
            "Does `flowvis_aggregator_destination_behind_records` fall? Then it catches up.",
            "The store's load and disk; `..._clickhouse_commit_seconds_total` by `..._commits_total`.",
        ),
        ("Give the store more; fewer, larger commits (`clickHouse.commitInterval`).",),
        for_s=300,
    ),
    Alert(
        "FlowvisSpoolFilling",
        WARNING,
        "flowvis_aggregator_clickhouse_spooled_bytes\n"
        "/ (flowvis_aggregator_clickhouse_spool_limit_bytes > 0) > 0.5",
        "{{ $labels.instance }}: the spool is {{ $value | humanizePercentage }} full",
        "The store has been away for long. When the spool is full, its oldest records are lost "
        "(`spool-full`).",
        ("As for FlowvisDestinationDown.", "How fast it fills says how much time is left."),
        ("Mend the store; or raise `clickHouse.spool.maxBytes` (and the volume).",),
        for_s=60,
    ),
    Alert(
        "FlowvisVolumeFilling",
        WARNING,
        "kubelet_volume_stats_available_bytes"
        '{namespace=~"flow-aggregator|flow-visibility"}\n'
        "/ kubelet_volume_stats_capacity_bytes < 0.1",
        "{{ $labels.namespace }}/{{ $labels.persistentvolumeclaim }}: "
        "{{ $value | humanizePercentage }} of the volume is left",
        "The volume of the store (or of spool, or checkpoints) is nearly full. A full store takes nothing "
        "more.",
        (
            "`SELECT table, formatReadableSize(sum(bytes_on_disk)) FROM system.parts GROUP BY table`.",
        ),
        ("Keep records for less long (`clickHouse.ttl`), or enlarge the claim.",),
        for_s=300,
        foreign=("kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"),
    ),
    Alert(
        "FlowvisMemoryNearLimit",
        WARNING,
        "process_resident_memory_bytes\n"
        "/ (flowvis_aggregator_memory_limit_bytes or flowvis_exporter_memory_limit_bytes) > 0.9",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of its memory is taken",
        "Tables and queues keep to their shares, so a daemon should not come here. Beyond its limit the kernel "
        "kills it.",
        (
            "`flowctl status`: which share is full (`flowvis_aggregator_memory_share_bytes`).",
            "Other things in its cgroup: an embedded store's queries.",
        ),
        (
            (
                "Raise the container's limit ([memory](operating.md#memory)). If no share is full, please "
                "report it."
            ),
        ),
        for_s=300,
    ),
    Alert(
        "FlowvisRollupsBehind",
        WARNING,
        "flowvis_aggregator_clickhouse_rollups_minutes_behind_seconds"
        f" > {MINUTES_BEHIND_S}\n"
        f"or flowvis_aggregator_clickhouse_rollups_hours_behind_seconds > {HOURS_BEHIND_S}",
        "{{ $labels.instance }}: roll-ups are {{ $value | humanizeDuration }} behind",
        "Answers stay exact, but take longer: what is not rolled up is read from records. Past the records' "
        "`clickHouse.ttl` it would be missing.",
        (
            (
                "`flowvis_aggregator_clickhouse_rollups_failures_total`, and `cannot roll up records` in the "
                "log."
            ),
            "`..._rollups_waiting_records`: does it fall? Then it makes up for an upgrade or an outage.",
        ),
        ("[Roll-ups are behind](operating.md#roll-ups-are-behind).",),
        for_s=600,
    ),
    Alert(
        "FlowvisUnacknowledged",
        WARNING,
        "sum by (cluster, node) (flowvis_aggregator_node_waiting) > 0\n"
        "unless sum by (cluster, node)"
        f" (increase(flowvis_aggregator_node_acknowledged_total[{WINDOW}])) > 0",
        "node {{ $labels.node }}: {{ $value | humanize }} records wait to be stored, and none is",
        "Records came from the node, and for ten minutes none of its records became durable. Its exporter "
        "keeps them, and has room for so long only.",
        (
            "Destinations that are required and behind: `flowctl status`.",
            "`flowctl nodes`: one node, or all?",
        ),
        (
            (
                "Mend the destination. If none is behind, please report it; a restart of the aggregator has "
                "exporters send them again."
            ),
        ),
        for_s=300,
        least_s=ACKNOWLEDGED_S,
    ),
    Alert(
        "FlowvisUnprotected",
        WARNING,
        f"increase(flowvis_exporter_unacknowledged_unprotected_total[{WINDOW}]) > 0",
        "{{ $labels.instance }}: a kill would lose {{ $value | humanize }} records",
        "The exporter could not keep records on the node's disk until they are acknowledged. They are sent "
        "all the same.",
        ("Its log: a full disk, or more than `state.maxBytes`.",),
        ("Room on the node's disk, or raise `state.maxBytes`.",),
    ),
    Alert(
        "FlowvisConfigurationRefused",
        WARNING,
        "(flowvis_aggregator_config_problems or flowvis_exporter_config_problems) > 0",
        "{{ $labels.instance }}: its configuration is not taken",
        "The file was changed to something that is not valid. The last good one stays in force; a restart "
        "would fail.",
        ("The log, or `flowctl status`: each problem with its key.",),
        ("Correct the file. `flow-aggregator check` and `flow-exporter check` tell before.",),
        for_s=120,
    ),
    Alert(
        "FlowvisNamesStale",
        WARNING,
        "(flowvis_aggregator_kubernetes_stale_seconds or flowvis_exporter_kubernetes_stale_seconds) > 300",
        "{{ $labels.instance }}: Kubernetes's objects are not followed",
        "A daemon has not been able to watch a kind of object. It goes on with what it knew: new Pods have no "
        "names.",
        ("`flowctl status`: which kind, and what the API server answered.",),
        ("[Names are missing or old](operating.md#names-are-missing-or-old).",),
        for_s=120,
    ),
)
