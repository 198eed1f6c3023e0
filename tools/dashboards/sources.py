"""The data sources that panels ask, each chosen by a variable, and the form of what is asked."""

from dataclasses import dataclass
from typing import Any, Protocol

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.loki import LokiQueryType
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

CLICKHOUSE_PLUGIN = "grafana-clickhouse-datasource"
PLUGIN_VERSION = "4.0.0"
"""The oldest whose form of a query is the same as today's."""
CLICKHOUSE = DataSourceRef(CLICKHOUSE_PLUGIN, "${store}")
PROMETHEUS = DataSourceRef("prometheus", "${metrics}")
LOKI = DataSourceRef("loki", "${logs}")
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


class Asked(Protocol):
    """What is asked of a data source that has a query language of its own."""

    @property
    def expression(self) -> str:
        """In that language."""
        ...

    @property
    def legend(self) -> str:
        """What series are called, with labels in it; "" as they are."""
        ...

    @property
    def source(self) -> DataSourceRef:
        """Of whom it is asked."""
        ...

    def query(self, ref_id: str) -> Builder[Dataquery]:
        """Return the query."""
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """What is asked of Prometheus, in PromQL."""

    expression: str
    legend: str = ""
    instant: bool = False

    @property
    def source(self) -> DataSourceRef:
        """Of whom it is asked."""
        return PROMETHEUS

    def query(self, ref_id: str) -> prometheus.Dataquery:
        """Return the query."""
        built = prometheus.Dataquery().expr(self.expression).ref_id(ref_id).datasource(PROMETHEUS)
        if self.legend:
            built.legend_format(self.legend)
        if self.instant:
            return built.instant().format(PromQueryFormat.TABLE)
        return built.range().format(PromQueryFormat.TIME_SERIES)


LINES = 500
"""Lines of a log that a panel shows."""


@dataclass(frozen=True, slots=True)
class Log:
    """What is asked of Loki, in LogQL: lines, or numbers made of them."""

    expression: str
    legend: str = ""
    instant: bool = False

    @property
    def source(self) -> DataSourceRef:
        """Of whom it is asked."""
        return LOKI

    def query(self, ref_id: str) -> loki.Dataquery:
        """Return the query."""
        kind = LokiQueryType.INSTANT if self.instant else LokiQueryType.RANGE
        built = loki.Dataquery().expr(self.expression).ref_id(ref_id).datasource(LOKI)
        if self.legend:
            built.legend_format(self.legend)
        return built.query_type(kind.value).max_lines(LINES)
