"""Run one harness under atheris: `python -m fuzz NAME [--seconds N] [-- LIBFUZZER OPTIONS]`.

Inputs that reach new code are kept below .cache/fuzz; one that fails is left in the working
directory, and is run again with `--input FILE`.
"""

import argparse
import sys
from pathlib import Path

KEPT = Path(".cache/fuzz")


def main(arguments: list[str]) -> int:
    """Run what the arguments name."""
    own, _, libfuzzer = " ".join(arguments).partition(" -- ")
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("name")
    parser.add_argument(
        "--seconds", type=int, default=0, help="stop after so long (default: never)"
    )
    parser.add_argument("--input", type=Path, help="run this input only")
    options = parser.parse_args(own.split())
    if options.input is not None:
        return _again(options.name, options.input)
    try:
        import atheris
    except ImportError:
        parser.error("atheris is not installed: pip install atheris")
    with atheris.instrument_imports(include=["flowvis"]):
        from fuzz.harnesses import HARNESSES
    if options.name not in HARNESSES:
        parser.error(f"no harness {options.name!r}: choose from {', '.join(HARNESSES)}")
    harness = HARNESSES[options.name]
    kept = KEPT / harness.name
    kept.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={options.seconds}", *libfuzzer.split()]
    atheris.Setup([sys.argv[0], *limits, str(kept), str(harness.corpus)], harness.one)
    atheris.Fuzz()
    return 0


def _again(name: str, path: Path) -> int:
    from fuzz.harnesses import HARNESSES

    HARNESSES[name].one(path.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
