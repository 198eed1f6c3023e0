from collections import Counter
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from flowvis.counts import count, counts_by_reason, gauge
from flowvis.runtime.build import build_info, version_text
from flowvis.runtime.dropped import FlowDropped
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.metrics import ReadingsCollector, StatsCollector, new_registry


@dataclass
class Stats:
    records: int = 0
    lag_seconds: float = gauge("How late")
    bytes: int = count("Bytes seen")
    dropped: Counter[str] = counts_by_reason("Dropped, by reason")
    failing: str = "text is no number"


def samples(registry: CollectorRegistry, prefix: str) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    found = (line.rsplit(" ", 1) for line in lines if line.startswith(prefix))
    return {name: float(value) for name, value in found}


def test_stats_are_read_when_asked_for() -> None:
    stats = Stats()
    registry = CollectorRegistry()
    registry.register(StatsCollector("flowvis_test_part", stats, labels={"sink": "clickhouse"}))
    stats.records = 3
    stats.lag_seconds = 0.5
    stats.dropped["late"] = 2
    assert samples(registry, "flowvis_test") == {
        'flowvis_test_part_records_total{sink="clickhouse"}': 3.0,
        'flowvis_test_part_lag_seconds{sink="clickhouse"}': 0.5,
        'flowvis_test_part_bytes_total{sink="clickhouse"}': 0.0,
        'flowvis_test_part_dropped_total{reason="late",sink="clickhouse"}': 2.0,
    }
    text = generate_latest(registry).decode()
    assert "# HELP flowvis_test_part_lag_seconds How late" in text
    assert "# HELP flowvis_test_part_records_total Records" in text


def test_stats_may_be_another_object_each_time() -> None:
    registry = CollectorRegistry()
    counts = iter([1, 2])
    registry.register(StatsCollector("p", lambda: Stats(records=next(counts))))
    assert samples(registry, "p_records") == {"p_records_total": 1.0}
    assert samples(registry, "p_records") == {"p_records_total": 2.0}


@dataclass
class Outer:
    records: int = count("Records")
    inner: Stats = field(default_factory=Stats)


def test_stats_of_a_part_have_its_name() -> None:
    registry = CollectorRegistry()
    registry.register(StatsCollector("p", Outer(3, Stats(records=5))))
    assert registry.get_sample_value("p_records_total") == 3
    assert registry.get_sample_value("p_inner_records_total") == 5


def test_readings() -> None:
    registry = CollectorRegistry()
    held = [1]
    registry.register(ReadingsCollector("p", {"flows": ("Live flows", lambda: len(held))}))
    held.append(2)
    assert samples(registry, "p") == {"p_flows": 2.0}


def test_registry_has_books_build_and_process() -> None:
    ledger = Ledger()
    stage = ledger.stage("flows", held=lambda: 1)
    stage.received, stage.sent = 5, 2
    stage.drop(FlowDropped.LATE, 1)
    registry = new_registry("aggregator", ledger)
    assert samples(registry, "flowvis_ledger") == {
        'flowvis_ledger_records_total{reason="",stage="flows",what="received"}': 5.0,
        'flowvis_ledger_records_total{reason="",stage="flows",what="sent"}': 2.0,
        'flowvis_ledger_records_total{reason="",stage="flows",what="merged"}': 0.0,
        'flowvis_ledger_records_total{reason="late",stage="flows",what="dropped"}': 1.0,
        'flowvis_ledger_held_records{stage="flows"}': 1.0,
        'flowvis_ledger_imbalance_records{stage="flows"}': 1.0,
    }
    (build,) = samples(registry, "flowvis_build_info")
    assert 'daemon="aggregator"' in build
    assert f'native="{build_info()["native"]}"' in build
    assert samples(registry, "process_resident_memory_bytes")


def test_version_line() -> None:
    info = build_info()
    assert version_text("flow-exporter") == (
        f"flow-exporter {info['version']} (native {info['native']}, "
        f"Python {info['python']}, numpy {info['numpy']})"
    )


def test_what_is_not_there_at_the_moment_is_left_out() -> None:
    registry = CollectorRegistry()
    there: list[Stats] = []
    registry.register(StatsCollector("x", lambda: there[0] if there else None))
    registry.register(ReadingsCollector("y", {"size": ("Size", lambda: len(there) or None)}))
    assert generate_latest(registry) == b""
    there.append(Stats())
    assert samples(registry, "y_") == {"y_size": 1.0}
    assert samples(registry, "x_")
