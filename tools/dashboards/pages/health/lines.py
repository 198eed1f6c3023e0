"""Panels over the lines of a log: how many of which kind, how fast they come, and what they say."""

from collections.abc import Iterator

from tools.dashboards import variables as choices
from tools.dashboards.panels import OCTETS, Bars, Lines, Logs, Panel, Shares, Stat
from tools.dashboards.sources import Log
from tools.dashboards.streams import CATEGORY, LEVEL, NODE, Stream, chosen
from tools.dashboards.variables import Variable

RANGE, INTERVAL = "[$__range]", "[$__interval]"
OF = {
    Stream.OURS: "our daemons",
    Stream.AGENT: "Antrea's agents",
    Stream.CONTROLLER: "Antrea's controller",
    Stream.OVS: "OVS",
}
"""What a log is called in the titles of panels."""
_SENTENCES = {
    Stream.OURS: "{{.nodename}} {{.container}} {{.log_level}} {{.category}}: {{.message}}",
    Stream.AGENT: "{{.nodename}} {{.log_level}} {{.category}}: {{.message}}",
    Stream.CONTROLLER: "{{.nodename}} {{.log_level}} {{.category}}: {{.message}}",
    Stream.OVS: "{{.date}} {{.nodename}} {{.ovs_log_level}} {{.ovs_category}}: {{.message}}",
}


def _variables(stream: Stream) -> dict[str, str]:
    """Return the variable by which each label of a stream is chosen."""
    levels = "flowvis_log_level" if stream is Stream.OURS else LEVEL[stream]
    return {NODE: "nodename", LEVEL[stream]: levels, CATEGORY[stream]: CATEGORY[stream]}


def of(stream: Stream) -> str:
    """Return the selector of what is chosen of a stream."""
    return chosen(stream, **{label: f"${name}" for label, name in _variables(stream).items()})


def variables(*streams: Stream) -> Iterator[Variable]:
    """Yield the variables by which the lines of these streams are chosen."""
    yield choices.of_lines("nodename", "Node of the log", NODE, *streams)
    for stream in streams:
        given = _variables(stream)
        for what, label in (("Level", LEVEL[stream]), ("Category", CATEGORY[stream])):
            yield choices.of_lines(given[label], f"{what}: {OF[stream]}", label, stream)


def _ranked(stream: Stream, label: str) -> Log:
    return Log(f"sum by ({label}) (count_over_time({of(stream)} {RANGE}))", instant=True)


def by_node(stream: Stream) -> Panel:
    """Return how many lines each node has."""
    return Bars(
        title=f"Lines by node: {OF[stream]}",
        about="Within the range",
        of=(_ranked(stream, NODE),),
        unit="short",
    )


def by_level(stream: Stream) -> Panel:
    """Return how many lines are how grave."""
    return Shares(
        title=f"Lines by level: {OF[stream]}",
        about="Within the range",
        of=(_ranked(stream, LEVEL[stream]),),
        unit="short",
    )


def size(stream: Stream) -> Panel:
    """Return how long the lines are together."""
    return Stat(
        title=f"Bytes of lines: {OF[stream]}",
        about="Within the range, as they are in Loki",
        of=(Log(f"sum(bytes_over_time({of(stream)} {RANGE}))", instant=True),),
        unit=OCTETS,
        height=9,
    )


def by_category(stream: Stream) -> Panel:
    """Return how many lines each part of the program has."""
    return Stat(
        title=f"Lines by category: {OF[stream]}",
        about="The 20 parts of the program with most, within the range",
        of=(
            Log(
                f"topk(20, sum by ({CATEGORY[stream]}) (count_over_time({of(stream)} {RANGE})))",
                instant=True,
            ),
        ),
        each=True,
        width=8,
        height=9,
    )


def over_time(stream: Stream) -> Panel:
    """Return how many lines come, by category and level."""
    category, level = CATEGORY[stream], LEVEL[stream]
    return Lines(
        title=f"Lines by category and level: {OF[stream]}",
        about="In each interval: the 15 with most",
        of=(
            Log(
                f"topk(15, sum by ({category}, {level})"
                f" (count_over_time({of(stream)} {INTERVAL})))",
                f"{{{{{category}}}}} {{{{{level}}}}}",
            ),
        ),
        unit="short",
        bars=True,
    )


def per_second(stream: Stream) -> Panel:
    """Return how fast lines come, by how grave they are."""
    level = LEVEL[stream]
    return Lines(
        title=f"Lines a second: {OF[stream]}",
        about="By level",
        of=(Log(f"sum by ({level}) (rate({of(stream)} {INTERVAL}))", f"{{{{{level}}}}}"),),
        unit="cps",
        stacked=False,
    )


def lines(stream: Stream) -> Panel:
    """Return the lines themselves."""
    return Logs(
        title=f"Log: {OF[stream]}",
        about="The newest first; fields of a line are shown when it is opened",
        of=(Log(f"{of(stream)} | json | line_format `{_SENTENCES[stream]}`"),),
    )


def everything(stream: Stream) -> list[Panel]:
    """Return all of these."""
    return [
        by_node(stream),
        by_level(stream),
        size(stream),
        by_category(stream),
        over_time(stream),
        per_second(stream),
        lines(stream),
    ]
