"""Objects of the API server that are ours to write, which others may write at the same time."""

from collections.abc import Callable
from typing import Any

from flowvis.errors import ApiError
from flowvis.inventory.sources.access import Access
from flowvis.inventory.sources.api import KubernetesApi

NOT_FOUND, CONFLICT = 404, 409


class WrittenObjects:
    """Reads and writes objects by their paths; ApiError where the API server does not let us."""

    def __init__(self, access: Callable[[], Access]) -> None:
        self._access = access
        self._api: KubernetesApi | None = None

    def open(self) -> None:
        """Begin: SystemRefused or SettingsError where there is no way to the API server."""
        self._api = KubernetesApi(self._access())
        self._api.open()

    async def close(self) -> None:
        """Let go of the connections; does nothing when it is not open."""
        if self._api is not None:
            await self._api.close()

    async def get(self, collection: str, name: str) -> dict[str, Any] | None:
        """Return an object of a collection (the path of its list), None where there is none."""
        try:
            return await self._opened.get(f"{collection}/{name}", {})
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def write(self, collection: str, item: dict[str, Any], *, creates: bool) -> bool:
        """Create or replace an object; False where another write, or a deletion, came first."""
        try:
            if creates:
                await self._opened.create(collection, item)
            else:
                await self._opened.replace(f"{collection}/{item['metadata']['name']}", item)
        except ApiError as error:
            if error.status == CONFLICT or (error.status == NOT_FOUND and not creates):
                return False
            raise
        return True

    @property
    def _opened(self) -> KubernetesApi:
        if self._api is None:
            raise ValueError("open it first")
        return self._api
