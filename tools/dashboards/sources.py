"""The data sources that panels ask, each chosen by a variable, and the form of what is asked."""

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

CLICKHOUSE_PLUGIN = "grafana-clickhouse-datasource"
PLUGIN_VERSION = "4.0.0"
"""The oldest whose form of a query is the same as today's."""
CLICKHOUSE = DataSourceRef(CLICKHOUSE_PLUGIN, "${store}")
PROMETHEUS = DataSourceRef("prometheus", "${metrics}")
SERIES, TABLE = 0, 1
"""Formats of an answer, as the data source numbers them."""


class ClickHouseQuery(Dataquery, Builder[Dataquery]):
    """A query of the ClickHouse data source, which the SDK does not know."""

    def __init__(self, sql: str, format_: int, ref_id: str = "A") -> None:
        self.sql, self.format, self.ref_id = sql, format_, ref_id

    def build(self) -> Dataquery:
        """Return itself: it has nothing to be built of."""
        return self

    def to_json(self) -> dict[str, Any]:
        """As dashboards have it."""
        kind = "timeseries" if self.format == SERIES else "table"
        return {
            "refId": self.ref_id,
            "datasource": CLICKHOUSE.to_json(),
            "editorType": "sql",
            "format": self.format,
            "pluginVersion": PLUGIN_VERSION,
            "queryType": kind,
            "rawSql": self.sql,
        }


@dataclass(frozen=True, slots=True)
class Metric:
    """What is asked of Prometheus."""

    expression: str
    legend: str = ""
    instant: bool = False

    def query(self, ref_id: str) -> prometheus.Dataquery:
        """Return the query."""
        built = prometheus.Dataquery().expr(self.expression).ref_id(ref_id).datasource(PROMETHEUS)
        if self.legend:
            built.legend_format(self.legend)
        if self.instant:
            return built.instant().format(PromQueryFormat.TABLE)
        return built.range().format(PromQueryFormat.TIME_SERIES)
