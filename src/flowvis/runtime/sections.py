"""Sections of the configuration that both daemons have."""

from dataclasses import dataclass

from flowvis.runtime.logs import FORMATS, LEVELS
from flowvis.runtime.settings import option


@dataclass(frozen=True)
class LogSettings:
    """The daemon's own log."""

    format: str = option("text", doc="How lines are written", choices=FORMATS, in_pod="json")
    level: str = option("info", doc="The least that is worth a line", choices=LEVELS)


@dataclass(frozen=True)
class StatusSettings:
    """Metrics and health over HTTP; each daemon has a port of its own."""

    address: str = option(
        "127.0.0.1",
        doc="Local address of /metrics, /healthz and /readyz; Prometheus and the kubelet come from "
        "elsewhere",
        in_pod="::",
    )
    port: int = option(0, doc="Local port; 0: any free one", minimum=0, maximum=65535)
