# ruff: noqa: E501  prose, and PromQL
"""The alerts that there are. Metrics of nodes come from the aggregator: it hears of all of them.

A counter that begins with a loss has no increase: Prometheus never saw it at 0. What is new since
the span began counts as a whole, therefore, where Prometheus knew the daemon before, or it is new
itself. A scrape that fails ends all series for a moment: what was before is the last sample of a
span, and never that of one moment.
"""

from flowvis.aggregator.reporters import SKEW_S
from flowvis.runtime.dropped import PAGES
from tools.alerts.alert import Alert, Each, Severity, age, span

CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING

DAEMON = "cluster, namespace, pod, instance"
NODE = "cluster, node"

LOSSES = sorted({str(one) for page in PAGES for one in page.dropped or () if one.is_loss})
DROPPED = f'flowvis_ledger_records_total{{what="dropped",reason=~"{"|".join(LOSSES)}"}}'

AGGREGATOR = 'flowvis_build_info{daemon="flow-aggregator"}'

ENTRIES, LIMIT = (
    "flowvis_aggregator_node_conntrack_entries",
    "flowvis_aggregator_node_conntrack_limit",
)
FILL = f"max by ({NODE}) ({ENTRIES} / {LIMIT})"

SESSIONS = "flowvis_aggregator_node_sessions"
AHEAD = "flowvis_aggregator_node_clock_ahead_seconds"
ENDS = "certificate_end_timestamp_seconds"
DISK_FREE, DISK = (
    f"flowvis_aggregator_clickhouse_store_disk_{what}bytes" for what in ("free_", "")
)
DAY_S = 86400
CERTIFICATE_DAYS = 14  # ours are renewed 90 days before their end, cert-manager's 30
MINUTES_BEHIND_S, HOURS_BEHIND_S = 1800, 4 * 3600  # after a kill 15 minutes, and 2 h 10, are usual

LATELY = span(600)
OUTAGE, STEP = span(6 * 3600), span(300)  # of an aggregator, over which nodes are known, so often
YOUNG = age(1200)
AWAY = span(240, least_s=4)  # sessions begin anew within seconds
SILENT = age(300, least_s=60)  # ours say how they are every 30 s
TEMPLATES = age(900, least_s=900)  # over UDP they come again: ours each minute, Antrea's each ten
BEHIND = age(300, least_s=4)  # commits take seconds
STALE = age(300, least_s=3)
ACKNOWLEDGED = span(
    600, least_s=120
)  # usual are 70 to 100 s: when the flow has been written, and that is stored


def before(metric: str, length: str) -> str:
    """Return PromQL for what a metric was before a span, if that is no longer ago than the span."""
    return f"last_over_time({metric}[{length}] offset {length})"


def grown(metric: str, by: str) -> str:
    """Return PromQL for by how much a counter grew, where it did, the first loss included."""
    return (
        f"sum by ({by}) (increase({metric}[{LATELY}])) > 0\n"
        f"or sum by ({by}) (\n"
        f"  ({metric} unless {before(metric, LATELY)})\n"
        f"  and on ({DAEMON}) (\n"
        f"    group by ({DAEMON}) ({before('flowvis_build_info', LATELY)})\n"
        f"    or group by ({DAEMON}) (process_start_time_seconds > time() - {YOUNG})\n"
        "  )\n"
        ") > 0"
    )


def told(metric: str) -> str:
    """Return PromQL for by how much what nodes' exporters count grew, as an aggregator tells it.

    Who tells it may be another one since, whose series begin with what an exporter has by then: a
    node is compared with what anybody told of it before. Less than that is another exporter's.
    """
    known = f"last_over_time((max by ({NODE}) ({metric}))[{OUTAGE}:{STEP}] offset {LATELY})"
    return (
        f"sum by ({NODE}) (increase({metric}[{LATELY}])) > 0\n"
        f"or max by ({NODE}) ({metric}) - {known} > 0\n"
        f"or max by ({NODE}) ({metric}) < {known} > 0"
    )


def without(metric: str, by: str) -> str:
    """Return PromQL for where a number was 0 all the time, and was known before.

    So nodes that are restarted one after the other never count, however many they are.
    """
    return (
        f"sum by ({by}) (max_over_time({metric}[{AWAY}])) == 0\n"
        f"and sum by ({by}) ({before(metric, AWAY)}) >= 0"
    )


