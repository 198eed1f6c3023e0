// Who talks to whom, drawn: namespaces, in them workloads, in these Pods.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Graph } from "../api";
import { asked, useAnswer } from "../asking";
import { both } from "../conditions";
import { change, DEFAULT_FROM, DEFAULT_TO, parameter } from "../location";
import { MapCanvas } from "../map/MapCanvas";
import {
  dimensionsOf,
  focusFilter,
  into,
  LEVELS,
  type Level,
  namespaceOf,
  seenFrom,
  type Where,
} from "../map/place";
import { collapsed, type Scene, type SceneNode, scene } from "../map/scene";
import { Icon } from "../parts/icons";
import { Answered } from "../parts/Panel";
import { said } from "../quantities";
import { between, range as rangeOf } from "../times";
import { full, MapSide } from "./map/Side";

const LIMIT = 300;
const STEPS = 30; // moments that a range is played in

const NOTHING: Scene = { nodes: [], edges: [], left: 0 };

function where(): Where {
  const level = LEVELS.find((each) => each === parameter("level")) ?? "namespace";
  return { focus: parameter("focus"), level };
}

/** The moment that is held, or the whole range. */
function moment(): { from: string | number; to: string | number; step: number | null } {
  const [from, to] = [parameter("from", DEFAULT_FROM), parameter("to", DEFAULT_TO)];
  const held = /^(\d+),(\d+)$/.exec(parameter("at"));
  if (!held) return { from, to, step: null };
  return { from: Number(held[1]), to: Number(held[2]), step: 0 };
}

export default function MapPage() {
  const place = where();
  const held = moment();
  const [hovered, hover] = useState("");
  const dimensions = dimensionsOf(place);
  const compare = held.step === null ? parameter("compare") : "";
  const result = useAnswer<Graph>("graph", {
    ...asked(),
    from: held.from,
    to: held.to,
    compare,
    filter: both(parameter("filter"), focusFilter(place)),
    source: dimensions.map((each) => `src.${each}`).join(","),
    target: dimensions.map((each) => `dst.${each}`).join(","),
    limit: LIMIT,
  });
  const graph = result.value;
  const grouped = !place.focus && (place.level === "workload" || place.level === "pod");
  // Until an answer comes what is drawn is of the place before, and so is what is known of it.
  const shown = useMemo(
    () => ({
      drawn: graph ? prepared(graph, place, grouped) : NOTHING,
      of: `${place.focus}|${place.focus ? "" : place.level}`,
      grouped,
      place,
    }),
    [graph],
  );
  const { drawn } = shown;
  const chosen = parameter("chosen");
  const enter = (node: SceneNode) => {
    const target = into(node);
    if (target) change({ focus: target, chosen: null, level: null });
  };
  const leave = () => {
    const { focus } = place;
    if (focus) change({ focus: focus.includes("/") ? namespaceOf(focus) : null, chosen: null });
  };
  return (
    <div class="beside">
      <section class="panel fills map" aria-label="Map">
        <header>
          <Crumbs place={place} />
          <div class="aside">
            <Hint of={hovered} drawn={drawn} />
            {!place.focus && <Levels level={place.level} />}
          </div>
        </header>
        <Answered
          asked={result}
          empty={(value) => !value.nodes.length && "Nobody talks in this range and filter."}
        >
          {() => (
            <MapCanvas
              scene={drawn}
              of={shown.of}
              grouped={shown.grouped}
              comparing={graph?.compared !== null && compare !== ""}
              chosen={chosen}
              label={`Map of ${drawn.nodes.length} ${place.focus || "the cluster"}: the same is in the table beside it`}
              onChoose={(id) => change({ chosen: id }, true)}
              onEnter={enter}
              onLeave={leave}
              onHover={hover}
            />
          )}
        </Answered>
        <Legend comparing={compare !== ""} />
        <Playback ready={!result.loading} />
      </section>
      {graph ? (
        <MapSide
          scene={drawn}
          place={shown.place}
          chosen={chosen}
          comparing={graph.compared !== null && compare !== ""}
          range={{ from: held.from, to: held.to }}
          onChoose={(id) => change({ chosen: id }, true)}
          onEnter={enter}
        />
      ) : (
        <div class="side" />
      )}
    </div>
  );
}

function prepared(graph: Graph, place: Where, grouped: boolean): Scene {
  const seen = seenFrom(place);
  const now = collapsed(graph, seen);
  const before = graph.compared ? collapsed(graph.compared, seen) : null;
  const made = scene(now, before, (node) =>
    grouped && (node.kind === "workload" || node.kind === "pod")
      ? namespaceOf(String(node.names[0] ?? ""))
      : "",
  );
  return { ...made, left: made.left + (graph.others?.hidden ?? 0) };
}

