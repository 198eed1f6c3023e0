"""What parts count of themselves: plain numbers in a dataclass, each with the help of its metric.

A part adds to its own numbers in whole batches; `flowvis.runtime.metrics` reads them when scraped.
"""

from collections import Counter
from dataclasses import field


def count(text: str) -> int:
    """Declare a number that only grows."""
    number: int = field(default=0, metadata={"help": text})
    return number


def gauge(text: str) -> int:
    """Declare a number that goes up and down."""
    number: int = field(default=0, metadata={"help": text, "gauge": True})
    return number


def counts_by_reason(text: str) -> Counter[str]:
    """Declare numbers that only grow, one for each of a few fixed short words."""
    numbers: Counter[str] = field(default_factory=Counter, metadata={"help": text})
    return numbers
