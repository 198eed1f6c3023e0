"""Both variants of the index of prefixes."""

from types import ModuleType

import pytest

from flowvis.denials import nflog
from flowvis.native import flows as compiled
from flowvis.native.reference import flows as reference


@pytest.fixture(params=[compiled, reference], ids=["compiled", "reference"])
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The decoder uses the compiled index, or its reference."""
    module: ModuleType = request.param
    monkeypatch.setattr(nflog, "FlowIndex", module.FlowIndex)
    return module
