"""What all tests share: how hypothesis chooses, network namespaces, and memory."""

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from flowvis.conntrack.sources.tracking import RULE
from flowvis.runtime.component import SIGNALS
from flowvis.runtime.options import POD
from namespaces import new_namespace, run

TESTS = Path(__file__).parent

# What runs the tests may itself be a Pod; what they start is not, unless a test says so.
os.environ.pop(POD, None)

# How long an example takes is the machine's affair: other tests, and other people, use it as well.
UNHURRIED: Any = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("unhurried", **UNHURRIED)
# A landing is not decided by chance: CI repeats the same examples, people look for new ones.
hypothesis.settings.register_profile("ci", **UNHURRIED, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "unhurried")


@pytest.fixture
def namespace() -> Iterator[None]:
    """A new network namespace with loopback up, for this thread and its children."""
    with new_namespace():
        yield


@pytest.fixture
def tracked(namespace: None) -> None:
    """A namespace that tracks connections."""
    run("nft", RULE)


@pytest.fixture(autouse=True)
def _proof_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback there is no need to wait as long as across networks."""
    monkeypatch.setattr("flowvis.transport.client.PROOF_S", 0.03)


@pytest.fixture(autouse=True)
def _signals_stay_as_they_are() -> Iterator[None]:
    """What ran as a daemon ignores signals until its process ends, and so would all it starts."""
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def _free_memory_is_given_back() -> Iterator[None]:
    """What arrays took stays with a process: of several of them the machine would be full."""
    yield
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


SHARED = ("clickhouse", "console")
"""Rooms whose tests share servers."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the tests, let one have all that share what is dear to start."""
    for item in items:
        path = item.path.relative_to(TESTS)
        group = path.parts[0] if path.parts[0] in SHARED else str(path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run tests apart that are to be together: they would be slow, or disturb each other.

    xdist writes the group into the id of a test; versions that do not fit do not.
    """
    apart = [item for item in session.items if "@" not in item.nodeid]
    if session.config.getoption("loadgroup", False) and apart:
        raise pytest.UsageError(
            f"{apart[0].nodeid} is in no group of tests: this pytest ({pytest.__version__}) and"
            " this pytest-xdist do not fit together"
        )
