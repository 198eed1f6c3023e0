"""A run inside of the private world: to its end, or until nobody holds its standard input."""

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Iterator

from rich.console import Console

from flowvis.errors import FlowvisError
from flowvis.lab import cni, demo, isolation
from flowvis.lab.options import Options
from flowvis.lab.session import Lab

ABANDONED = 130  # what shells say of a process that SIGINT ended


def main(options_json: str) -> int:
    """Run the lab; return the exit code."""
    options = Options.from_json(options_json)
    # Who started this may ignore it: so would all that is started here, and ended by it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cni.use(options.cni)
    isolation.settle()
    try:
        return asyncio.run(until_abandoned(_work(options)))
    except* FlowvisError as errors:
        for error in _leaves(errors):
            print(f"flowctl: {error}", file=sys.stderr)  # noqa: T201  the command's voice
    return 1


async def until_abandoned(running: Coroutine[None, None, int]) -> int:
    """Run something until it ends, or nobody holds the standard input; return its exit code."""
    loop = asyncio.get_running_loop()
    stdin = sys.stdin.fileno()
    work = asyncio.create_task(running)
    abandoned = False

    def abandon() -> None:
        nonlocal abandoned
        abandoned = True
        loop.remove_reader(stdin)
        work.cancel()

    loop.add_reader(stdin, abandon)  # the only thing to read there is its end
    try:
        return await work
    except BaseException:
        # What is cut short may fail in its own ways. Whether it was, the task itself cannot say: a
        # TaskGroup of Python 3.11 that fails leaves it with a request to be cancelled.
        if abandoned:
            return ABANDONED
        raise
    finally:
        loop.remove_reader(stdin)


async def _work(options: Options) -> int:
    console = Console(stderr=options.output == "json", highlight=False)
    if options.command == "demo":
        return await demo.show(options, console)
    lab = Lab(options, lambda line: console.print(line, style="dim"))
    await lab.open()
    await lab.have_traffic()
    report = await lab.close()
    if options.output == "json":
        print(json.dumps(report.as_dict(), indent=2))  # noqa: T201  the answer
    else:
        console.print("\n", report.render(), sep="", soft_wrap=True)
    return 0 if report.ok else 1


def _leaves(errors: BaseExceptionGroup[FlowvisError]) -> Iterator[FlowvisError]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
