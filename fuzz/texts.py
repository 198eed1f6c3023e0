"""What people and programs write: Antrea's audit log, and configuration files of any age."""

from contextlib import suppress

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.denials.audit import AuditLog
from flowvis.errors import SettingsError
from flowvis.exporter.settings import ExporterSettings
from flowvis.runtime.settings import read

NOW_MS = 1_790_000_000_000


def audit_one(data: bytes) -> None:
    """Read lines of the audit log."""
    log = AuditLog()
    lines = data.splitlines()
    packets = log.parse(lines, NOW_MS)
    stats = log.stats
    assert len(packets) + stats.malformed + stats.allowed == len(lines)


def configuration_one(data: bytes) -> None:
    """Read a file as that of each daemon."""
    for settings in (AggregatorSettings, ExporterSettings):
        with suppress(SettingsError):  # says what is wrong
            read(settings, data, {})
