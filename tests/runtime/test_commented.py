from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from flowvis.aggregator.settings import AggregatorSettings
from flowvis.exporter.settings import ExporterSettings
from flowvis.runtime.commented import WIDTH, commented
from flowvis.runtime.settings import Duration, load, option, section


@dataclass(frozen=True)
class Inner:
    wait: Duration = option(5.0, doc="How long", minimum=1)
    names: tuple[str, ...] = option((), doc="Which", live=True)


@dataclass(frozen=True)
class Outer:
    inner: Inner = section(Inner, doc="What is inside")
    path: Path | None = option(None, doc="Where", env="WHERE")
    secret: str = option("hush", doc="Between us", secret=True)


def test_every_option_with_its_meaning_and_default() -> None:
    assert commented(Outer, {"inner.names": ["a", "b"]}) == (
        "# What is inside\n"
        "inner:\n"
        "  # How long (a duration such as 5s or 1m30s, at least 1s)\n"
        "  #wait: 5s\n"
        "  # Which (list of a text, live)\n"
        "  names: [a, b]\n"
        "\n"
        "# Where (a path, environment WHERE)\n"
        "#path:\n"
        "\n"
        "# Between us (a text)\n"
        "#secret: '***'\n"
    )


@pytest.mark.parametrize("cls", [ExporterSettings, AggregatorSettings, Outer])
def test_it_loads_as_the_defaults(cls: type) -> None:
    text = commented(cls, {})
    assert load(cls, text.encode(), {}) == cls()
    assert max(map(len, text.splitlines())) <= WIDTH + 2  # long defaults


@pytest.mark.parametrize("cls", [ExporterSettings, AggregatorSettings])
def test_defaults_can_be_uncommented(cls: type) -> None:
    lines = commented(cls, {}).splitlines()
    text = "\n".join(
        line.replace("#", "", 1) if "# " not in line[: len(line) - len(line.lstrip()) + 2] else ""
        for line in lines
    )
    document = yaml.safe_load(text.replace("'***'", "''"))
    assert load(cls, yaml.safe_dump(document).encode(), {}) == cls()


def test_what_is_set_is_not_commented() -> None:
    text = commented(ExporterSettings, {"status.port": 1234, "nodeName": "n"})
    loaded = load(ExporterSettings, text.encode(), {})
    default = ExporterSettings()
    assert loaded == replace(default, node_name="n", status=replace(default.status, port=1234))


def test_unknown_options_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"Outer has no options inner\.wiat"):
        commented(Outer, {"inner.wiat": "1s"})


def test_all_options_of_a_live_section_are_live() -> None:
    @dataclass(frozen=True)
    class Live:
        inner: Inner = section(Inner, doc="What is inside", live=True)

    assert "  # How long (a duration such as 5s or 1m30s, at least 1s, live)" in commented(Live, {})


def test_what_differs_in_a_pod_is_set() -> None:
    @dataclass(frozen=True)
    class Placed:
        ask: bool = option(True, doc="Whether", in_pod=False)

    assert commented(Placed, {}) == "# Whether (true or false)\n#ask: true\n"
    assert commented(Placed, {}, in_pod=True) == "# Whether (true or false)\nask: false\n"
    assert commented(Placed, {"ask": True}, in_pod=True).endswith("\nask: true\n")
