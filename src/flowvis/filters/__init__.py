"""The filter language: which records somebody wants to see, in one line of text.

`parse` makes a tree (`tree`) of a text, or says where and why it cannot. What its names are, and of
which columns they are made, is in `vocabulary`. Two compilers take the same tree apart into the
same predicates (`predicates`): `sql` for what is stored, `mask` for batches that pass by.
"""

from flowvis.filters.errors import FilterError
from flowvis.filters.parser import parse
from flowvis.filters.tokens import quote
from flowvis.filters.tree import (
    EVERYTHING,
    Comparison,
    Filter,
    Operator,
    Search,
    Value,
    all_of,
    any_of,
)

__all__ = [
    "EVERYTHING",
    "Comparison",
    "Filter",
    "FilterError",
    "Operator",
    "Search",
    "Value",
    "all_of",
    "any_of",
    "parse",
    "quote",
]
