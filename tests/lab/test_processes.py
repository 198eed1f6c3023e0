"""Daemons of the lab that several faults have to do with at one time."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flowvis.errors import SystemRefused
from flowvis.lab import processes
from flowvis.lab.faults import fault
from flowvis.lab.processes import DaemonProcess
from waiting import until


class Sleeper(DaemonProcess):
    """A process that is ready when the test says so."""

    says_so = False
    looks = 0

    def _ready(self) -> bool:
        self.looks += 1
        return self.says_so

    def looked(self, times: int) -> bool:
        return self.looks >= times

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sleeper]:
    with monkeypatch.context() as patch:
        patch.setattr(processes, "ROOM", tmp_path)
        made = Sleeper("sleeper", "", "")
        made._command = ("sleep", "100")
        yield made
        asyncio.run(made.kill())


async def test_one_that_runs_is_not_started_beside_itself(sleeper: Sleeper) -> None:
    sleeper.spawn()
    first = sleeper.pid
    sleeper.spawn()
    assert sleeper.pid == first
    await sleeper.kill()
    sleeper.spawn()
    assert sleeper.pid != first


async def test_who_waits_for_it_waits_beyond_what_another_fault_ends(sleeper: Sleeper) -> None:
    sleeper.spawn()
    waiting = asyncio.create_task(sleeper.ready())
    for end in (sleeper.kill, sleeper.stop):
        await end()
        seen = sleeper.looks
        await until(partial(sleeper.looked, seen + 3))
        assert not waiting.done()
        sleeper.spawn()
    sleeper.says_so = True
    await waiting


async def test_one_that_ends_by_itself_is_not_waited_for(sleeper: Sleeper) -> None:
    sleeper._command = ("sh", "-c", "exit 3")
    sleeper.spawn()
    with pytest.raises(SystemRefused, match="ended with 3"):
        await sleeper.ready()


async def test_what_nobody_can_tell_is_not_true_yet(sleeper: Sleeper) -> None:
    answers: Iterator[bool | OSError] = iter([ConnectionRefusedError(), False, True])

    async def asked() -> bool:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    await fault.until(asked, 30.0, sleeper, "has never said so")
    assert next(answers, None) is None
