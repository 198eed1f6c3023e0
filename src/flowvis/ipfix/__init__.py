"""IPFIX (RFC 7011): bytes to columns and back; sessions; no I/O."""

from flowvis.ipfix.buffer import SESSION, RecordBuffer
from flowvis.ipfix.collector import CollectorSession, CollectorStats
from flowvis.ipfix.events import Event, Malformed, SequenceGap, TemplateLearned, TemplateWithdrawn
from flowvis.ipfix.exporter import ExporterSession, ExporterStats, observation_domain_id
from flowvis.ipfix.limits import Limits

__all__ = [
    "SESSION",
    "CollectorSession",
    "CollectorStats",
    "Event",
    "ExporterSession",
    "ExporterStats",
    "Limits",
    "Malformed",
    "RecordBuffer",
    "SequenceGap",
    "TemplateLearned",
    "TemplateWithdrawn",
    "observation_domain_id",
]
