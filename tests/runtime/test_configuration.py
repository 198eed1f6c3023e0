import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flowvis.errors import SettingsError
from flowvis.runtime.configuration import Appliers, Configuration, ConfigurationCollector

from .test_changes import Credentials, Settings, Store


class Daemon:
    """Notes what it was told to apply."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008  frozen
        self.applied: list[tuple[str, Settings]] = []
        self.failing = ""
        self.defect: Exception | None = None
        self.configuration = Configuration(settings, self.appliers())

    def appliers(self) -> Appliers[Settings]:
        return {"name": self.rename, "store": self.replace_store}

    async def rename(self, settings: Settings) -> None:
        self.applied.append(("name", settings))

    async def replace_store(self, settings: Settings) -> None:
        if self.defect is not None:
            raise self.defect
        if self.failing:
            raise SettingsError([self.failing])
        self.applied.append(("store", settings))


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield


async def test_live_options_are_applied_once_for_each_section(
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon = Daemon()
    wanted = Settings(name="x", store=Store("y", 2.0, Credentials("p")))
    assert await daemon.configuration.take(wanted)
    assert daemon.applied == [("name", wanted), ("store", wanted)]
    assert daemon.configuration.in_force == wanted
    assert caplog.messages == [
        "configuration: name: '' -> x",
        "configuration: store.address: '' -> y",
        "configuration: store.interval: 8s -> 2s",
        "configuration: store.credentials.password: null -> '***'",
    ]
    assert not await daemon.configuration.take(wanted)
    assert len(daemon.applied) == 2


async def test_the_rest_waits_for_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Daemon()
    configuration = daemon.configuration
    assert await configuration.take(Settings(size=5, name="x", spare=Store()))
    assert configuration.in_force == Settings(name="x")
    assert daemon.applied == [("name", Settings(name="x"))]
    assert configuration.as_dict() == {"restartRequired": ["size", "spare"], "problems": []}
    assert "configuration: size: 1 -> 5 needs a restart" in caplog.messages
    await configuration.take(Settings(name="y"))  # both are as they were
    assert configuration.restart_required == ()


async def test_what_does_not_go_together_until_the_restart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Valid as a whole, but not with the old values of what needs a restart."""
    daemon = Daemon(Settings(size=20, name="x"))
    configuration = daemon.configuration
    assert not await configuration.take(Settings(size=2, name="", store=Store("y")))
    assert daemon.applied == []
    assert configuration.in_force == Settings(size=20, name="x")
    assert configuration.restart_required == ("size", "name", "store.address")
    (problem,) = configuration.problems
    assert problem.endswith("name: is needed for a size above 10")
    assert problem in caplog.text
    assert await configuration.take(Settings(size=2, name="y"))
    assert configuration.as_dict() == {"restartRequired": ["size"], "problems": []}


async def test_what_cannot_be_applied_stays_as_it_was() -> None:
    daemon = Daemon()
    daemon.failing = "no such engine"
    assert await daemon.configuration.take(Settings(name="x", store=Store("y")))
    assert daemon.configuration.in_force == Settings(name="x")
    assert daemon.configuration.as_dict()["problems"] == ["store.address: no such engine"]
    daemon.failing = ""
    assert await daemon.configuration.take(Settings(name="x", store=Store("y")))
    assert daemon.configuration.problems == ()


@pytest.mark.parametrize("defect", [KeyError("engine"), RuntimeError("loop"), ValueError("x" * 9)])
async def test_a_defect_of_ours_ends_nothing_and_is_said(
    defect: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon()
    daemon.defect = defect
    assert await daemon.configuration.take(Settings(name="x", store=Store("y")))
    assert daemon.configuration.in_force == Settings(name="x")
    (problem,) = daemon.configuration.problems
    assert problem == f"store.address: a defect of ours, in the log: {type(defect).__name__}"
    assert any(record.exc_info for record in caplog.records)
    daemon.defect = None
    assert await daemon.configuration.take(Settings(name="x", store=Store("y")))
    assert daemon.configuration.problems == ()


async def test_what_is_not_valid_changes_nothing() -> None:
    daemon = Daemon()
    await daemon.configuration.take(Settings(size=3))
    daemon.configuration.refuse(["a: wrong", "b: wrong"])
    assert daemon.configuration.as_dict() == {
        "restartRequired": ["size"],
        "problems": ["a: wrong", "b: wrong"],
    }
    assert daemon.configuration.in_force == Settings()


async def test_metrics() -> None:
    daemon = Daemon()
    registry = CollectorRegistry()
    registry.register(ConfigurationCollector("flowvis_x", daemon.configuration))
    await daemon.configuration.take(Settings(size=3, name="x"))
    daemon.failing = "broken"
    await daemon.configuration.take(Settings(store=Store("y")))
    daemon.configuration.refuse(["a", "b"])
    text = generate_latest(registry).decode()
    for line in (
        'flowvis_x_config_reloads_total{result="applied"} 1.0',
        'flowvis_x_config_reloads_total{result="failed"} 1.0',
        'flowvis_x_config_reloads_total{result="invalid"} 1.0',
        'flowvis_x_config_reloads_total{result="conflict"} 0.0',
        "flowvis_x_config_restart_required 0.0",
        "flowvis_x_config_problems 2.0",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    ("appliers", "odd"),
    [
        ({"name": Daemon.rename}, "store.address, store.credentials.password, store.interval"),
        ({"name": Daemon.rename, "store": Daemon.rename, "size": Daemon.rename}, "size"),
        ({"names": Daemon.rename, "store": Daemon.rename}, "name"),
    ],
)
def test_live_options_and_appliers_are_the_same(appliers: Appliers[Settings], odd: str) -> None:
    with pytest.raises(TypeError, match=f"not both: {odd}$"):
        Configuration(Settings(), appliers)


def test_it_begins_with_what_the_daemon_was_built_from() -> None:
    settings = replace(Settings(), name="x")
    assert Daemon(settings).configuration.in_force is settings
