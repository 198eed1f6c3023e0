"""Whether a daemon has started: what relies on that must wait for all of it."""


class Readiness:
    """The last component to start, and the first to stop: between them the daemon is ready."""

    name = "readiness"

    def __init__(self) -> None:
        self._ready = False

    async def start(self) -> None:
        """Everything else has started."""
        self._ready = True

    async def stop(self) -> None:
        """Everything else is about to stop."""
        self._ready = False

    def problem(self) -> str:
        """Why the daemon is not ready; "" when it is."""
        return "" if self._ready else "not all components have started"
