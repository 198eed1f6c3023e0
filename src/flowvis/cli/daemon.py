"""What the commands of both daemons share: arguments, configuration file, check, run."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from flowvis.cli.output import said
from flowvis.cli.start import end_by_signals
from flowvis.errors import FlowvisError, SettingsError
from flowvis.runtime import logs, settings
from flowvis.runtime.build import version_text
from flowvis.runtime.component import Component
from flowvis.runtime.configuration import Configuration
from flowvis.runtime.heap import Heap
from flowvis.runtime.ledger import Ledger
from flowvis.runtime.losses import Losses
from flowvis.runtime.process import end_soon, serve
from flowvis.runtime.reload import Reload
from flowvis.runtime.settings import Loaded
from flowvis.runtime.signals import ignore
from flowvis.runtime.visible import visible

log = logging.getLogger(__name__)

S = TypeVar("S")


class Daemon(Protocol):
    """A daemon, put together but not started."""

    @property
    def components(self) -> Sequence[Component]:
        """Its parts, in the order in which they start."""

    @property
    def configuration(self) -> Configuration[Any]:
        """What it runs with."""

    @property
    def ledger(self) -> Ledger:
        """Its books."""


@dataclass(frozen=True)
class DaemonCommand(Generic[S]):
    """One daemon's command line."""

    name: str
    description: str
    examples: str
    settings: type[S]
    build: Callable[[S], Daemon]
    """Put it together, opening nothing; SettingsError for what does not go together."""
    announce: Callable[[S], None]
    """Log what the operator should know of the settings, before it starts and when they change."""

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the daemon, or check its configuration; return the exit code."""
        if arguments is None:
            end_by_signals()  # until `serve` takes them
        options = self._parser().parse_args(arguments)
        if options.command == "run":
            ignore(signal.SIGHUP)  # before the file is read: what it asks for is done then
        try:
            data = _read(options.config)
            loaded = self._read(options.config, data)
            if options.command == "check":
                self.build(loaded.settings)
                for warning in loaded.warnings:
                    print(visible(f"{self.name}: {options.config}: {warning}"), file=sys.stderr)
                return said(self.name, partial(_show, loaded))
            code = self._run(options.config, data, loaded)
        except FlowvisError as error:
            for line in str(error).split("\n"):
                print(f"{self.name}: {visible(line)}", file=sys.stderr)
            return 1
        if arguments is None:  # the process is the daemon's own
            end_soon()
        return code

    def _run(self, path: Path, data: bytes, loaded: Loaded[Any]) -> int:
        wanted = loaded.settings
        logs.configure(wanted.log.format, wanted.log.level)
        log.info("%s", version_text(self.name))
        _warn(path, loaded)
        self.announce(wanted)
        daemon = self.build(wanted)
        load = partial(self._load, path)
        reload = Reload(path, data, load, daemon.configuration, self.announce)
        parts: list[Component] = [logs.SuppressedLines(), Losses(daemon.ledger), Heap()]
        parts += [*daemon.components, reload]
        code = serve(parts, grace_s=wanted.grace_period)
        return code if daemon.ledger.close() else 1

    def _load(self, path: Path, data: bytes) -> S:
        """Read a document that has changed while the daemon runs."""
        loaded = self._read(path, data)
        _warn(path, loaded)
        return loaded.settings

    def _read(self, path: Path, data: bytes) -> Loaded[S]:
        try:
            return settings.read(self.settings, data, os.environ)
        except SettingsError as error:
            raise SettingsError([f"{path}: {problem}" for problem in error.problems]) from error

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=self.name,
            description=self.description,
            epilog=self.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--version", action="version", version=version_text(self.name))
        parser.add_argument(
            "command",
            nargs="?",
            choices=("run", "check"),
            default="run",
            help="run (the default), or check the configuration and print the effective one",
        )
        default = Path("/etc") / self.name / f"{self.name}.conf"
        parser.add_argument(
            "--config", type=Path, default=default, help=f"YAML (default: {default})"
        )
        return parser


def _show(loaded: Loaded[Any]) -> int:
    """Print the configuration that applies."""
    print(settings.effective(loaded.settings), end="")
    return 0


def _warn(path: Path, loaded: Loaded[Any]) -> None:
    """Log what the document has that is not today's."""
    for warning in loaded.warnings:
        log.warning("%s: %s", path, warning)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}"]) from error
