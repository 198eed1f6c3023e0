"""What a filter that somebody wrote may cost: asked before each piece of its work."""

from collections.abc import Callable

Spend = Callable[[], None]
"""Is called before each text that is tested and each value that is read; may raise to end it."""


def freely() -> None:
    """Spend what it takes."""