ALERTS = (
    Alert(
        "FlowvisBooksUnbalanced",
        CRITICAL,
        f"max by ({DAEMON}, stage) (flowvis_ledger_imbalance_records) != 0",
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
        each=Each(
            "instance",
            "{{ $labels.stage }} of {{ $value }} daemons: the books are wrong",
            ("cluster", "stage"),
        ),
        for_s=60,
        untried="It is a defect of ours; the lab fails where it finds books that do not balance.",
    ),
    Alert(
        "FlowvisRecordsDropped",
        WARNING,
        grown(DROPPED, f"{DAEMON}, stage, reason"),
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
        each=Each(
            "instance",
            "{{ $labels.stage }} of {{ $value }} daemons dropped records: {{ $labels.reason }}",
            ("cluster", "stage", "reason"),
        ),
    ),
    Alert(
        "FlowvisAggregatorAbsent",
        CRITICAL,
        "(\n"
        f"  group by (cluster) (max_over_time({AGGREGATOR}[{span(7 * DAY_S)}]))\n"
        "  or group by (cluster) (flowvis_build_info)\n"
        ")\n"
        f"unless on (cluster) group by (cluster) ({AGGREGATOR})\n"
        f"or on () absent({AGGREGATOR})",
        "no flow-aggregator is scraped",
        "Prometheus has no flow-aggregator: it does not run, or Prometheus does not reach its status "
        "port. Exporters keep their records until they have no more room.",
        (
            "`kubectl -n flow-aggregator get pods`, and the log of the last one (`--previous`).",
            "Prometheus's page of targets: is there one, and with which error?",
        ),
        (
            "Start it, or mend the way from Prometheus to port 9739 ([network](security.md#network)).",
            "Where flowvis was removed from one of several clusters it ends after a week.",
        ),
        for_s=300,
    ),
    Alert(
        "FlowvisRestarting",
        WARNING,
        f"sum by ({DAEMON}) (changes(process_start_time_seconds[{span(1800)}])) > 2\n"
        f"and on ({DAEMON}) group by ({DAEMON}) (max_over_time(flowvis_build_info[{span(1800)}]))",
        "{{ $labels.instance }}: began anew {{ $value }} times within half an hour",
        "A daemon ends again and again. What it does between is recorded, and exporters and aggregator make good "
        "what they can; but each end costs minutes of work, and may cost the ends of connections.",
        (
            "`kubectl describe` of its Pod: killed for its memory, by its probes, or with an exit code?",
            "`kubectl logs --previous`: what it said last.",
        ),
        (
            "Memory: raise its limit ([memory](operating.md#memory)). Probes: give it more CPU. Else please report it.",
        ),
        each=Each("instance", "{{ $value }} daemons begin anew again and again"),
    ),
    Alert(
        "FlowvisExporterSilent",
        WARNING,
        f"{without(SESSIONS, NODE)}\n"
        f"or min by ({NODE}) (flowvis_aggregator_node_silent_seconds) > {SILENT}\n"
        f"and sum by ({NODE}) (flowvis_aggregator_node_acknowledged_total) >= 0\n"
        f"or min by ({NODE}) (flowvis_aggregator_node_silent_seconds) > {TEMPLATES}\n"
        "and on (cluster) group by (cluster) (flowvis_aggregator_server_kernel_dropped_total)",
        "node {{ $labels.node }}: nothing comes from its exporter",
        "A node of the cluster has no session with the aggregator, or one in which nothing comes, not even what "
        "a flow-exporter says each 30 s, or over UDP the templates that come again (of others silence over TLS is "
        "not judged, as they say nothing of an idle node). What happens there is not recorded now; a flow-exporter "
        "that runs keeps it, and sends it later.",
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
        each=Each("node", "{{ $value }} nodes: nothing comes from their exporters"),
        for_s=60,
    ),
    Alert(
        "FlowvisExporterDisconnected",
        WARNING,
        without("flowvis_exporter_client_connected", DAEMON),
        "{{ $labels.instance }}: the exporter has no session with its collector",
        "As the exporter itself sees it; also where the collector is not flowvis's. Its records wait, as "
        "long as there is room.",
        (
            "Its log, which says why each attempt failed; `flowvis_exporter_client_lost_total` by reason.",
        ),
        ("Follow [Nothing comes in](operating.md#nothing-comes-in), from point 4.",),
        each=Each("instance", "{{ $value }} exporters have no session with their collector"),
        for_s=60,
    ),
    Alert(
        "FlowvisMessagesLost",
        WARNING,
        f"sum by ({DAEMON}) (increase(flowvis_aggregator_ipfix_lost_records_total[{LATELY}])) > 0",
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
        untried="The lab's sessions are TLS's, and over these nothing is lost, whatever a fault does to them.",
    ),
    Alert(
        "FlowvisNodeDropped",
        WARNING,
        f"(\n{told('flowvis_aggregator_node_dropped')}\n)\n"
        'unless on (cluster) group by (cluster) (flowvis_build_info{daemon="flow-exporter"})',
        "node {{ $labels.node }}: its exporter dropped {{ $value | humanize }} records",
        "As FlowvisRecordsDropped, of an exporter that is not scraped, as it tells the aggregator.",
        (
            "The exporter's log: `records dropped`, with `stage`, `reason` and `total`.",
            "Its metrics, on its node: [how](security.md#network).",
        ),
        ("As for FlowvisRecordsDropped.",),
        each=Each("node", "the exporters of {{ $value }} nodes dropped records"),
        untried="In the lab exporters are scraped.",
    ),
    Alert(
        "FlowvisConnectionsMissed",
        WARNING,
        told("flowvis_aggregator_node_missed"),
        "node {{ $labels.node }}: of {{ $value | humanize }} connections the end, or all, was not seen",
        "Connections ended while no exporter ran there, or their events were lost: what they did last is in "
        "no record.",
        (
            "`flowctl nodes` says which of the two.",
            "Was the exporter killed, or away for long? `kubectl describe` says so, and why.",
            "`flowvis_exporter_conntrack_lost_events_total`: the kernel had no room for events.",
        ),
        (
            (
                "[An exporter was killed](operating.md#an-exporter-was-killed), "
                "[events are lost](operating.md#events-are-lost)."
            ),
        ),
        each=Each(
            "node", "on {{ $value }} nodes the ends of connections, or all of some, were not seen"
        ),
    ),
    Alert(
        "FlowvisClockSkew",
        WARNING,
        f"max by ({NODE}) ({AHEAD}) > {SKEW_S:g}\nor min by ({NODE}) ({AHEAD}) < {-SKEW_S - 1:g}",
        "node {{ $labels.node }}: its clock is {{ $value | humanize }} s ahead of the aggregator's",
        "Pods are found by the times that records have, so a clock that is wrong gives flows to the Pods "
        "that had an address before or after. Below 0 the clock is behind, or messages come late.",
        (
            "`chronyc tracking` or `timedatectl` on the node, and on the aggregator's.",
            "All nodes alike: it is the aggregator's node. One, and below 0: its network may be slow.",
        ),
        ("Let the node's time service run and reach its servers.",),
        each=Each(
            "node",
            "the clocks of {{ $value }} nodes are not the aggregator's: look at its own first",
        ),
        for_s=120,
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
                "Whose connections these are: `flowctl nodes NODE`, or the console's page of the node. Where "
                "exporters are scraped, `topk(5, flowvis_exporter_occupant_entries)` over time. The end "
                "`source` opened them, `destination` is called by others."
            ),
            (
                "How many of them nobody answered, there too: most of a workload's are a scan, a SYN flood, or a "
                "server that is gone. To whom: `flowctl top --by dst.ip --measure unanswered`."
            ),
            "Many that are answered: a client that does not close, or load that has grown; `(node)` is the node's own.",
        ),
        (
            (
                "Stop who floods, by a NetworkPolicy on the workload that is named; or raise `net.netfilter.nf_conntrack_max` and "
                "`nf_conntrack_buckets` (each connection takes some 320 bytes of the kernel's memory); or "
                "lower `nf_conntrack_tcp_timeout_established`, which is five days."
            ),
        ),
        each=Each("node", "conntrack is more than 80 % full on {{ $value }} nodes"),
        for_s=60,
    ),
    Alert(
        "FlowvisConntrackFull",
        CRITICAL,
        f"{FILL} > 0.95",
        "node {{ $labels.node }}: conntrack is {{ $value | humanizePercentage }} full",
        "As FlowvisConntrackFilling, but now: new connections of and to this node fail, or are about to.",
        ("As there; `dmesg` of the node says whether it drops already.",),
        ("As there. `conntrack -D` of the flood's source gives room at once.",),
        each=Each("node", "conntrack is more than 95 % full on {{ $value }} nodes"),
        for_s=30,
    ),
    Alert(
        "FlowvisConntrackRising",
        WARNING,
        f"max by ({NODE}) (predict_linear({ENTRIES}[{span(300)}], {age(1800)}) / {LIMIT}) > 1\n"
        f"and {FILL} > 0.2",
        "node {{ $labels.node }}: at this pace conntrack is full within half an hour",
        "Connections grow so fast that the table is full in half an hour: a SYN flood, a scan, a client "
        "that never closes, a burst of load.",
        (
            "As for FlowvisConntrackFilling: whose are they, and are they answered?",
            "Denied connections do not stay in the table; unanswered ones do, for a minute or two.",
        ),
        ("As for FlowvisConntrackFilling, while there is time.",),
        each=Each(
            "node", "at this pace conntrack is full within half an hour on {{ $value }} nodes"
        ),
        for_s=60,
    ),
    Alert(
        "FlowvisCertificateEnding",
        WARNING,
        f"min by ({DAEMON}) (flowvis_aggregator_{ENDS} or flowvis_exporter_{ENDS}) - time()"
        f" < {CERTIFICATE_DAYS * DAY_S}",
        "{{ $labels.instance }}: its certificate ends in {{ $value | humanizeDuration }}",
        "A daemon's certificate is valid for less than two weeks. Those that flowvis issues are renewed three "
        "months before, so something is in the way; after the end no session begins.",
        (
            "Whose is it: flow-aggregator's own (`certificates.issue`), or yours, by cert-manager?",
            (
                "The aggregator's log and `flowvis_aggregator_certificates_failures_total`: may it write its "
                "Secret and ConfigMap?"
            ),
            "An exporter's: does its Secret change (`flow-aggregator-client-tls`, or the one that you mount), and does its log say that it took it?",
        ),
        (
            (
                "Mend what renews it, or issue one: `flowctl certs`. Daemons take changed files without a "
                "restart."
            ),
        ),
        each=Each("instance", "the certificates of {{ $value }} daemons end within two weeks"),
    ),
    Alert(
        "FlowvisDestinationDown",
        CRITICAL,
        f"min by ({DAEMON}, destination) (flowvis_aggregator_destination_healthy) == 0",
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
        for_s=180,
    ),
    Alert(
        "FlowvisDestinationBehind",
        WARNING,
        f"max by ({DAEMON}, destination) (flowvis_aggregator_destination_behind_seconds) > {BEHIND}",
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
        f"max by ({DAEMON}) (\n"
        "  flowvis_aggregator_clickhouse_spooled_bytes\n"
        "  / (flowvis_aggregator_clickhouse_spool_limit_bytes > 0)\n"
        ") > 0.5",
        "{{ $labels.instance }}: the spool is {{ $value | humanizePercentage }} full",
        "The store has been away for long. When the spool is full, its oldest records are lost "
        "(`spool-full`).",
        ("As for FlowvisDestinationDown.", "How fast it fills says how much time is left."),
        ("Mend the store; or raise `clickHouse.spool.maxBytes` (and the volume).",),
        for_s=60,
        untried="A spool takes at least 32 MiB; runs of the lab make less.",
    ),
    Alert(
        "FlowvisSpoolFails",
        WARNING,
        f"sum by ({DAEMON}) (increase(flowvis_aggregator_clickhouse_spool_failures_total[{LATELY}])) > 0",
        "{{ $labels.instance }}: the spool cannot be written to",
        "The store is away, and the disk for what waits for it is full, or takes nothing. Records stay in memory "
        "and at the exporters, as long as there is room.",
        (
            "The aggregator's log: `cannot spool`, with the system's words.",
            "Its volume, and who else uses it.",
        ),
        ("Mend the store first; a spool's volume has more room than `clickHouse.spool.maxBytes`.",),
    ),
    Alert(
        "FlowvisVolumeFilling",
        WARNING,
        f"max by ({DAEMON}) ({DISK_FREE} / {DISK}) < 0.05",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the store's disk is free",
        "The fullest disk of the store is nearly full, and a full store takes nothing more. The monitor "
        "(`clickHouse.monitor`) drops the oldest partitions long before, so it is off, is too slow for what "
        "comes, or something else fills the disk.",
        (
            "`flowctl status`: what takes the room, and what the monitor says.",
            "`flowvis_aggregator_clickhouse_store_failures_total`: the monitor cannot look, or drop.",
            (
                "What else is on the volume: other databases (`system.parts`), the server's own logs "
                "([how to see them](operating.md#the-stores-disk-fills))."
            ),
        ),
        (
            (
                "Keep records for less long (`clickHouse.ttl`), let the monitor drop earlier "
                "(`clickHouse.monitor.threshold`), or enlarge the claim."
            ),
        ),
        for_s=300,
        untried="The monitor keeps a disk from being so full, and looks once a minute.",
    ),
    Alert(
        "FlowvisStoreShort",
        CRITICAL,
        f"max by ({DAEMON}) (flowvis_aggregator_clickhouse_store_short_bytes) > 0",
        "{{ $labels.instance }}: {{ $value | humanize1024 }}B of the store have to go, and cannot",
        "The disk is too full, and the monitor has nothing left that it may drop: all is of the newest hour, or "
        "others fill the disk. When it is full, records are lost.",
        ("As for FlowvisVolumeFilling.",),
        (
            "Enlarge the claim, or free what others take, now. A disk has to hold more than an hour of records.",
        ),
        for_s=300,
        untried="The monitor looks once a minute.",
    ),
    Alert(
        "FlowvisNewestDropped",
        WARNING,
        f"sum by ({DAEMON}) (increase(flowvis_aggregator_clickhouse_store_newest_records_total[{LATELY}])) > 0",
        "{{ $labels.instance }}: {{ $value | humanize }} records of the last hour were given up for room",
        "The disk does not hold an hour of records, so the monitor dropped some of the last one. What is missing "
        "is in no roll-up either.",
        ("As for FlowvisVolumeFilling.",),
        ("Enlarge the claim, or have exporters report less (`flowExporter.protocolFilter`).",),
        untried="The monitor looks once a minute.",
    ),
    Alert(
        "FlowvisMemoryNearLimit",
        WARNING,
        f"max by ({DAEMON}) (\n"
        "  process_resident_memory_bytes\n"
        "  / (flowvis_aggregator_memory_limit_bytes or flowvis_exporter_memory_limit_bytes)\n"
        ") > 0.9",
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
        each=Each("instance", "{{ $value }} daemons are near their memory's limit"),
        for_s=300,
    ),
    Alert(
        "FlowvisRollupsBehind",
        WARNING,
        f"max by ({DAEMON}) (flowvis_aggregator_clickhouse_rollups_minutes_behind_seconds) > {MINUTES_BEHIND_S}\n"
        f"or max by ({DAEMON}) (flowvis_aggregator_clickhouse_rollups_hours_behind_seconds) > {HOURS_BEHIND_S}",
        "{{ $labels.instance }}: roll-ups are {{ $value | humanizeDuration }} behind",
        "Answers stay exact, but take longer: what is not rolled up is read from records. Past the records' "
        "`clickHouse.ttl` it is missing for good, and answers say so.",
        (
            (
                "`flowvis_aggregator_clickhouse_rollups_failures_total`, and `cannot roll up records` in the "
                "log."
            ),
            "`..._rollups_waiting_records`: does it fall? Then it makes up for an upgrade or an outage.",
        ),
        ("[Roll-ups are behind](operating.md#roll-ups-are-behind).",),
        for_s=600,
        untried="They would have to fail for half an hour; the lab compares roll-ups with records in every run.",
    ),
    Alert(
        "FlowvisUnacknowledged",
        WARNING,
        f"sum by ({NODE}) (min_over_time(flowvis_aggregator_node_waiting[{ACKNOWLEDGED}])) > 0\n"
        f"and sum by ({NODE}) ({before('flowvis_aggregator_node_waiting', ACKNOWLEDGED)}) > 0\n"
        f"unless sum by ({NODE}) (increase(flowvis_aggregator_node_acknowledged_total[{ACKNOWLEDGED}])) > 0",
        "node {{ $labels.node }}: {{ $value | humanize }} records wait to be stored, and none is",
        "Records came from the node, and for ten minutes none of its records became durable. Its exporter "
        "keeps them, and has room for so long only.",
        (
            "Destinations that are required and behind: `flowctl status`.",
            "`flowctl nodes`: one node, or all?",
            "`s3Uploader.required` with an `uploadInterval` of ten minutes or more: nothing is durable before.",
        ),
        (
            (
                "Mend the destination. If none is behind, please report it; a restart of the aggregator has "
                "exporters send them again."
            ),
        ),
        each=Each("node", "records of {{ $value }} nodes wait to be stored, and none is"),
        for_s=60,
        untried="Records wait for up to 100 s in good order, so it takes a store that is away for longer than "
        "runs of the lab are.",
    ),
    Alert(
        "FlowvisUnprotected",
        WARNING,
        f"sum by ({DAEMON}) (increase(flowvis_exporter_unacknowledged_unprotected_total[{LATELY}])) > 0",
        "{{ $labels.instance }}: a kill would lose {{ $value | humanize }} records",
        "The exporter could not keep records on the node's disk until they are acknowledged. They are sent "
        "all the same.",
        ("Its log: a full disk, or more than `state.maxBytes`.",),
        ("Room on the node's disk, or raise `state.maxBytes`.",),
        each=Each("instance", "a kill of any of {{ $value }} exporters would lose records"),
    ),
    Alert(
        "FlowvisKernelTellsLess",
        WARNING,
        f"max by ({DAEMON}) (flowvis_exporter_conntrack_off) > 0",
        "{{ $labels.instance }}: of counters, start times and events of connections, {{ $value }} are off",
        "Somebody turned sysctls of the node off, and the exporter may not set them. Of connections that begin now "
        "bytes or starts are missing, or those that are shorter than a poll are missed without a number.",
        (
            "The exporter's log: which of `net.netfilter.nf_conntrack_acct`, `_timestamp` and `_events`.",
        ),
        (
            "Set them to 1, on the node's disk too ([sysctls](deploying.md#namespaces-and-rights)), and find who sets them: `sysctl --system`, a tuner.",
        ),
        each=Each("instance", "the kernels of {{ $value }} nodes tell less of connections"),
        for_s=60,
        untried="In the lab exporters may set them, and do.",
    ),
    Alert(
        "FlowvisConfigurationRefused",
        WARNING,
        f"max by ({DAEMON}) (flowvis_aggregator_config_problems or flowvis_exporter_config_problems) > 0",
        "{{ $labels.instance }}: its configuration is not taken",
        "The file was changed to something that is not valid. The last good one stays in force; a restart "
        "would fail.",
        ("The log, or `flowctl status`: each problem with its key.",),
        (
            "Correct the file. `flow-aggregator check --config FILE` and `flow-exporter check --config FILE` tell before.",
        ),
        each=Each("instance", "{{ $value }} daemons do not take their configuration"),
        for_s=60,
    ),
    Alert(
        "FlowvisNamesStale",
        WARNING,
        f"max by ({DAEMON}) (\n"
        "  flowvis_aggregator_kubernetes_stale_seconds or flowvis_exporter_kubernetes_stale_seconds\n"
        f") > {STALE}",
        "{{ $labels.instance }}: Kubernetes's objects are not followed",
        "A daemon has not been able to watch a kind of object. It goes on with what it knew: new Pods have no "
        "names.",
        ("`flowctl status`: which kind, and what the API server answered.",),
        ("[Names are missing or old](operating.md#names-are-missing-or-old).",),
        each=Each(
            "instance",
            "{{ $value }} daemons do not follow Kubernetes's objects: look at the API server",
        ),
        for_s=120,
    ),
    Alert(
        "FlowvisFlowMetricsFull",
        WARNING,
        f"max by ({DAEMON}) (\n"
        f"  increase(flowvis_aggregator_flow_metrics_other_records_total[{LATELY}])\n"
        f"  / increase(flowvis_aggregator_flow_metrics_records_total[{LATELY}])\n"
        ") > 0.2",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the records are in no series of their own",
        "The metrics out of flows (`flow_metrics`) have as many time series as they may: what is new is summed as "
        "`(other)`. Sums by type and verdict are exact still; the store has all names.",
        (
            "`flowvis_aggregator_flow_metrics_series` and `..._series_limit`; who came: `flowctl top --by src.workload`.",
        ),
        (
            "Raise `flowMetrics.maxSeries`, as far as Prometheus has room, or lower `flowMetrics.idleTimeout`.",
        ),
        for_s=900,
        optional=True,
        untried="They are off by default, and the lab has few workloads.",
    ),
)
