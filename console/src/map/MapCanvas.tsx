// The map on its canvas: places come from the worker, what is under the pointer or chosen stands out.
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { theme } from "../shell/theme";
import { curve, draw, type Ink, ink, type Picture, type View } from "./draw";
import type { LayoutAnswer, LayoutQuestion } from "./layout";
import type { Scene, SceneEdge, SceneNode } from "./scene";

interface MapCanvasProps {
  scene: Scene;
  /** Maps of one key are the same map: what is on both stays where it is. */
  of: string;
  grouped: boolean;
  comparing: boolean;
  chosen: string;
  label: string;
  onChoose: (id: string) => void;
  onEnter: (node: SceneNode) => void;
  onLeave: () => void;
  /** The id of a node, or those of an edge's ends; "" is nothing. */
  onHover: (id: string) => void;
}

interface Place {
  x: number;
  y: number;
}

/** Where nodes were, by the map's key: for refreshes, and for coming back. */
const remembered = new Map<string, Map<string, Place>>();
const REMEMBERED = 40;
const MOVES = 350; // ms
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

function move(nodes: SceneNode[], to: Place[]): void {
  for (const [at, node] of nodes.entries()) Object.assign(node, to[at]);
}

function places(of: string): Map<string, Place> {
  const known = remembered.get(of) ?? new Map<string, Place>();
  remembered.delete(of);
  remembered.set(of, known);
  for (const oldest of remembered.keys()) {
    if (remembered.size <= REMEMBERED) break;
    remembered.delete(oldest);
  }
  return known;
}

