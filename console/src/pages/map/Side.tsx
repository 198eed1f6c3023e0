// What is known of the node or edge that is chosen; of nothing, what there is.
import { useEffect, useRef } from "preact/hooks";
import type { Query } from "../../api";
import { asked, useAnswer } from "../../asking";
import { TimeChart } from "../../charts/TimeChart";
import { both } from "../../conditions";
import { change, follow, parameter, to } from "../../location";
import { condition, conditionWithin, into, type Where } from "../../map/place";
import type { Scene, SceneEdge, SceneNode } from "../../map/scene";
import { Answered, Panel } from "../../parts/Panel";
import { Table } from "../../parts/Table";
import { Change, Name, Num } from "../../parts/values";
import { type Group, groups } from "../../rows";
import { several } from "../../texts";
import { written } from "../../times";

interface SideProps {
  scene: Scene;
  /** Where the scene is of. */
  place: Where;
  chosen: string;
  comparing: boolean;
  range: { from: string | number; to: string | number };
  onChoose: (id: string) => void;
  onEnter: (node: SceneNode) => void;
}

const KINDS: Record<string, string> = {
  namespace: "Namespace",
  workload: "Workload",
  pod: "Pod",
  node: "Node",
  zone: "Zone",
  region: "Region",
  service: "Service",
  external: "Outside of the cluster",
  unknown: "Not known",
};

export function full(node: SceneNode): string {
  const name = [...node.names].reverse().find((each) => each !== "" && each !== null);
  return name === undefined ? node.label : String(name);
}

export function MapSide(props: SideProps) {
  const { scene, chosen } = props;
  const node = scene.nodes.find((each) => each.id === chosen);
  const edge = scene.edges.find((each) => `${each.source} ${each.target}` === chosen);
  const side = useRef<HTMLElement>(null);
  const before = useRef(chosen);
  useEffect(() => {
    // The row that was chosen, or the button that closed, is gone, and had the focus.
    if (before.current !== chosen && document.activeElement === document.body)
      side.current?.focus({ preventScroll: true });
    before.current = chosen;
  }, [chosen]);
  return (
    <aside class="side" aria-label="What is chosen" tabIndex={-1} ref={side}>
      {node ? (
        <OfNode key={node.id} {...props} node={node} />
      ) : edge ? (
        <OfEdge key={`${edge.source} ${edge.target}`} {...props} edge={edge} />
      ) : (
        <All {...props} />
      )}
    </aside>
  );
}

function Close() {
  return (
    <button type="button" aria-label="Close" onClick={() => change({ chosen: null }, true)}>
      ×
    </button>
  );
}

function OfNode({
  node,
  scene,
  place,
  comparing,
  range,
  onChoose,
  onEnter,
}: SideProps & { node: SceneNode }) {
  const wanted = condition(node, place);
  const within = conditionWithin(node, place);
  const ends = scene.edges.filter((each) => each.source === node.id || each.target === node.id);
  const deeper = into(node) !== null && into(node) !== parameter("focus");
  return (
    <>
      <Panel title={<Name text={full(node)} />} aside={<Close />}>
        <p class="state kind">{KINDS[node.kind]}</p>
        <Numbers of={node} />
        <div class="buttons">
          {deeper && (
            <button type="button" class="primary" onClick={() => onEnter(node)}>
              Go in
            </button>
          )}
          <a
            class="button"
            href={to("flows", { filter: both(parameter("filter"), within) })}
            onClick={follow}
          >
            Flows
          </a>
          <button
            type="button"
            onClick={() => change({ filter: both(parameter("filter"), wanted), chosen: null })}
          >
            Only this
          </button>
        </div>
      </Panel>
      <SeriesOf filter={within} range={range} />
      <Panel title="Talks with" aside={several(ends.length, "direction")}>
        <EdgeTable
          edges={ends}
          from={node.id}
          scene={scene}
          comparing={comparing}
          onChoose={onChoose}
        />
      </Panel>
    </>
  );
}

function Numbers({ of }: { of: { bothOctets: number; connections: number; denied: number } }) {
  return (
    <dl class="facts numbers">
      <dt>Bytes both ways</dt>
      <dd>
        <Num value={of.bothOctets} unit="octets" />
      </dd>
      <dt>Connections</dt>
      <dd>
        <Num value={of.connections} />
      </dd>
      <dt>Denied</dt>
      <dd class={of.denied ? "problem" : undefined}>
        <Num value={of.denied} />
      </dd>
    </dl>
  );
}

function SeriesOf({ filter, range }: { filter: string; range: SideProps["range"] }) {
  const result = useAnswer<Query>("query", {
    ...asked(),
    ...range,
    filter: both(parameter("filter"), filter),
    measure: "throughput",
    interval: "auto",
  });
  return (
    <Panel title="Throughput">
      <Answered asked={result} height={118}>
        {(query) => (
          <TimeChart
            label="Throughput"
            times={query.times ?? []}
            end={query.answer.to}
            series={[{ name: "all", colour: "series-0", values: query.totalSeries?.[0] ?? [] }]}
            unit="bit/s"
            height={110}
            onZoom={(from, until) => change({ from: written(from), to: written(until), at: null })}
          />
        )}
      </Answered>
    </Panel>
  );
}

