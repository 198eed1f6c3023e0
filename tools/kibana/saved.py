"""Saved objects, in the form that Kibana and OpenSearch Dashboards import."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

VERSIONS = {
    "index-pattern": "7.6.0",
    "visualization": "7.10.0",
    "search": "7.9.3",
    "dashboard": "7.9.3",
}
"""The last form of each kind that Kibana 7.10 and OpenSearch Dashboards 2 know, from which later
releases of Kibana bring it to theirs. A newer one is refused."""

SOURCE = "kibanaSavedObjectMeta.searchSourceJSON.index"


@dataclass(frozen=True, slots=True)
class Reference:
    """That one object shows another, under a name which the first has in its attributes."""

    name: str
    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Saved:
    """An object."""

    kind: str
    id: str
    attributes: dict[str, Any]
    references: tuple[Reference, ...] = ()

    def line(self) -> str:
        """Return it as one line of JSON."""
        return compact(
            {
                "id": self.id,
                "type": self.kind,
                "attributes": self.attributes,
                "references": [
                    {"name": one.name, "type": one.kind, "id": one.id} for one in self.references
                ],
                "migrationVersion": {self.kind: VERSIONS[self.kind]},
            }
        )


def compact(value: Any) -> str:
    """Return JSON without spaces, as attributes have what is nested in them."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def ndjson(objects: Iterable[Saved]) -> str:
    """Return a file to import, an object a line."""
    return "".join(f"{each.line()}\n" for each in objects)


def searched(query: str, *, indexed: bool) -> dict[str, str]:
    """Return the attribute that says what of an index is looked at: a query in Lucene's syntax."""
    source: dict[str, Any] = {"query": {"query": query, "language": "lucene"}, "filter": []}
    if indexed:
        source["indexRefName"] = SOURCE
    return {"searchSourceJSON": compact(source)}
