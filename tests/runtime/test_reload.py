import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flowvis.errors import SettingsError
from flowvis.runtime.reload import Reload
from flowvis.runtime.settings import load
from waiting import until

from .test_changes import Settings, Store
from .test_configuration import Daemon


class Followed:
    """A daemon whose file is followed."""

    def __init__(self, path: Path, text: str = "", **options: Any) -> None:
        self.path = path
        path.write_text(text)
        self.loads = 0
        self.failing = ""
        self.defect: Exception | None = None
        self.announced: list[Settings] = []
        self.daemon = Daemon(self._load(text.encode()))
        self.reload = Reload(
            path, text.encode(), self._load, self.daemon.configuration, self.announced.append,
            **{"look_every_s": 0.02, **options},
        )  # fmt: skip

    def _load(self, data: bytes) -> Settings:
        self.loads += 1
        self.thread = threading.current_thread()
        if self.defect is not None:
            raise self.defect
        if self.failing:
            raise SettingsError([self.failing])
        return load(Settings, data, {"HOME": "/"})

    @property
    def name(self) -> str:
        return self.daemon.configuration.in_force.name

    @property
    def problems(self) -> tuple[str, ...]:
        return self.daemon.configuration.problems


@contextlib.asynccontextmanager
async def followed(path: Path, text: str = "", **options: Any) -> AsyncIterator[Followed]:
    one = Followed(path, text, **options)
    await one.reload.start()
    try:
        yield one
    finally:
        await one.reload.stop()


async def test_a_change_is_taken_up_and_announced(tmp_path: Path) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        one.path.write_text("name: b")
        await until(lambda: one.name == "b")
        assert one.announced == [Settings(name="b")]
        one.path.write_text("name: b\nsize: 7")
        await until(lambda: one.daemon.configuration.restart_required)
        assert len(one.announced) == 1  # nothing was applied


async def test_the_same_bytes_are_nothing_new(tmp_path: Path) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        one.path.write_text("name: a")
        os.utime(one.path, (1, 1))
        await asyncio.sleep(0.2)  # ten looks
        assert one.loads == 1


async def test_a_change_between_building_and_starting(tmp_path: Path) -> None:
    one = Followed(tmp_path / "f", "name: a")
    one.path.write_text("name: b")
    await one.reload.start()
    await until(lambda: one.name == "b")
    await one.reload.stop()


async def test_as_the_kubelet_does_it(tmp_path: Path) -> None:
    """The file is a link into a directory that is a link, which is swapped."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "f").write_text(f"name: n{number}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "f").symlink_to("..data/f")
    one = Followed(tmp_path / "f", "name: n1")
    await one.reload.start()
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    await until(lambda: one.name == "n2")
    await one.reload.stop()


async def test_sighup_makes_it_look_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with followed(tmp_path / "f", "name: a", look_every_s=3600.0) as one:
        with caplog.at_level("INFO"):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "has not changed" in caplog.text)
        one.path.write_text("name: b")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: one.name == "b")


@pytest.mark.parametrize("refused", ["by what is applied", "by what is read"])
async def test_sighup_tries_again_what_was_refused(
    refused: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it failed in is mended elsewhere, and the file's bytes stay the same."""
    async with followed(tmp_path / "f", "name: a", look_every_s=3600.0) as one:
        with caplog.at_level("INFO"):  # what is written now is not found by the look of its start
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "has not changed" in caplog.text)
        caplog.clear()
        one.daemon.failing = one.failing = "no such certificate"
        one.path.write_text("name: a\nstore: {address: x}")
        if refused == "by what is applied":
            one.failing = ""
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: one.problems)
        results = one.daemon.configuration.results
        os.kill(os.getpid(), signal.SIGHUP)  # it still fails, which is said anew
        await until(lambda: results["failed"] + results["invalid"] >= 2)
        one.daemon.failing = one.failing = ""
        with caplog.at_level("INFO"):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: not one.problems)
            assert one.daemon.configuration.in_force.store == Store("x")
            assert "is tried again" in caplog.text
            assert "has not changed" not in caplog.text
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "has not changed" in caplog.text)  # it is in force


async def test_a_broken_file_is_reported_of_once_and_the_good_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        one.path.write_text("nam: b\nstore: {interval: 3}")
        await until(lambda: one.problems)
        await asyncio.sleep(0.1)  # looks that find the same
        assert one.name == "a"
        assert len(one.problems) == 2
        assert [line.split(": ")[1] for line in caplog.messages] == ["nam", "store.interval"]
        one.path.write_text("name: a")
        await until(lambda: not one.problems)


