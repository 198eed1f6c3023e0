"""What all tests share: an event loop for each `async def` test, and network namespaces."""

import asyncio
import inspect
import os
from collections.abc import Iterator

import hypothesis
import pytest

from flowvis.conntrack.sources.tracking import RULE
from flowvis.runtime.options import POD
from namespaces import new_namespace, run

# What runs the tests may itself be a Pod; what they start is not, unless a test says so.
os.environ.pop(POD, None)

# A landing is not decided by chance: CI repeats the same examples, people look for new ones.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end; fixtures stay ordinary functions."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


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
