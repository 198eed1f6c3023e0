"""Builds the compiled leaves and the console; all else about the project is in pyproject.toml.

They are not optional: without a compiler this fails. FLOWVIS_NATIVE=never builds none, for a
checkout in which only the plain-Python references are to run. The console is in each wheel, unless
FLOWVIS_CONSOLE=never (the exporter's image); in a checkout `make console` builds it.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

MODE = os.environ.get("FLOWVIS_NATIVE", "require")
if MODE not in {"require", "never"}:
    sys.exit(f"FLOWVIS_NATIVE={MODE!r}: use require or never")
CONSOLE = os.environ.get("FLOWVIS_CONSOLE", "require")
if CONSOLE not in {"require", "never"}:
    sys.exit(f"FLOWVIS_CONSOLE={CONSOLE!r}: use require or never")
PROCESSES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class BuildPy(build_py):
    """Modules and data; the console before them, as it is data."""

    def run(self):
        if CONSOLE == "require" and not self.editable_mode:
            sys.path.insert(0, str(Path(__file__).parent))
            from tools.console import ConsoleError, build

            try:
                build()
            except ConsoleError as error:
                sys.exit(str(error))
            self.__dict__.pop("data_files", None)  # looked for anew: they are there now
        if self.editable_mode:
            super().run()
            return
        copied = Path(self.build_lib, "flowvis", "console")
        shutil.rmtree(copied, ignore_errors=True)  # what was built before has other names
        super().run()
        if CONSOLE == "never":
            shutil.rmtree(copied, ignore_errors=True)


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
        nthreads=PROCESSES,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,  # lengths are checked once per record, in the loops themselves
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    )


setup(
    ext_modules=leaves(),
    cmdclass={"build_py": BuildPy},
    options={"build_ext": {"parallel": PROCESSES}},
)