interface EdgeTableProps {
  edges: SceneEdge[];
  from: string;
  scene: Scene;
  comparing: boolean;
  onChoose: (id: string) => void;
}

function EdgeTable({ edges, from, scene, comparing, onChoose }: EdgeTableProps) {
  const other = (edge: SceneEdge) => {
    const id = edge.source === from ? edge.target : edge.source;
    const node = scene.nodes.find((each) => each.id === id);
    return node ? full(node) : id;
  };
  return (
    <Table<SceneEdge>
      label="Talks with"
      rows={[...edges].sort((a, b) => b.bothOctets - a.bothOctets)}
      id={(edge) => `${edge.source} ${edge.target}`}
      onOpen={(edge) => onChoose(`${edge.source} ${edge.target}`)}
      mark={(edge) => (edge.denied ? "is-denied" : "")}
      columns={[
        {
          key: "direction",
          title: "",
          width: "40px",
          cell: (edge) => <span class="faint">{edge.source === from ? "to" : "from"}</span>,
        },
        {
          key: "other",
          title: "Other end",
          width: "48%",
          cell: (edge) => <Name text={other(edge)} />,
        },
        {
          key: "octets",
          title: "Bytes",
          tip: "Both ways",
          numeric: true,
          cell: (edge) => <Num value={edge.bothOctets} unit="octets" />,
        },
        {
          key: "change",
          title: comparing ? "Change" : "Conn.",
          numeric: true,
          cell: (edge) =>
            comparing ? (
              edge.change === "gone" ? (
                <span class="tag">gone</span>
              ) : (
                <Change now={edge.bothOctets} before={edge.before} />
              )
            ) : (
              <Num value={edge.connections} />
            ),
        },
      ]}
    />
  );
}

function OfEdge({ edge, scene, place, range }: SideProps & { edge: SceneEdge }) {
  const source = scene.nodes.find((each) => each.id === edge.source);
  const target = scene.nodes.find((each) => each.id === edge.target);
  const wanted =
    source && target
      ? both(condition(source, place, "src."), condition(target, place, "dst."))
      : "";
  const ports = useAnswer<Query>(wanted ? "query" : null, {
    ...asked(),
    ...range,
    filter: both(parameter("filter"), wanted),
    by: "proto,dst.port,service",
    measure: "bothOctets,connections,denied",
    limit: 12,
  });
  if (!source || !target) return null;
  return (
    <>
      <Panel title={<Name text={`${source.label} → ${target.label}`} />} aside={<Close />}>
        <Numbers of={edge} />
        <dl class="facts numbers">
          <dt>Packets</dt>
          <dd>
            <Num value={edge.packets} />
          </dd>
          <dt>Unanswered</dt>
          <dd>
            <Num value={edge.unanswered} />
          </dd>
          {edge.before !== null && (
            <>
              <dt>Before</dt>
              <dd>
                <Num value={edge.before} unit="octets" />
              </dd>
            </>
          )}
        </dl>
        <div class="buttons">
          <a
            class="button"
            href={to("flows", { filter: both(parameter("filter"), wanted) })}
            onClick={follow}
          >
            Flows
          </a>
        </div>
      </Panel>
      <SeriesOf filter={wanted} range={range} />
      <Panel title="Ports">
        <Answered asked={ports}>
          {(query) => (
            <Table<Group>
              label="Ports"
              rows={groups(query)}
              id={(row) => JSON.stringify(row.values)}
              columns={[
                {
                  key: "port",
                  title: "Port",
                  width: "26%",
                  cell: (row) => `${String(row.values[0] ?? "").toUpperCase()} ${row.values[1]}`,
                },
                {
                  key: "service",
                  title: "Service",
                  width: "32%",
                  cell: (row) => <Name text={row.values[2]} none="–" />,
                },
                {
                  key: "octets",
                  title: "Bytes",
                  tip: "Both ways",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[0]} unit="octets" />,
                },
                {
                  key: "connections",
                  title: "Conn.",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[1]} />,
                },
                {
                  key: "denied",
                  title: "Denied",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[2]} />,
                },
              ]}
            />
          )}
        </Answered>
      </Panel>
    </>
  );
}

function All({ scene, onChoose }: SideProps) {
  return (
    <Panel
      title="On the map"
      aside={scene.left ? `${scene.left} smaller ones are not` : `${scene.nodes.length}`}
    >
      <Table<SceneNode>
        label="On the map"
        rows={scene.nodes}
        id={(node) => node.id}
        onOpen={(node) => onChoose(node.id)}
        mark={(node) => (node.denied ? "is-denied" : "")}
        columns={[
          {
            key: "name",
            title: "Name",
            width: "50%",
            cell: (node) => <Name text={full(node)} />,
            order: full,
          },
          {
            key: "octets",
            title: "Bytes",
            tip: "Both ways",
            numeric: true,
            cell: (node) => <Num value={node.bothOctets} unit="octets" />,
            order: (node) => node.bothOctets,
          },
          {
            key: "connections",
            title: "Conn.",
            numeric: true,
            cell: (node) => <Num value={node.connections} />,
            order: (node) => node.connections,
          },
          {
            key: "denied",
            title: "Denied",
            numeric: true,
            cell: (node) => <Num value={node.denied} />,
            order: (node) => node.denied,
          },
        ]}
      />
    </Panel>
  );
}
