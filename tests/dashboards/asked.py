"""What all dashboards ask of Prometheus and Loki, with their variables put in."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from grafana_foundation_sdk.models.dashboard import DataSourceRef
from tools.dashboards.pages import PAGES
from tools.dashboards.sources import LOKI, PROMETHEUS

_BUILT_IN = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}
_METRIC = re.compile(r"\b(?:antrea|flowvis|process)_\w+")


class Asked(NamedTuple):
    """An expression, and where it stands."""

    page: str
    panel: str
    expression: str
    legend: str


def put_in(text: str, **values: str) -> str:
    """Return an expression as it is sent; of variables that are not given all is chosen."""
    names = _BUILT_IN | values
    return re.sub(r"\$([a-z_]\w*)", lambda found: names.get(found[1], ".*"), text)


def _asked(source: DataSourceRef) -> Iterator[Asked]:
    for page in PAGES:
        for panel in page.panels:
            for each in panel.of:
                if each.source is source:
                    yield Asked(page.name, panel.title, each.expression, each.legend)


PROMQL = tuple(_asked(PROMETHEUS))
LOGQL = tuple(_asked(LOKI))


def metrics(expression: str) -> set[str]:
    """Return the metrics that are named in an expression."""
    return set(_METRIC.findall(expression))
