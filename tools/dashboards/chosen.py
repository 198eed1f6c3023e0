"""What the people who look at a dashboard choose: its variables, as conditions and as links.

Each is a condition that the data source leaves out where all is chosen (`$__conditionalAll`), and
the same in the filter language, for links to the console: where all is chosen its value is `*`.
"""

from dataclasses import dataclass

from flowvis.filters import vocabulary

CLUSTER = "cluster"
EXCLUDED = "exclude"
NAMESPACE = "namespace"
WORKLOAD = "workload"
NODE = "node"
SERVICE = "service"
POLICY = "policy"
NOTHING = "-"
"""Of EXCLUDED: no namespace, as none has this name."""
ALL_WRITTEN = "*"
"""What stands for all in the filter language."""
EXCLUDED_FIRST = ("kube-system", "flow-aggregator", "flow-exporter", "flow-visibility")
"""Excluded until somebody chooses otherwise."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable by which records are chosen."""

    variable: str
    label: str
    description: str
    names: tuple[str, ...]
    """Dimensions, one of which has to be what is chosen."""
    filter: str
    """The name in the filter language."""
    without: bool = False
    """Whether what is chosen is left out."""

    @property
    def condition(self) -> str:
        """The condition, over columns that all tables have."""
        chosen = f"${{{self.variable}:singlequote}}"
        each = (f"{vocabulary.expression(name)} IN ({chosen})" for name in self.names)
        found = f"({' OR '.join(each)})"
        if self.without:  # a constant where it is nothing, for which no column is read
            found = f"['{NOTHING}'] = [{chosen}] OR NOT {found}"
        return f"$__conditionalAll(({found}), ${{{self.variable}}})"

    @property
    def written(self) -> str:
        """The condition in the filter language, for an address."""
        return f"{'not ' * self.without}{self.filter} in (${{{self.variable}:csv}})"


CHOICES: dict[str, Choice] = {
    choice.variable: choice
    for choice in (
        Choice(CLUSTER, "Cluster", "Clusters by their id", ("cluster",), "cluster"),
        Choice(
            EXCLUDED, "Without namespaces",
            f"Connections that have an end in one of these are left out; {NOTHING}: none are",
            ("src.namespace", "dst.namespace"), "namespace", without=True,
        ),
        Choice(
            NAMESPACE, "Namespace", "One of the ends is in it",
            ("src.namespace", "dst.namespace"), "namespace",
        ),
        Choice(
            WORKLOAD, "Workload", "One of the ends is a Pod of it, or the Pod itself",
            ("src.workload", "dst.workload"), "workload",
        ),
        Choice(NODE, "Node", "One of the ends is on it", ("src.node", "dst.node"), "node"),
        Choice(SERVICE, "Service", "The Service that was called", ("service",), "service"),
        Choice(
            POLICY, "Policy", "The policy that decided at one of the ends",
            ("src.policy", "dst.policy"), "policy",
        ),
    )
}  # fmt: skip


def all_of(*variables: str) -> tuple[Choice, ...]:
    """Return the choices of some variables."""
    return tuple(CHOICES[variable] for variable in variables)


COMMON = all_of(CLUSTER, EXCLUDED, NAMESPACE, WORKLOAD)
"""Of most dashboards."""
