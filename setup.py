"""Builds the compiled leaves; everything else about the project is in pyproject.toml.

FLOWVIS_NATIVE decides: `require` fails without a compiler, `never` builds none, `auto` (the
default) builds them where it can and says so where it cannot.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODE = os.environ.get("FLOWVIS_NATIVE", "auto")
if MODE not in {"require", "never", "auto"}:
    sys.exit(f"FLOWVIS_NATIVE={MODE!r}: use require, never or auto")


class OptionalBuild(build_ext):
    """Under `auto`, a leaf that does not compile leaves its plain-Python reference in charge."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            if MODE == "require":
                raise
            print(
                f"flowvis: {ext.name} not compiled, the reference serves: {error}", file=sys.stderr
            )


def leaves() -> list[Extension]:
    if MODE == "never":
        return []
    try:
        import numpy as np
        from Cython.Build import cythonize
    except ImportError:
        if MODE == "require":
            raise
        return []
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


setup(ext_modules=leaves(), cmdclass={"build_ext": OptionalBuild})
