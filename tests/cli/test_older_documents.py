"""Published configurations of Antrea's releases, each with what it has to become."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.cli import aggregator, exporter
from flowvis.errors import SettingsError
from flowvis.exporter.settings import ExporterSettings
from flowvis.runtime.settings import effective, load, read

DOCUMENTS = Path(__file__).parent / "documents"
AGENT = sorted(DOCUMENTS.glob("antrea-agent-*.conf"))
AGGREGATOR = sorted(DOCUMENTS.glob("flow-aggregator-*.conf"))


def flat(document: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        where = f"{path}{key}"
        found |= flat(value, f"{where}.") if isinstance(value, dict) else {where: value}
    return found


def unlike_the_defaults(settings: Any) -> dict[str, Any]:
    defaults = flat(yaml.safe_load(effective(load(type(settings), b"", {}))))
    shown = flat(yaml.safe_load(effective(settings)))
    return {key: value for key, value in shown.items() if value != defaults[key]}


@pytest.mark.parametrize("path", [*AGENT, *AGGREGATOR], ids=lambda path: path.stem)
def test_a_published_document_becomes_todays(path: Path) -> None:
    cls = ExporterSettings if path in AGENT else AggregatorSettings
    expected = yaml.safe_load(path.with_suffix(".yaml").read_text())
    loaded = read(cls, path.read_bytes(), {})
    assert unlike_the_defaults(loaded.settings) == expected["settings"]
    assert list(loaded.warnings) == expected["warnings"]


def test_all_generations_are_there() -> None:
    assert (len(AGENT), len(AGGREGATOR)) == (6, 4)


def test_check_warns_and_prints_todays_keys(capsys: pytest.CaptureFixture[str]) -> None:
    path = DOCUMENTS / "antrea-agent-0.9.conf"
    assert exporter.main(["check", "--config", str(path)]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["flowExporter"]["flowPollInterval"] == "4s"
    lines = [line for line in err.splitlines() if "flowExporter.flowPollInterval" in line]
    assert lines == [
        f"flow-exporter: {path}: flowPollInterval: today's key is flowExporter.flowPollInterval"
    ]


def test_todays_document_is_not_warned_about(tmp_path: Path) -> None:
    document = effective(load(ExporterSettings, b"", {}))
    assert read(ExporterSettings, document.encode(), {}).warnings == ()


@pytest.mark.parametrize(
    ("document", "enabled"),
    [
        ("featureGates: {FlowExporter: false}", False),
        ("featureGates: {FlowExporter: true}", True),
        ("featureGates: {FlowExporter: false}\nflowExporter: {enable: true}", False),
        ("featureGates: {FlowExporter: true}\nflowExporter: {enable: false}", False),
        ("featureGates: {FlowExporter: true}\nflowExporter: {enable: true}", True),
        ("featureGates: {Egress: false}", True),
        ("featureGates:", True),
    ],
)
def test_the_gate_is_honoured(document: str, enabled: bool) -> None:
    assert load(ExporterSettings, document.encode(), {}).flow_exporter.enable is enabled


@pytest.mark.parametrize(
    ("document", "active_s"),
    [
        ("flowExportFrequency: 7", 35),
        ("flowExportFrequency: 7\nflowPollInterval: 1m30s", 630),
        ("flowExportFrequency: 3\nflowExporter: {flowPollInterval: 500ms}", 1.5),
        ("flowExportFrequency: 0", 60),
        ("flowExportFrequency:", 60),
        ("flowExportFrequency: 7\nactiveFlowExportTimeout: 9s", 9),
        ("flowExportFrequency: 7\nflowExporter: {activeFlowExportTimeout: 9s}", 9),
        ("activeFlowExportTimeout: 9s\nflowExporter: {activeFlowExportTimeout: 8s}", 8),
        ("activeFlowExportTimeout: 9s\nflowExporter: {activeFlowExportTimeout: }", 9),
        ("activeFlowExportTimeout: 9s\nflowExporter:", 9),
    ],
)
def test_the_active_timeout(document: str, active_s: float) -> None:
    loaded = read(ExporterSettings, document.encode(), {})
    assert loaded.settings.flow_exporter.active_flow_export_timeout == active_s
    assert loaded.warnings


def refused(cls: type, document: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(cls, document.encode(), {})
    return caught.value.problems


@pytest.mark.parametrize("value", ["often", "-1", "true", "2.5", "[1]", "{a: 1}", "9" * 40])
def test_a_bad_frequency_is_named_as_it_is_written(value: str) -> None:
    (problem,) = refused(ExporterSettings, f"flowExportFrequency: {value}")
    assert problem.startswith("flowExportFrequency (today flowExporter.activeFlowExportTimeout):")


def test_bad_values_are_named_by_the_keys_that_they_are_under() -> None:
    assert [
        problem.partition(":")[0]
        for problem in refused(
            ExporterSettings,
            "flowCollectorAddr: 'x:4739:sctp'\nflowPollInterval: 5\n"
            "featureGates: {FlowExporter: on it}",
        )
    ] == [
        "featureGates.FlowExporter (today flowExporter.enable)",
        "flowCollectorAddr (today flowExporter.flowCollectorAddr)",
        "flowPollInterval (today flowExporter.flowPollInterval)",
    ]
    (problem,) = refused(AggregatorSettings, "recordFormat: Avro")
    assert problem.startswith("recordFormat (today flowCollector.recordFormat): 'Avro'")


@pytest.mark.parametrize(
    "document",
    [
        "flowExporter: 5\nflowCollectorAddr: a",
        "flowExporter: [1]\nflowExportFrequency: 2",
        "featureGates: {FlowExporter: []}",
        "flowExportFrequency: 2\nflowCollectorAddr: [x]",
    ],
)
def test_what_is_no_document_at_all_is_refused(document: str) -> None:
    assert refused(ExporterSettings, document)


def test_keys_that_nobody_knows_stay_errors() -> None:
    assert refused(ExporterSettings, "optionOfALaterRelease: 1")
    (problem,) = refused(ExporterSettings, "ovsBridge: br-int\nflowExportr: {enable: true}")
    assert "did you mean flowExporter?" in problem
    assert refused(AggregatorSettings, "ovsBridge: br-int")
    assert refused(ExporterSettings, "ovsBridge: x\nflowExporter: {flowPolInterval: 5s}")


def test_an_address_switches_the_collector_on_unless_it_is_empty() -> None:
    for document, enabled in (
        ("externalFlowCollectorAddr: 192.0.2.1", True),
        ("externalFlowCollectorAddr: ''", False),
        ("externalFlowCollectorAddr: 192.0.2.1\nflowCollector: {enable: false}", False),
    ):
        found = load(AggregatorSettings, document.encode(), {}).flow_collector
        assert found.enable is enabled, document


def test_without_tls_and_without_an_address() -> None:
    loaded = load(ExporterSettings, b"enableTLSToFlowAggregator: false", {}).flow_exporter
    assert str(loaded.flow_collector_addr) == "flow-aggregator/flow-aggregator:4739:tcp"
    loaded = load(ExporterSettings, b"enableTLSToFlowAggregator: true", {}).flow_exporter
    assert str(loaded.flow_collector_addr) == "flow-aggregator/flow-aggregator:4739:tls"


def test_names_are_bounded() -> None:
    document = "ovsBridge: x\n" + "".join(f"{'k' * 200}{at}: 1\n" for at in range(500))
    (warning,) = read(ExporterSettings, document.encode(), {}).warnings
    assert warning.endswith(" and 441 more")
    assert len(warning) < 6000


def test_the_aggregator_warns_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    path = DOCUMENTS / "flow-aggregator-1.5.conf"
    assert aggregator.main(["check", "--config", str(path)]) == 0
    assert "externalFlowCollectorAddr: today's key is" in capsys.readouterr().err


def test_a_changed_file_is_read_in_the_same_way(caplog: pytest.LogCaptureFixture) -> None:
    data = b"flowPollInterval: 3s"
    settings = exporter.COMMAND._load(Path("x.conf"), data)
    assert settings.flow_exporter.flow_poll_interval == 3
    expected = "x.conf: flowPollInterval: today's key is flowExporter.flowPollInterval"
    assert caplog.messages == [expected]


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["5s", "x:4739:tcp", "a:14739:grpc", "1e+06"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["FlowExporter", "enable", "address"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(
    [
        "flowCollectorAddr", "flowPollInterval", "flowExportFrequency", "activeFlowExportTimeout",
        "enableTLSToFlowAggregator", "featureGates", "flowExporter", "ovsBridge", "newer",
        "externalFlowCollectorAddr", "flowExportInterval", "recordFormat", "observationDomainID",
        "apiServer", "flowCollector",
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.sampled_from([ExporterSettings, AggregatorSettings]),
)
def test_any_values_load_or_are_refused(
    document: dict[str, Any], cls: type[ExporterSettings | AggregatorSettings]
) -> None:
    data = yaml.safe_dump(document).encode()
    try:
        loaded = read(cls, data, {})
    except SettingsError:
        return
    again = read(cls, effective(loaded.settings).encode(), {})
    assert again.settings == loaded.settings
    assert not again.warnings
