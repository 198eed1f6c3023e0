"""Which clusters a filter names, if it names them."""

import pytest

from flowvis.filters import parse
from flowvis.filters.clusters import named_clusters


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", None),
        ("cluster = east", {"east"}),
        ('clusterUUID = "a b" and port = 443', {"a b"}),
        ("clusterId in (east, west) and (pod = x or cluster = north)", {"east", "west"}),
        ("cluster in (east, west) and cluster in (west, north)", {"west"}),
        ("cluster = east and cluster = west", set()),
        ("cluster = east or cluster = west and port = 1", {"east", "west"}),
        ("cluster = east or port = 443", None),
        ("cluster is empty", {""}),
        ("not cluster = east", None),
        ("cluster != east", None),
        ("cluster = ea*", None),
        ("cluster ~ east", None),
        ("east", None),
    ],
)
def test_named_clusters(text: str, named: set[str] | None) -> None:
    assert named_clusters(parse(text)) == named
