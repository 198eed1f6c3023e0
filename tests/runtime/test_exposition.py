import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from flowvis.aggregator.daemon import Aggregator
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.exporter.daemon import FlowExporter
from flowvis.exporter.settings import ExporterSettings
from flowvis.runtime import settings
from flowvis.runtime.exposition import OPENMETRICS, TEXT, choose
from flowvis.runtime.status import StatusServer

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3])
def test_what_prometheus_asks_for(accept: str) -> None:
    assert choose(accept) is OPENMETRICS


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "APPLICATION/OpenMetrics-Text; Version=1.0.0",
        'application/openmetrics-text; version="1.0.0"',
        "application/openmetrics-text; version=1",
        "application/openmetrics-text; version=",
        "application/openmetrics-text; version=1.1.0; q=1.000",
        "text/html, application/openmetrics-text;version=1.0.0;q=0.001",
        "text/plain;q=0.5, application/openmetrics-text;q=0.5",
    ],
)
def test_openmetrics(accept: str) -> None:
    assert choose(accept) is OPENMETRICS


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "text/plain;version=x",
        "text/plain;version=1.0.0;escaping=nonsense",
        "text/html",
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=1.0.x",
        "application/openmetrics-text; version=-1",
        "application/openmetrics-text; version=0.0.1",
        "application/openmetrics-text; version=9.9.9",
        "application/openmetrics-text; version=1.0.0; q=0",
        "application/openmetrics-text; version=1.0.0; q=x",
        "application/openmetrics-text; version=1.0.0; q=nan",
        "application/openmetrics-text; version=1.0.0; q=-1",
        "application/openmetrics-text; version=1.0.0; q=1e9",
        "application/openmetrics-text; version=1.0.0; q=0.2, text/plain; q=0.9",
        "application/openmetrics-text; version=" + "1" * 5000,
        "application/openmetrics-text; version=1." + "\N{ARABIC-INDIC DIGIT ONE}",
        ";=;=,;,=" * 500,
        ";q=;version",
        "\x00\xff",
    ],
)
def test_all_else_is_the_text_that_every_scraper_reads(accept: str) -> None:
    assert choose(accept) is TEXT


def registries() -> list[CollectorRegistry]:
    aggregator = (
        b"aggregatorTransportProtocol: tcp\ninventory: {kubernetes: {enable: false}}\n"
        b"clickHouse: {enable: true, databaseURL: 'tcp://127.0.0.1:1'}\n"
        b"flowCollector: {enable: true, address: '127.0.0.1:1'}\n"
    )
    exporter = (
        b"flowExporter: {flowCollectorAddr: '127.0.0.1:1:tcp'}\n"
        b"inventory: {kubernetes: {enable: false}}\nnodeName: node\n"
    )
    daemons = (
        Aggregator(settings.load(AggregatorSettings, aggregator, {})),
        FlowExporter(settings.load(ExporterSettings, exporter, {"NODE_NAME": "node"})),
    )
    return [
        component.registry
        for daemon in daemons
        for component in daemon.components
        if isinstance(component, StatusServer)
    ]


async def test_all_metrics_are_valid_and_the_same_in_both_formats() -> None:
    made = registries()
    assert len(made) == 2
    for registry in made:
        in_text = list(prometheus(TEXT.encode(registry).decode()))
        in_openmetrics = list(openmetrics(OPENMETRICS.encode(registry).decode()))
        names = {(family.name, family.type) for family in in_text}
        assert names == {(family.name, family.type) for family in in_openmetrics}
        assert len(names) > 30
        samples = [{s.name for f in form for s in f.samples} for form in (in_text, in_openmetrics)]
        assert samples[0] == samples[1]
