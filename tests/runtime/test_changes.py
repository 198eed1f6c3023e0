from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from flowvis.runtime.changes import SHOWN, Change, changes, merged, options
from flowvis.runtime.settings import Duration, option, section


@dataclass(frozen=True)
class Rule:
    action: str = option("", doc="What")


@dataclass(frozen=True)
class Credentials:
    password: str = option("", doc="Secret", secret=True)


@dataclass(frozen=True)
class Store:
    address: str = option("", doc="Where")
    interval: Duration = option(8.0, doc="How often")
    credentials: Credentials = section(Credentials, doc="Who")


@dataclass(frozen=True)
class Settings:
    size: int = option(1, doc="How large")
    name: str = option("", doc="Which", live=True)
    store: Store = section(Store, doc="The store", live=True)
    spare: Store | None = option(None, doc="Another one")
    rules: tuple[Rule, ...] = option((), doc="Rules")

    def check(self) -> Iterator[tuple[str, str]]:
        if self.size > 10 and not self.name:
            yield "name", "is needed for a size above 10"


def test_options_have_paths_and_those_of_a_live_section_are_live() -> None:
    assert options(Settings) == {
        "size": False,
        "name": True,
        "store.address": True,
        "store.interval": True,
        "store.credentials.password": True,
        "spare": False,
        "rules": False,
    }


def test_what_differs() -> None:
    assert changes(Settings(), Settings()) == []
    other = Settings(2, "x", Store("y", 90.0), Store("z"), (Rule("a"),))
    assert changes(Settings(), other) == [
        Change("size", "1", "2", live=False),
        Change("name", "''", "x", live=True),
        Change("store.address", "''", "y", live=True),
        Change("store.interval", "8s", "1m30s", live=True),
        Change(
            "spare",
            "null",
            "{address: z, credentials: {password: null}, interval: 8s}",
            live=False,
        ),
        Change("rules", "[]", "[{action: a}]", live=False),
    ]


def test_secrets_are_not_shown() -> None:
    old, new = (Settings(store=Store(credentials=Credentials(word))) for word in ("a", "b"))
    (change,) = changes(old, new)
    assert (change.old, change.new) == ("'***'", "'***'")


def test_what_is_shown_is_bounded() -> None:
    (change,) = changes(Settings(), Settings(name="word " * 1000))
    assert len(change.new) <= SHOWN


def test_of_a_long_list_only_what_is_shown_is_written() -> None:
    written = []

    class Word(str):
        __slots__ = ()

        def __str__(self) -> str:
            written.append(self)
            return self[:]

    @dataclass(frozen=True)
    class Words:
        words: tuple[Word, ...] = option((), doc="Words", parse=Word)

    (change,) = changes(Words(), Words((Word("w"),) * 10 * SHOWN))
    assert change.new.startswith("[w, w, ")
    assert change.new.endswith(" ...")
    assert len(written) <= SHOWN


@pytest.mark.parametrize(
    "paths", [(), ("size",), ("store.address", "rules"), tuple(options(Settings))]
)
def test_some_options_of_one_in_the_other(paths: tuple[str, ...]) -> None:
    old = Settings(store=Store(interval=3.0))
    new = Settings(2, "x", Store("y", 90.0, Credentials("p")), Store("z"), (Rule("a"),))
    between = merged(old, new, paths)
    assert {change.path for change in changes(old, between)} == set(paths)
    assert {change.path for change in changes(between, new)} == set(options(Settings)) - set(paths)
