from types import ModuleType

import pytest

from flowvis.native import ipfix
from flowvis.native import strings as compiled_strings
from flowvis.native.reference import ipfix as ipfix_reference
from flowvis.native.reference import strings
from flowvis.strings import Strings


class Leaf:
    """One form of the leaf, with the string table that it needs."""

    def __init__(self, module: ModuleType, tables: ModuleType) -> None:
        self.module = module
        self._tables = tables

    def table(self, **options: int) -> Strings:
        table: Strings = self._tables.StringTable(**options)
        return table


LEAVES = {
    "reference": Leaf(ipfix_reference, strings),
    "compiled": Leaf(ipfix, compiled_strings),
}


def use(leaf: Leaf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sessions and buffers created from now on run on this form of the leaf."""
    module = leaf.module
    monkeypatch.setattr("flowvis.ipfix.collector.RecordDecoder", module.RecordDecoder)
    monkeypatch.setattr("flowvis.ipfix.exporter.RecordEncoder", module.RecordEncoder)
    monkeypatch.setattr("flowvis.ipfix.buffer.RecordTarget", module.RecordTarget)


@pytest.fixture(params=LEAVES)
def leaf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Leaf:
    chosen = LEAVES[request.param]
    use(chosen, monkeypatch)
    return chosen