@pytest.mark.parametrize("way", ["removed", "not allowed", "too large", "binary"])
async def test_a_file_that_cannot_be_read(way: str, tmp_path: Path) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        match way:
            case "removed":
                one.path.unlink()
            case "not allowed":  # not even root reads a directory
                one.path.unlink()
                one.path.mkdir()
            case "too large":
                one.path.write_text("# " + "x" * (1 << 21))
            case _:
                one.path.write_bytes(b"\xff\x00")
        await until(lambda: one.problems)
        assert one.name == "a"
        if way == "not allowed":
            one.path.rmdir()
        one.path.write_text("name: b")
        await until(lambda: one.name == "b" and not one.problems)


async def test_a_file_that_is_written_in_place_is_not_taken_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty is valid, and would set everything back."""
    monkeypatch.setattr("flowvis.runtime.reload.SETTLE_S", 1.0)
    async with followed(tmp_path / "f", "name: a\nstore: {address: x}") as one:
        with one.path.open("w") as file:
            for line in ("name: b\n", "store: {address: x}\n"):
                await asyncio.sleep(0.1)  # looks at what is half done
                file.write(line)
                file.flush()
        await until(lambda: one.name == "b")
        assert [name for name, _ in one.daemon.applied] == ["name"]
        assert one.daemon.configuration.in_force.store == Store("x")


@pytest.mark.parametrize("emptied", ["", "\n"])
async def test_a_file_that_is_emptied_sets_nothing_back(emptied: str, tmp_path: Path) -> None:
    """As by who writes it on a disk that is full; who means it writes `{}`."""
    async with followed(tmp_path / "f", "name: a\nstore: {address: x}") as one:
        before = one.daemon.configuration.in_force
        one.path.write_text(emptied)
        await until(lambda: one.problems or one.daemon.configuration.in_force != before)
        assert one.daemon.configuration.in_force == before
        assert one.problems == (
            f"{one.path}: it is empty, and was not: {{}} says that all options have their defaults",
        )
        os.kill(os.getpid(), signal.SIGHUP)  # it is as empty as it was
        await until(lambda: one.daemon.configuration.results["invalid"] == 2)
        assert one.daemon.configuration.in_force == before
        one.path.write_text("{}")
        await until(lambda: one.daemon.configuration.in_force == Settings())
        one.path.write_text("name: b")
        await until(lambda: one.name == "b")
        assert not one.problems


async def test_a_file_that_was_empty_may_be_so_again(tmp_path: Path) -> None:
    async with followed(tmp_path / "f", "") as one:
        one.path.write_text("nam: b")
        await until(lambda: one.problems)
        one.path.write_text("\n")
        await until(lambda: not one.problems)
        assert one.daemon.configuration.in_force == Settings()


async def test_what_came_through_a_pipe_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    daemon = Daemon(Settings(name="a"))
    parse = partial(load, Settings, env={})
    reload: Reload[Settings] = Reload(path, b"name: a", parse, daemon.configuration, print)
    with caplog.at_level("INFO"):
        await reload.start()
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)  # nothing comes of it
    await reload.stop()
    assert "changes need a restart" in caplog.text
    assert daemon.configuration.in_force == Settings(name="a")


@pytest.mark.parametrize("instead", ["nothing", "directory", "link"])
async def test_a_file_that_is_away_at_the_start_is_followed(instead: str, tmp_path: Path) -> None:
    one = Followed(tmp_path / "f", "name: a")
    one.path.unlink()
    if instead == "directory":
        one.path.mkdir()
    elif instead == "link":
        one.path.symlink_to(tmp_path / "none")
    await one.reload.start()
    try:
        await until(lambda: one.problems)
        one.path.rmdir() if instead == "directory" else one.path.unlink(missing_ok=True)
        one.path.write_text("name: b")
        await until(lambda: one.name == "b")
    finally:
        await one.reload.stop()


async def test_a_defect_of_ours_over_a_file_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        one.defect = RuntimeError("of ours")
        one.path.write_text("name: b")
        await until(lambda: one.problems)
        assert one.problems == (f"{one.path}: a defect of ours, in the log: RuntimeError",)
        assert "Traceback" in caplog.text
        one.defect = None
        one.path.write_text("name: c")
        await until(lambda: one.name == "c")
        assert not one.problems


async def test_a_file_is_read_beside_the_event_loop(tmp_path: Path) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        one.path.write_text("name: b")
        await until(lambda: one.name == "b")
        assert one.thread is not threading.current_thread()


async def test_a_value_that_only_looks_like_a_time_stops_nothing(tmp_path: Path) -> None:
    async with followed(tmp_path / "f", "name: a") as one:
        one.path.write_text("name: 2024-02-30")
        await until(lambda: one.problems)
        assert one.problems == (
            "document: line 1, column 7: this is no timestamp: a text needs quotes",
        )
        one.path.write_text("name: b")
        await until(lambda: one.name == "b")
        assert not one.problems
