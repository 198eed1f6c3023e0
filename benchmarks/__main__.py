"""Run one benchmark: `python -m benchmarks NAME [--json]`; `--list` says which there are.

A benchmark is a module of this package with `run() -> dict`; the dict has at least `records`,
`cpu_seconds` and `wall_seconds` of the measured part. Dashes in NAME stand for underscores.
"""

import argparse
import importlib
import inspect
import json
import pkgutil
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from flowvis import native
from flowvis.runtime.durations import parse_duration
from flowvis.runtime.memory import ByteSize


def names() -> list[str]:
    """The benchmarks: modules of this package that have a `run`."""
    folder = Path(__file__).parent
    modules = pkgutil.iter_modules([str(folder)])
    found = (module.name for module in modules if not module.ispkg)
    return sorted(
        name.replace("_", "-")
        for name in found
        if name != "__main__" and "\ndef run(" in (folder / f"{name}.py").read_text()
    )


def module_of(name: str) -> ModuleType:
    """Return the module of a benchmark."""
    return importlib.import_module(f"benchmarks.{name.replace('-', '_')}")


def measure(name: str, options: Mapping[str, float | str]) -> dict[str, Any]:
    """Run a benchmark; add what all report. `rss_mb` is the peak unless it gives its own."""
    result: dict[str, Any] = module_of(name).run(**options)
    rate = result["records"] / result["cpu_seconds"]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "name": name,
        "records_per_cpu_second": round(rate),
        "rss_mb": round(peak_mb, 1),
        "native": native.COMPILED,
        **result,
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=names())
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--list", action="store_true", help="the names, one on a line")
    parser.add_argument(
        "--duration",
        dest="duration_s",
        metavar="DURATION",
        type=_seconds,
        help="as 10m, of soak and full-disk",
    )
    parser.add_argument("--rate", type=float, help="records a second at most, of these")
    parser.add_argument("--disk", type=ByteSize.parse, help="as 512Mi, of full-disk")
    parser.add_argument(
        "--through", choices=("writer", "aggregator"), help="what full-disk fills its disk by"
    )
    parser.add_argument(
        "--store", metavar="DIR", help="keeps what console and panels ask; filled if it is empty"
    )
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(names()))
        return
    if options.name is None:
        parser.error(f"which one? {', '.join(names())}")
    own = vars(options).keys() - {"name", "json", "list"}
    given = {name: value for name in own if (value := getattr(options, name)) is not None}
    takes = inspect.signature(module_of(options.name).run).parameters
    if unknown := given.keys() - takes.keys():
        names_given = (f"--{name.removesuffix('_s')}" for name in sorted(unknown))
        parser.error(f"{options.name} does not take {', '.join(names_given)}")
    result = measure(options.name, given)
    if options.json:
        print(json.dumps(result))
        return
    width = max(map(len, result))
    for key, value in result.items():
        text = f"{value:,}" if isinstance(value, int | float) and key != "native" else str(value)
        print(f"{key:<{width}}  {text}")


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
