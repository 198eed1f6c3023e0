"""What this build is."""

import platform
from importlib.metadata import version

import numpy as np

from flowvis import native


def build_info() -> dict[str, str]:
    """The versions of what matters, by name; `native` says whether the leaves are compiled."""
    return {
        "version": version("flowvis"),
        "native": "compiled" if native.COMPILED else "reference",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def version_text(command: str) -> str:
    """One line for `--version`."""
    info = build_info()
    return (
        f"{command} {info['version']} "
        f"(native {info['native']}, Python {info['python']}, numpy {info['numpy']})"
    )
