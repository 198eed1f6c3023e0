"""An open source of the kernel's connections, and both variants of the decoder."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from flowvis.conntrack.sources.source import Conntrack
from flowvis.native import conntrack as compiled
from flowvis.native.reference import conntrack as reference


@pytest.fixture
def kernel(tracked: None) -> Iterator[Conntrack]:
    """An open source in a namespace that tracks connections."""
    source = Conntrack()
    source.open()
    try:
        assert source.prepare() == []
        yield source
    finally:
        source.close()


@pytest.fixture(params=[reference, compiled], ids=["reference", "compiled"])
def leaf(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module
