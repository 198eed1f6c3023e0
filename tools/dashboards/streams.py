"""Logs in Loki: their streams and labels, as deploy/logs has Fluent Bit send them."""

import re
from enum import StrEnum
from pathlib import Path

_CONFIGURATION = Path(__file__).parents[2] / "deploy" / "logs" / "fluent-bit.conf"


class Stream(StrEnum):
    """A log, by its label `job`."""

    OURS = "fluentbit-flowvis"
    AGENT = "fluentbit-antrea"
    CONTROLLER = "fluentbit-antrea-controller"
    AUDIT = "fluentbit-antrea-netpolicy"
    OVS = "fluentbit-antrea-ovs"


CATEGORY = {
    Stream.OURS: "flowvis_log_category",
    Stream.AGENT: "agent_log_category",
    Stream.CONTROLLER: "controller_log_category",
    Stream.OVS: "ovs_category",
}
"""The label that says what part of a program a line is of."""
LEVEL = {
    Stream.OURS: "log_level",
    Stream.AGENT: "log_level",
    Stream.CONTROLLER: "log_level",
    Stream.OVS: "ovs_log_level",
}
"""The label that says how grave a line is."""
NODE = "nodename"


def labels(configuration: str) -> dict[str, set[str]]:
    """Return the labels of each job, of the text of a configuration of Fluent Bit."""
    found = {}
    for section in configuration.split("[OUTPUT]")[1:]:
        given = re.findall(r"^\s+Labels?(?:_Keys)?\s+(.*)$", section, re.MULTILINE)
        pairs = [each.strip() for line in given for each in line.split(",")]
        names = {each.partition("=")[0].lstrip("$") for each in pairs}
        (job,) = (each.partition("=")[2] for each in pairs if each.startswith("job="))
        found[job] = names
    return found


LABELS = labels(_CONFIGURATION.read_text())


def chosen(*streams: Stream, **conditions: str) -> str:
    """Return LogQL's selector of streams: of each label a regular expression.

    ValueError where one has no such label: Loki would find nothing and not say why.
    """
    for stream in streams:
        for label in conditions.keys() - LABELS[stream]:
            known = ", ".join(sorted(LABELS[stream]))
            raise ValueError(f"{stream}: no label {label}, but {known}")
    job = f'="{streams[0]}"' if len(streams) == 1 else f'=~"{"|".join(streams)}"'
    pairs = [f"job{job}", *(f'{name}=~"{text}"' for name, text in conditions.items())]
    return f"{{{', '.join(pairs)}}}"
