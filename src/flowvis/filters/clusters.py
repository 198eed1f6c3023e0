"""Which clusters a filter chooses records of, as far as it names them."""

from functools import reduce

from flowvis.clickhouse.schema.books import CLUSTER
from flowvis.filters.lowering import lowered
from flowvis.filters.predicates import TextIn
from flowvis.filters.tree import And, Comparison, Filter, Or
from flowvis.filters.vocabulary import NAMES

_NAMES = frozenset(name for name, each in NAMES.items() if each.attributes[0].columns == (CLUSTER,))


def named_clusters(chosen: Filter) -> frozenset[str] | None:
    """Return ids, of one of which each record is that a filter chooses; None: of any."""
    match chosen:
        case And(parts):
            found = [each for each in map(named_clusters, parts) if each is not None]
            return reduce(frozenset.intersection, found) if found else None
        case Or(parts):
            any_of = [named_clusters(part) for part in parts]
            known = [each for each in any_of if each is not None]
            return frozenset().union(*known) if len(known) == len(any_of) else None
        case Comparison(name) if name in _NAMES:
            predicate = lowered(chosen)  # patterns name none
            if isinstance(predicate, TextIn):
                return frozenset(value.decode(errors="replace") for value in predicate.values)
    return None
