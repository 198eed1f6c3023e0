// The exporters in a few lines: those with something to say first.
import type { ExporterNode } from "../../api";
import { useAnswer } from "../../asking";
import { follow, go, to } from "../../location";
import { Answered, Panel } from "../../parts/Panel";
import { Table } from "../../parts/Table";
import { Name, Num } from "../../parts/values";
import { ago } from "../../times";

export interface NodesAnswer {
  nodes: ExporterNode[];
}

export function troubled(node: ExporterNode): boolean {
  return !node.complete || node.problems.length > 0;
}

const SHOWN = 7;

export function NodesSummary() {
  const asked = useAnswer<NodesAnswer>("nodes", {}, "now");
  return (
    <Panel
      title="Nodes"
      aside={
        <a href={to("nodes")} onClick={follow}>
          {asked.value ? `all ${asked.value.nodes.length}` : "all"}
        </a>
      }
    >
      <Answered
        asked={asked}
        empty={(value) => !value.nodes.length && "No exporter has connected yet."}
      >
        {({ nodes }) => (
          <Table<ExporterNode>
            label="Nodes"
            rows={[...nodes]
              .sort((a, b) => Number(troubled(b)) - Number(troubled(a)))
              .slice(0, SHOWN)}
            id={(node) => node.name}
            onOpen={() => go(to("nodes"))}
            mark={(node) => (troubled(node) ? "is-unsure" : "")}
            columns={[
              {
                key: "name",
                title: "Node",
                width: "44%",
                cell: (node) => <Name text={node.name} />,
              },
              {
                key: "heard",
                title: "Heard",
                numeric: true,
                cell: (node) => (node.lastHeardSeconds === null ? "–" : ago(node.lastHeardSeconds)),
              },
              {
                key: "rate",
                title: "Records/s",
                numeric: true,
                cell: (node) => <Num value={node.recordsPerSecond} />,
              },
              {
                key: "lost",
                title: "Lost",
                numeric: true,
                cell: (node) => <Num value={node.lost} />,
              },
            ]}
          />
        )}
      </Answered>
    </Panel>
  );
}
