"""From trees to predicates, which is what both compilers begin with."""

from functools import lru_cache

from flowvis.filters import vocabulary
from flowvis.filters.predicates import Every, Negation, Predicate, some
from flowvis.filters.tree import And, Comparison, Filter, Not, Or, Search


@lru_cache(maxsize=256)
def lowered(filter: Filter) -> Predicate:  # noqa: A002  what it is
    """Return the predicate of a filter; FilterError where a tree that no text made is wrong."""
    match filter:
        case And(parts):
            return Every(tuple(map(lowered, parts)))
        case Or(parts):
            return some(map(lowered, parts))
        case Not(part):
            return Negation(lowered(part))
        case Comparison(name, operator, values):
            return vocabulary.lookup(name).predicate(operator, values)
        case Search(text):
            return vocabulary.search(text)
    raise TypeError(f"{filter!r}: not a filter")
