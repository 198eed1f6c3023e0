"""What one run of the lab is asked to do; passed into its private world as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Self

from flowvis.lab.doors import Doors


@dataclass(frozen=True)
class Options:
    """A run: what traffic, for how long, under which conditions."""

    command: str = "run"
    """`run`: judge and report; `demo`: show."""
    duration_s: float = 20.0
    scenarios: tuple[str, ...] = ()
    """Names; none means all."""
    cni: str = "ranges"
    """Where Pods' addresses come from: a name of `cni.CNIS`."""
    rounds: int = 1
    """How often datagrams and denied clients go on after a pause."""
    events: bool = True
    """Whether the exporters subscribe to conntrack's events."""
    faults: tuple[str, ...] = ()
    """What goes wrong meanwhile: names of `faults.FAULTS`."""
    seed: int = 0
    """For what faults do at random moments."""
    rules: str = ""
    """Rules of a Prometheus that scrapes the daemons; without any there is none."""
    output: str = "text"
    keep: bool = False
    """Stay after the end until interrupted."""
    doors: Doors = field(default_factory=Doors)
    """To the machine that the lab is on."""

    def to_json(self) -> str:
        """Write them on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("scenarios", "faults")}
        return cls(**{**values, **lists, "doors": Doors(**values["doors"])})
