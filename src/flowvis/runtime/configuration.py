"""The configuration that a daemon runs with, and what becomes of another one.

    configuration = Configuration(settings, {"log": configure_logs, "store": replace_store})
    await configuration.take(other_settings)

Options that are live and have changed are applied; the others wait for a restart, and are named
until then. Nothing is applied of a configuration that is not valid, nor if the live part of it
does not go together with what is in force until the restart.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowvis.errors import FlowvisError
from flowvis.runtime.changes import Change, changes, merged, options
from flowvis.runtime.settings import problems

log = logging.getLogger(__name__)

S = TypeVar("S")

Applier = Callable[[S], Awaitable[None]]
"""Makes the daemon do as the settings say; FlowvisError, and nothing changed, if it cannot."""

Appliers = Mapping[str, Applier[S]]
"""What to do when an option changes, or any option of a section, by its path."""

APPLIED = "applied"
INVALID = "invalid"
CONFLICT = "conflict"
FAILED = "failed"
RESULTS = (APPLIED, INVALID, CONFLICT, FAILED)


class Configuration(Generic[S]):
    """Settings in force, with what is known of newer ones.

    TypeError if an option is live and has no applier, or the other way round.
    """

    def __init__(self, settings: S, appliers: Appliers[S]) -> None:
        self.in_force = settings
        self.restart_required: tuple[str, ...] = ()
        """The options whose new values wait for a restart."""
        self.problems: tuple[str, ...] = ()
        """Why the newest configuration is not in force; empty when it is."""
        self.results: Counter[str] = Counter()
        """How many configurations were looked at, by one of RESULTS."""
        self._appliers = {
            path: applier
            for key, applier in appliers.items()
            for path in options(type(settings))
            if path == key or path.startswith(f"{key}.")
        }
        live = {path for path, is_live in options(type(settings)).items() if is_live}
        odd = live ^ self._appliers.keys()
        if odd:
            raise TypeError(f"live or with an applier, but not both: {', '.join(sorted(odd))}")

    async def take(self, wanted: S) -> bool:
        """Apply another valid configuration as far as that is possible; whether anything was."""
        changed = changes(self.in_force, wanted)
        live = [change for change in changed if change.live]
        mixed = merged(self.in_force, wanted, {change.path for change in live})
        found = problems(mixed)
        if found:
            self.restart_required = tuple(change.path for change in changed)
            what = "what can change now does not go with what needs a restart, so nothing changes"
            self._reject(CONFLICT, [f"{what}: {problem}" for problem in found])
            return False
        self.restart_required = tuple(change.path for change in changed if not change.live)
        self.problems = ()
        applied = await self._apply(live, mixed)
        self.in_force = merged(self.in_force, wanted, {change.path for change in applied})
        if not self.problems:
            self.results[APPLIED] += 1
        for change in changed:
            if not change.live:
                log.warning(
                    "configuration: %s: %s -> %s needs a restart",
                    change.path, change.old, change.new,
                )  # fmt: skip
        return bool(applied)

    def refuse(self, found: Sequence[str]) -> None:
        """Note that there is another configuration, which is not valid."""
        self._reject(INVALID, found)

    def as_dict(self) -> dict[str, Any]:
        """What people should know, as JSON has it."""
        return {"restartRequired": list(self.restart_required), "problems": list(self.problems)}

    async def _apply(self, live: Sequence[Change], mixed: S) -> list[Change]:
        """Apply changes; return those that are in force now."""
        applied, failed = [], []
        by_applier: dict[Applier[S], list[Change]] = {}
        for change in live:
            by_applier.setdefault(self._appliers[change.path], []).append(change)
        for applier, mine in by_applier.items():
            paths = ", ".join(change.path for change in mine)
            try:
                await applier(mixed)
            except (FlowvisError, OSError) as error:
                failed.append(f"{paths}: {error}")
                continue
            except Exception as error:
                log.exception("configuration: %s: a defect of ours", paths)
                failed.append(f"{paths}: a defect of ours, in the log: {type(error).__name__}")
                continue
            applied += mine
            for change in mine:
                log.info("configuration: %s: %s -> %s", change.path, change.old, change.new)
        if failed:
            self._reject(FAILED, failed)
        return applied

    def _reject(self, result: str, found: Sequence[str]) -> None:
        self.results[result] += 1
        self.problems = tuple(found)
        for problem in found:
            log.error("configuration not taken, the last good one stays: %s", problem)


class ConfigurationCollector(Collector):
    """`<prefix>_config_...`: what became of configurations, and what waits for a restart."""

    def __init__(self, prefix: str, configuration: Configuration[Any]) -> None:
        self._prefix = f"{prefix}_config"
        self._configuration = configuration

    def collect(self) -> Iterable[Metric]:
        """Yield three families."""
        reloads = CounterMetricFamily(
            f"{self._prefix}_reloads", "Changed configurations, by result", labels=["result"]
        )
        for result in RESULTS:
            reloads.add_metric([result], self._configuration.results[result])
        yield reloads
        yield GaugeMetricFamily(
            f"{self._prefix}_restart_required",
            "Options whose new values wait for a restart",
            value=len(self._configuration.restart_required),
        )
        yield GaugeMetricFamily(
            f"{self._prefix}_problems",
            "Problems of the newest configuration: 0 when it is in force",
            value=len(self._configuration.problems),
        )