/** What is drawn, moved and looked at; outside of the components, as it changes with every frame. */
class Stage {
  view: View = { x: 0, y: 0, scale: 1 };
  inks: Ink = ink();
  picture: Picture;
  private readonly pen: CanvasRenderingContext2D | null;
  private fitted = "";
  private whole = false; // everything is in view, and nobody has moved it since
  private frame = 0;
  private turn = 0;
  private moving: { from: Place[]; to: Place[]; since: number } | null = null;
  private readonly worker = new Worker(new URL("./layout.worker.ts", import.meta.url), {
    type: "module",
  });

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private of: string,
  ) {
    this.pen = canvas.getContext("2d");
    this.picture = {
      nodes: [],
      edges: [],
      byId: new Map(),
      most: 1,
      chosen: "",
      hovered: "",
      grouped: false,
      comparing: false,
    };
    this.worker.onmessage = (event: MessageEvent<LayoutAnswer>) => this.settle(event.data);
  }

  end(): void {
    this.worker.terminate();
    cancelAnimationFrame(this.frame);
  }

  show(scene: Scene, of: string): void {
    this.of = of;
    // Places that were asked for, or are being moved to, are of the nodes that there were.
    this.turn += 1;
    this.moving = null;
    const known = places(of);
    for (const node of scene.nodes) {
      const at = known.get(node.id);
      if (at) Object.assign(node, at);
    }
    this.picture.nodes = scene.nodes;
    this.picture.edges = scene.edges;
    this.picture.byId = new Map(scene.nodes.map((each) => [each.id, each]));
    this.picture.most = Math.max(
      ...scene.edges.map((each) => each.bothOctets || each.before || 0),
      1,
    );
    const fresh = scene.nodes.some((each) => Number.isNaN(each.x));
    if (fresh) this.ask(scene);
    else this.arrive();
  }

  private ask(scene: Scene): void {
    const most = this.picture.most;
    const question: LayoutQuestion = {
      turn: this.turn,
      aspect: this.canvas.clientWidth / Math.max(this.canvas.clientHeight, 1),
      nodes: scene.nodes.map(({ id, radius, group, x, y }) =>
        Number.isNaN(x) ? { id, radius, group } : { id, radius, group, x, y },
      ),
      ties: scene.edges
        .filter((each) => each.source !== each.target)
        .map(({ source, target, bothOctets }) => ({
          source,
          target,
          weight: Math.sqrt(bothOctets / most),
        })),
    };
    this.worker.postMessage(question);
  }

  private settle({ turn, places: found }: LayoutAnswer): void {
    if (turn !== this.turn) return; // of a map that is gone
    const known = places(this.of);
    const { nodes } = this.picture;
    const to = nodes.map((_, at) => ({ x: found[at * 2] ?? 0, y: found[at * 2 + 1] ?? 0 }));
    const from = nodes.map(({ x, y }, at) =>
      Number.isNaN(x) ? (to[at] ?? { x: 0, y: 0 }) : { x, y },
    );
    nodes.forEach((node, at) => {
      const place = to[at];
      if (place) known.set(node.id, place);
    });
    const moved = from.some(
      (each, at) => Math.hypot(each.x - (to[at]?.x ?? 0), each.y - (to[at]?.y ?? 0)) > 1,
    );
    if (moved && !still.matches) {
      this.moving = { from, to, since: performance.now() };
      move(nodes, from);
    } else move(nodes, to);
    this.arrive();
  }

  private arrive(): void {
    if (this.fitted !== this.of) this.fit();
    this.canvas.dataset.ready = this.of;
    this.paint();
  }

  /** Everything in view. */
  fit(): void {
    const all = this.moving ? this.moving.to : this.picture.nodes;
    if (!all.length) return;
    const [left, right] = [
      Math.min(...all.map((each) => each.x)),
      Math.max(...all.map((each) => each.x)),
    ];
    const [top, bottom] = [
      Math.min(...all.map((each) => each.y)),
      Math.max(...all.map((each) => each.y)),
    ];
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = Math.min(width / (right - left + 160), height / (bottom - top + 130));
    this.view = {
      x: (left + right) / 2,
      y: (top + bottom) / 2 + 8,
      scale: Math.min(Math.max(scale, 0.08), 2.2),
    };
    this.fitted = this.of;
    this.whole = true;
    this.paint();
  }

  /** Draw with the next frame. */
  paint(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = 0;
      this.step(now);
      const { clientWidth: width, clientHeight: height } = this.canvas;
      const drawn = {
        ...this.picture,
        nodes: this.picture.nodes.filter((each) => !Number.isNaN(each.x)),
      };
      if (this.pen) draw(this.pen, { width, height }, this.view, drawn, this.inks);
    });
  }

  private step(now: number): void {
    if (!this.moving) return;
    const { from, to, since } = this.moving;
    const t = Math.min((now - since) / MOVES, 1);
    const eased = 1 - (1 - t) ** 3;
    this.picture.nodes.forEach((node, at) => {
      const [a, b] = [from[at], to[at]];
      if (!a || !b) return;
      node.x = a.x + (b.x - a.x) * eased;
      node.y = a.y + (b.y - a.y) * eased;
    });
    if (t < 1) setTimeout(() => this.paint(), 0);
    else this.moving = null;
  }

  resize(): void {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = this.canvas.clientWidth * ratio;
    this.canvas.height = this.canvas.clientHeight * ratio;
    if (this.whole) this.fit();
    else this.paint();
  }

  /** Coordinates of the map under a point of the window. */
  at(clientX: number, clientY: number): Place {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: (clientX - box.left - box.width / 2) / this.view.scale + this.view.x,
      y: (clientY - box.top - box.height / 2) / this.view.scale + this.view.y,
    };
  }

  node(place: Place): SceneNode | null {
    const slack = 4 / this.view.scale;
    const near = (each: SceneNode) => Math.hypot(each.x - place.x, each.y - place.y);
    const under = this.picture.nodes.filter((each) => near(each) <= each.radius + slack);
    return under.sort((a, b) => near(a) - near(b))[0] ?? null;
  }

  edge(place: Place): SceneEdge | null {
    let best: SceneEdge | null = null;
    let least = 5 / this.view.scale;
    for (const edge of this.picture.edges) {
      const line = curve(edge, this.picture);
      if (!line) continue;
      for (let t = 0.05; t < 1; t += 0.05) {
        const x = (1 - t) ** 2 * line.from.x + 2 * (1 - t) * t * line.bend[0] + t ** 2 * line.to.x;
        const y = (1 - t) ** 2 * line.from.y + 2 * (1 - t) * t * line.bend[1] + t ** 2 * line.to.y;
        const far = Math.hypot(x - place.x, y - place.y);
        if (far < least) [best, least] = [edge, far];
      }
    }
    return best;
  }

  zoom(factor: number, about: Place): void {
    const scale = Math.min(Math.max(this.view.scale * factor, 0.05), 6);
    const share = 1 - this.view.scale / scale;
    this.view = {
      x: this.view.x + (about.x - this.view.x) * share,
      y: this.view.y + (about.y - this.view.y) * share,
      scale,
    };
    this.whole = false;
    this.paint();
  }

  /** So many pixels of the window. */
  shift(across: number, down: number): void {
    this.view.x -= across / this.view.scale;
    this.view.y -= down / this.view.scale;
    this.whole = false;
    this.paint();
  }

  /** Zoom about the middle. */
  closer(factor: number): void {
    this.zoom(factor, this.view);
  }

  /** The nearest node in a direction; the first of all where none is chosen. */
  beside(id: string, across: number, down: number): SceneNode | null {
    const from = this.picture.byId.get(id);
    if (!from) return this.picture.nodes[0] ?? null;
    const cost = (each: SceneNode) => {
      const [x, y] = [each.x - from.x, each.y - from.y];
      const along = x * across + y * down;
      return along <= 0 ? Number.POSITIVE_INFINITY : along + 2 * Math.abs(x * down - y * across);
    };
    const others = this.picture.nodes.filter(
      (each) => each !== from && cost(each) < Number.POSITIVE_INFINITY,
    );
    return others.sort((a, b) => cost(a) - cost(b))[0] ?? null;
  }
}

