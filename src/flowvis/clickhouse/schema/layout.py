"""Where the tables are: on one server, or on every server of a cluster.

On a cluster each server keeps its own part under a name in `_local`, replicated to the others of
its shard, and shows all parts together under the plain name. So queries and INSERTs are the same as
for one server, and any server will do for them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableLayout:
    """A database, and the cluster that it is spread over; "": one server has it."""

    database: str
    cluster: str = ""

    @property
    def everywhere(self) -> str:
        """The clause that has a statement executed by all servers."""
        return f" ON CLUSTER '{self.cluster}'" if self.cluster else ""

    def own(self, name: str) -> str:
        """Return the name of what a server has itself of a table or view."""
        return f"{name}_local" if self.cluster else name

    def system(self, name: str) -> str:
        """Return the engine's own table of a name, of all servers; 18.16 has no such view."""
        if not self.cluster:
            return f"system.{name}"
        return f"clusterAllReplicas('{self.cluster}', system.{name})"

    def merge_tree(self, name: str) -> str:
        """Return the engine of a stored table; on a cluster replicated within each shard."""
        return self._engine(name, f"{self.cluster}/{{shard}}", "{replica}")

    def aggregating_merge_tree(self, name: str) -> str:
        """Return the engine of a stored table whose rows of one key become one."""
        return self._engine(name, f"{self.cluster}/{{shard}}", "{replica}", "Aggregating")

    def shared_merge_tree(self, name: str) -> str:
        """Return the engine of a table that is the same on all servers, of whichever shard."""
        return self._engine(name, self.cluster, "{shard}-{replica}")

    def distributed(self, name: str, key: str = "") -> str:
        """Return the engine that shows all servers' own parts; `key` says whose a new row is."""
        arguments = [f"'{text}'" for text in (self.cluster, self.database, self.own(name))]
        return f"Distributed({', '.join([*arguments, *filter(None, (key,))])})"

    def _engine(self, name: str, where: str, replica: str, kind: str = "") -> str:
        if not self.cluster:
            return f"{kind}MergeTree"
        path = f"/clickhouse/tables/{where}/{self.database}/{name}"
        return f"Replicated{kind}MergeTree('{path}', '{replica}')"
