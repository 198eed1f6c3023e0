"""IPFIX (RFC 7011): bytes to columns and back; sessions; no I/O."""

from flowvis.ipfix.buffer import DOMAIN, RecordBuffer
from flowvis.ipfix.collector import CollectorSession
from flowvis.ipfix.events import (
    Event,
    Malformed,
    NotUnderstood,
    SequenceGap,
    TemplateLearned,
    TemplateWithdrawn,
)
from flowvis.ipfix.exporter import ExporterSession, observation_domain_id
from flowvis.ipfix.limits import CollectorLimits
from flowvis.ipfix.stats import CollectorStats, ExporterStats

__all__ = [
    "DOMAIN",
    "CollectorLimits",
    "CollectorSession",
    "CollectorStats",
    "Event",
    "ExporterSession",
    "ExporterStats",
    "Malformed",
    "NotUnderstood",
    "RecordBuffer",
    "SequenceGap",
    "TemplateLearned",
    "TemplateWithdrawn",
    "observation_domain_id",
]
