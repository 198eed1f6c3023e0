"""Optional packages: what needs one that is not installed says which extra brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from flowvis.errors import SettingsError


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Import packages of an extra (see pyproject.toml) for `what`; SettingsError without them."""
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package == "flowvis":
            raise
        raise SettingsError(
            [f"{what}: the package {package} is not installed: pip install 'flowvis[{name}]'"]
        ) from missing
