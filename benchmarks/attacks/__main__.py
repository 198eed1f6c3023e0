"""Run one attack until standard input ends: `python -m benchmarks.attacks NAME TARGET`."""

import json
import sys
import threading
from pathlib import Path

from benchmarks.attacks import Target, attacks


def main(name: str, target: str) -> None:
    over = threading.Event()
    threading.Thread(target=_end, args=(over,), daemon=True).start()
    values = json.loads(target)
    values["directory"] = Path(values["directory"])
    print("begun", flush=True)
    print(json.dumps(attacks()[name].run(Target(**values), over)), flush=True)


def _end(over: threading.Event) -> None:
    """Note when nobody is at the other end of standard input any more."""
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main(*sys.argv[1:])
