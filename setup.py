"""Builds the compiled leaves; everything else about the project is in pyproject.toml.

They are not optional: without a compiler this fails. FLOWVIS_NATIVE=never builds none, for a
checkout in which only the plain-Python references are to run.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

MODE = os.environ.get("FLOWVIS_NATIVE", "require")
if MODE not in {"require", "never"}:
    sys.exit(f"FLOWVIS_NATIVE={MODE!r}: use require or never")


def leaves() -> list[Extension]:
    if MODE == "never":
        return []
    import numpy as np
    from Cython.Build import cythonize

    sources = sorted(Path("src/flowvis/native").glob("*.pyx"))
    extensions = [
        Extension(
            f"flowvis.native.{source.stem}",
            [str(source)],
            include_dirs=[np.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            extra_compile_args=["-O3", "-fno-strict-aliasing"],
        )
        for source in sources
    ]
    return cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,  # lengths are checked once per record, in the loops themselves
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    )


setup(ext_modules=leaves())
