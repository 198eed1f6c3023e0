"""A run that fails says why, whatever fails in it; one that is abandoned says nothing."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from flowvis.errors import SystemRefused
from flowvis.lab import isolation
from flowvis.lab.inside import ABANDONED, until_abandoned


@pytest.fixture
def holder(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The end of the standard input that the command holds."""
    reads, writes = os.pipe()
    with os.fdopen(reads) as stdin, monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", stdin)
        held = [writes]
        yield held
        for descriptor in held:
            os.close(descriptor)


async def refuse() -> None:
    raise SystemRefused("scenario dns, port 22250: nobody answers")


async def work() -> int:
    """As traffic and faults are: the rest goes on for ever."""
    async with asyncio.TaskGroup() as group:
        group.create_task(refuse())
        group.create_task(asyncio.sleep(3600))
    return 0


def test_what_fails_beside_others_is_told(holder: list[int]) -> None:
    assert holder
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(until_abandoned(work()))
    (error,) = raised.value.exceptions
    assert str(error) == "scenario dns, port 22250: nobody answers"


def test_what_is_cancelled_by_itself_is_not_taken_for_abandoned(holder: list[int]) -> None:
    async def cut() -> int:
        raise asyncio.CancelledError

    assert holder
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(until_abandoned(cut()))


@pytest.mark.parametrize("fails", [False, True])
def test_who_is_abandoned_ends_without_a_word(holder: list[int], fails: bool) -> None:
    async def long() -> int:
        os.close(holder.pop())
        async with asyncio.TaskGroup() as group:
            group.create_task(hold())
        return 0

    async def hold() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            if fails:
                await refuse()

    assert asyncio.run(until_abandoned(long())) == ABANDONED


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("import os; os.kill(os.getpid(), 9)", id="as a process does"),
        pytest.param("import sys; sys.exit(128 + 9)", id="as a shell says it"),
    ],
)
def test_a_lab_that_is_killed_is_not_an_end_without_a_word(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrap(_arguments: object, *, user: bool) -> list[str]:
        assert not user
        return [sys.executable, "-c", ending]

    with monkeypatch.context() as patched:
        patched.setattr(isolation, "probe", lambda: False)
        patched.setattr(isolation, "wrap", wrap)
        with pytest.raises(SystemRefused, match=f"killed by {signal.SIGKILL.name}"):
            isolation.enter([])
