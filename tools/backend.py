"""Setuptools as the build backend, which asks for Node only where the console is to be built."""

import os
from collections.abc import Mapping
from pathlib import Path
from runpy import run_path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(
    config_settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return what a wheel takes: the console's Node beside what setup.py names."""
    needed: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    console = Path(__file__).with_name("console.py")
    if not console.exists() or os.environ.get("FLOWVIS_CONSOLE") == "never":
        return needed
    return [*needed, *run_path(str(console))["requirements"]()]
