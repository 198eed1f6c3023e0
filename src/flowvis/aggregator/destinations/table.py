"""The destinations that there are: a section of the settings, and a row, for each."""

from dataclasses import dataclass
from typing import Any

from flowvis.aggregator.destinations import (
    clickhouse,
    flow_collector,
    flow_log,
    flow_metrics,
    kafka,
    s3,
)
from flowvis.aggregator.destinations.clickhouse import ClickHouse
from flowvis.aggregator.destinations.flow_collector import (
    FlowCollector,
    FurtherCollector,
    repeated_names,
)
from flowvis.aggregator.destinations.flow_log import FlowLogger
from flowvis.aggregator.destinations.flow_metrics import FlowMetricsSettings
from flowvis.aggregator.destinations.kafka import Kafka
from flowvis.aggregator.destinations.kind import Kind, Problems
from flowvis.aggregator.destinations.s3 import S3Uploader
from flowvis.runtime.settings import option, section


@dataclass(frozen=True)
class DestinationSettings:
    """Where aggregated records go."""

    flow_collector: FlowCollector = section(
        FlowCollector, doc="An external IPFIX collector", live=True
    )
    flow_collectors: tuple[FurtherCollector, ...] = option(
        (), doc="Further external collectors", live=True
    )
    click_house: ClickHouse = section(ClickHouse, doc="The store", live=True)
    s3_uploader: S3Uploader = section(S3Uploader, doc="Upload to S3", live=True)
    kafka: Kafka = section(Kafka, doc="Messages in a topic of Kafka", live=True)
    flow_logger: FlowLogger = section(FlowLogger, doc="Flows in a log file", live=True)
    flow_metrics: FlowMetricsSettings = section(
        FlowMetricsSettings, doc="Sums of flows as metrics for Prometheus", live=True
    )

    @property
    def with_uids(self) -> bool:
        """Whether anybody is sent the UIDs of Kubernetes objects."""
        collectors = (self.flow_collector, *self.flow_collectors)
        return any(each.enable and each.include_k8s_uids for each in collectors)

    def check(self) -> Problems:
        """Yield what does not go together among destinations."""
        yield from repeated_names(self.flow_collectors)


KINDS: tuple[Kind[Any], ...] = (
    clickhouse.KIND,
    flow_collector.KIND,
    flow_collector.SEVERAL,
    s3.KIND,
    kafka.KIND,
    flow_log.KIND,
    flow_metrics.KIND,
)
"""In the order of their importance: where none is required, the first enabled one is."""