function Crumbs({ place: { focus } }: { place: Where }) {
  const namespace = namespaceOf(focus);
  return (
    <nav class="crumbs" aria-label="Place on the map">
      <button type="button" disabled={!focus} onClick={() => change({ focus: null, chosen: null })}>
        Cluster
      </button>
      {focus && (
        <button
          type="button"
          disabled={focus === namespace}
          onClick={() => change({ focus: namespace, chosen: null })}
        >
          {namespace}
        </button>
      )}
      {focus.includes("/") && (
        <button type="button" disabled>
          {focus.slice(namespace.length + 1)}
        </button>
      )}
    </nav>
  );
}

const NAMES: Record<Level, string> = {
  namespace: "Namespaces",
  workload: "Workloads",
  pod: "Pods",
  node: "Nodes",
  zone: "Zones",
};

function Levels({ level }: { level: Level }) {
  return (
    <fieldset class="group" aria-label="What is drawn">
      {LEVELS.map((each) => (
        <button
          key={each}
          type="button"
          aria-pressed={each === level}
          onClick={() => change({ level: each === "namespace" ? null : each, chosen: null })}
        >
          {NAMES[each]}
        </button>
      ))}
    </fieldset>
  );
}

/** One line about what is under the pointer. */
function Hint({ of, drawn }: { of: string; drawn: Scene }) {
  const what =
    drawn.nodes.find((each) => each.id === of) ??
    drawn.edges.find((each) => `${each.source} ${each.target}` === of);
  if (!what) return null;
  const name = (id: string) => {
    const node = drawn.nodes.find((each) => each.id === id);
    return node ? full(node) : id;
  };
  const title = "source" in what ? `${name(what.source)} → ${name(what.target)}` : full(what);
  const denied = what.denied ? `, ${said(what.denied)} denied` : "";
  return (
    <span class="hint" aria-live="polite">
      <b>{title}</b> {said(what.bothOctets, "octets")}, {said(what.connections)} connections{denied}
    </span>
  );
}

function Legend({ comparing }: { comparing: boolean }) {
  const lines: [string, string][] = comparing
    ? [
        ["fine", "new"],
        ["accent", "changed by half or more"],
        ["flow", "as before"],
        ["gone", "gone"],
        ["denied", "denied"],
      ]
    : [
        ["flow", "allowed, or no policy"],
        ["denied", "some denied"],
        ["unsure", "mostly unanswered"],
      ];
  return (
    <ul class="map-legend" aria-label="Colours">
      {lines.map(([name, text]) => (
        <li key={name}>
          <i class={`line line-${name}`} aria-hidden="true" />
          {text}
        </li>
      ))}
      <li class="faint">width: bytes both ways</li>
    </ul>
  );
}

/** Hold a moment of the range, or play it from beginning to end. */
function Playback({ ready }: { ready: boolean }) {
  const now = Date.now();
  const whole = rangeOf(parameter("from", DEFAULT_FROM), parameter("to", DEFAULT_TO), now);
  const [playing, play] = useState(false);
  const held = /^(\d+),(\d+)$/.exec(parameter("at"));
  const frozen = useRef(whole);
  if (!held) frozen.current = whole;
  const range = frozen.current;
  const length = range ? (range.to - range.from) / STEPS : 0;
  const step = held && range ? Math.round((Number(held[1]) - range.from) / length) : STEPS;
  const hold = (to: number) => {
    if (!range) return;
    if (to >= STEPS) change({ at: null }, true);
    else {
      const from = Math.round(range.from + to * length);
      change({ at: `${from},${Math.round(from + length)}` }, true);
    }
  };
  useEffect(() => {
    if (!playing || !ready) return; // what has not been seen yet is not gone past
    const timer = setTimeout(() => {
      if (step >= STEPS - 1) {
        play(false);
        hold(STEPS);
      } else hold(step + 1);
    }, 900);
    return () => clearTimeout(timer);
  }, [playing, step, ready]);
  if (!range) return null;
  const text = held ? between(Number(held[1]), Number(held[2])) : "the whole range";
  return (
    <div class="playback">
      <button
        type="button"
        aria-label={playing ? "Hold" : "Play the range"}
        onClick={() => {
          if (!playing && step >= STEPS - 1) hold(0);
          play(!playing);
        }}
      >
        <Icon name={playing ? "pause" : "play"} />
      </button>
      <input
        type="range"
        min={0}
        max={STEPS}
        value={step}
        aria-label="Moment of the range"
        aria-valuetext={text}
        onInput={(event) => {
          play(false);
          hold(Number(event.currentTarget.value));
        }}
      />
      <span class="num">{text}</span>
    </div>
  );
}
