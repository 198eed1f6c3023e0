"""The destinations that there are: a section of the settings, and a row, for each."""

from dataclasses import dataclass
from typing import Any

from flowvis.aggregator.destinations import clickhouse, flow_collector
from flowvis.aggregator.destinations.clickhouse import ClickHouse
from flowvis.aggregator.destinations.flow_collector import FlowCollector
from flowvis.aggregator.destinations.kind import Kind
from flowvis.aggregator.destinations.settings import FlowLogger, S3Uploader
from flowvis.runtime.settings import section


@dataclass(frozen=True)
class DestinationSettings:
    """Where aggregated records go."""

    flow_collector: FlowCollector = section(
        FlowCollector, doc="An external IPFIX collector", live=True
    )
    click_house: ClickHouse = section(ClickHouse, doc="The store", live=True)
    s3_uploader: S3Uploader = section(S3Uploader, doc="Upload to S3", live=True)
    flow_logger: FlowLogger = section(FlowLogger, doc="Flows in a log file", live=True)


KINDS: tuple[Kind[Any], ...] = (clickhouse.KIND, flow_collector.KIND)
"""In the order of their importance: where none is required, the first enabled one is."""