export function MapCanvas(props: MapCanvasProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const stage = useRef<Stage | null>(null);
  const drag = useRef<{ x: number; y: number; moved: boolean } | null>(null);
  const { scene, of, grouped, comparing, chosen } = props;

  useLayoutEffect(() => {
    if (!canvas.current) return;
    const made = new Stage(canvas.current, of);
    stage.current = made;
    const observer = new ResizeObserver(() => made.resize());
    observer.observe(canvas.current);
    const wheel = (event: WheelEvent) => {
      event.preventDefault();
      made.zoom(1.0015 ** -event.deltaY, made.at(event.clientX, event.clientY));
    };
    canvas.current.addEventListener("wheel", wheel, { passive: false });
    return () => {
      observer.disconnect();
      made.end();
    };
  }, []);
  useEffect(() => stage.current?.show(scene, of), [scene, of]);
  const painted = theme.value;
  useEffect(() => {
    if (!stage.current) return;
    stage.current.inks = ink();
    Object.assign(stage.current.picture, { grouped, comparing, chosen });
    stage.current.paint();
  }, [grouped, comparing, chosen, scene, painted]);

  const hover = (event: PointerEvent) => {
    const made = stage.current;
    if (!made) return;
    if (drag.current) {
      const { x, y } = drag.current;
      const far = Math.hypot(event.clientX - x, event.clientY - y);
      if (!drag.current.moved && far < 4) return;
      made.shift(event.clientX - x, event.clientY - y);
      drag.current = { x: event.clientX, y: event.clientY, moved: true };
      return;
    }
    const place = made.at(event.clientX, event.clientY);
    const node = made.node(place);
    const edge = node ? null : made.edge(place);
    const name = node?.id ?? (edge ? `${edge.source} ${edge.target}` : "");
    if (name === made.picture.hovered) return;
    made.picture.hovered = name;
    made.paint();
    props.onHover(name);
  };
  const release = (event: PointerEvent) => {
    const moved = drag.current?.moved;
    drag.current = null;
    const made = stage.current;
    if (moved || !made) return;
    const place = made.at(event.clientX, event.clientY);
    const node = made.node(place);
    if (node && node.id === chosen) props.onEnter(node);
    else if (node) props.onChoose(node.id);
    else {
      const edge = made.edge(place);
      props.onChoose(edge ? `${edge.source} ${edge.target}` : "");
    }
  };
  const step = (arrow: [number, number]) => {
    const next = stage.current?.beside(chosen, ...arrow);
    if (next) props.onChoose(next.id);
  };
  const keys: Record<string, () => void> = {
    ArrowLeft: () => step([-1, 0]),
    ArrowRight: () => step([1, 0]),
    ArrowUp: () => step([0, -1]),
    ArrowDown: () => step([0, 1]),
    Enter: () => {
      const node = stage.current?.picture.byId.get(chosen);
      if (node) props.onEnter(node);
    },
    Escape: () => (chosen ? props.onChoose("") : props.onLeave()),
    Backspace: props.onLeave,
    "+": () => stage.current?.closer(1.25),
    "-": () => stage.current?.closer(0.8),
    "0": () => stage.current?.fit(),
  };
  const press = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // those are the browser's
    const act = keys[event.key];
    if (!act) return;
    act();
    event.preventDefault();
  };

  return (
    <canvas
      ref={canvas}
      class="map-canvas"
      tabIndex={0}
      role="img"
      aria-label={props.label}
      onPointerMove={hover}
      onPointerDown={(event) => {
        if (event.button) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        drag.current = { x: event.clientX, y: event.clientY, moved: false };
      }}
      onPointerUp={release}
      onPointerCancel={() => {
        drag.current = null;
      }}
      onPointerLeave={() => {
        if (!stage.current?.picture.hovered) return;
        stage.current.picture.hovered = "";
        stage.current.paint();
        props.onHover("");
      }}
      onDblClick={() => stage.current?.picture.hovered === "" && stage.current.fit()}
      onKeyDown={press}
    />
  );
}
