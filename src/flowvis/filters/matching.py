"""Which texts a predicate is true of: one test for what is done here and not in the store."""

from collections.abc import Callable

from flowvis.filters.literals import compiled
from flowvis.filters.predicates import TextHas, TextIn, TextMatch


def test_of(predicate: TextIn | TextMatch | TextHas) -> Callable[[bytes], bool]:
    """Return the test of a text's bytes."""
    match predicate:
        case TextIn(values=values):
            return frozenset(values).__contains__
        case TextMatch(pattern=pattern):
            search = compiled(pattern).search
            return lambda value: search(value) is not None
        case TextHas(part=part):
            folded = part.lower()
            return lambda value: folded in value.lower()
