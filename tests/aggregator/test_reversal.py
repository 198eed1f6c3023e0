import numpy as np
import pytest

from flowvis.aggregator.correlation.reversal import reverse
from flowvis.batch import Batch
from flowvis.fields import COUNTERPARTS, EXPORTED, FIELDS, FlowType, Kind
from flowvis.native import StringTable

NO_COUNTERPART = {
    "destinationServiceIP",
    "destinationServicePort",
    "destinationServicePortName",
    "destinationClusterIP",
    "proxySnatIP",
    "proxySnatPort",
    "egressName",
    "egressIP",
    "egressNodeName",
}


def numbered(rows: int = 3) -> Batch:
    """Records in which no two fields have the same values."""
    columns = {}
    for place, field in enumerate(EXPORTED, 1):
        shape = (rows, *field.kind.shape)
        columns[field.name] = np.full(shape, place, field.kind.dtype)
    columns["flowType"][:] = FlowType.INTER_NODE
    return Batch(columns, StringTable())


def test_each_field_has_a_counterpart_of_its_kind() -> None:
    by_name = {field.name: field for field in FIELDS}
    for name, other in COUNTERPARTS.items():
        if other is None:
            assert name in NO_COUNTERPART
        else:
            assert COUNTERPARTS[other] == name
            assert by_name[other].kind is by_name[name].kind
            assert by_name[other].merge is by_name[name].merge
    assert {name for name, other in COUNTERPARTS.items() if other is None} == NO_COUNTERPART
    same = {name for name, other in COUNTERPARTS.items() if other == name}
    assert not any("ource" in name or "estination" in name for name in same)


def test_only_the_rows_that_are_meant() -> None:
    batch, whole = numbered(), numbered()
    reverse(batch.columns, np.array([1]))
    for name, column in batch.columns.items():
        assert (column[[0, 2]] == whole[name][[0, 2]]).all()
        other = COUNTERPARTS[name]
        expected = 0 if other is None else whole[other][1]
        assert (column[1] == expected).all(), name


def test_twice_is_as_before_but_for_what_was_lost() -> None:
    batch, whole = numbered(), numbered()
    for _ in range(2):
        reverse(batch.columns, np.arange(3))
    for name, column in batch.columns.items():
        kept = name not in NO_COUNTERPART
        assert (column == (whole[name] if kept else 0)).all(), name


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 3), (200, 200)])
def test_types_of_flows(before: int, after: int) -> None:
    batch = numbered(1)
    batch["flowType"][:] = before
    reverse(batch.columns, np.array([0]))
    assert batch["flowType"].tolist() == [after]
    assert next(field for field in EXPORTED if field.name == "flowType").kind is Kind.U8
