// Drawing the map on a canvas.
import { colour } from "../shell/theme";
import { shortened } from "../texts";
import type { SceneEdge, SceneNode } from "./scene";

export interface View {
  /** Of the map, what is in the middle of the canvas. */
  x: number;
  y: number;
  scale: number;
}

export interface Ink {
  ground: string;
  surface: string;
  text: string;
  faint: string;
  line: string;
  flow: string;
  denied: string;
  unsure: string;
  fine: string;
  accent: string;
  font: string;
}

/** The style sheet's colours, read once for a theme. */
export function ink(): Ink {
  return {
    ground: colour("ground"),
    surface: colour("surface"),
    text: colour("ink"),
    faint: colour("ink-3"),
    line: colour("line-strong"),
    flow: colour("flow"),
    denied: colour("denied"),
    unsure: colour("unsure"),
    fine: colour("fine"),
    accent: colour("accent"),
    font: colour("sans"),
  };
}

export interface Picture {
  nodes: SceneNode[];
  edges: SceneEdge[];
  byId: Map<string, SceneNode>;
  most: number;
  chosen: string;
  hovered: string;
  grouped: boolean;
  comparing: boolean;
}

const TURN = Math.PI * 2;

export function draw(
  pen: CanvasRenderingContext2D,
  size: { width: number; height: number },
  view: View,
  picture: Picture,
  inks: Ink,
): void {
  const ratio = window.devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, size.width, size.height);
  pen.translate(size.width / 2, size.height / 2);
  pen.scale(view.scale, view.scale);
  pen.translate(-view.x, -view.y);
  if (picture.grouped) drawGroups(pen, view, picture, inks);
  const shown = picture.hovered || picture.chosen;
  const near = shown ? neighbours(picture, shown) : null;
  for (const edge of picture.edges) drawEdge(pen, view, picture, inks, edge, shown);
  for (const node of picture.nodes) drawNode(pen, view, picture, inks, node, near);
  drawLabels(pen, view, picture, inks, shown, near);
}

/** Around the nodes of a group, a disc with the group's name. */
function drawGroups(pen: CanvasRenderingContext2D, view: View, picture: Picture, inks: Ink): void {
  const members = new Map<string, SceneNode[]>();
  for (const node of picture.nodes) {
    if (!node.group) continue;
    const list = members.get(node.group) ?? [];
    list.push(node);
    members.set(node.group, list);
  }
  const size = 11 / Math.min(view.scale, 1.4);
  for (const [group, list] of members) {
    const x = list.reduce((sum, each) => sum + each.x, 0) / list.length;
    const y = list.reduce((sum, each) => sum + each.y, 0) / list.length;
    const radius =
      Math.max(...list.map((each) => Math.hypot(each.x - x, each.y - y) + each.radius)) + 14;
    pen.beginPath();
    pen.arc(x, y, radius, 0, TURN);
    pen.fillStyle = inks.ground;
    pen.fill();
    pen.strokeStyle = inks.line;
    pen.lineWidth = 1 / view.scale;
    pen.stroke();
    pen.fillStyle = inks.faint;
    pen.font = `600 ${size}px ${inks.font}`;
    pen.textAlign = "center";
    pen.fillText(group, x, y - radius - size * 0.4);
  }
}

function paint(edge: SceneEdge, picture: Picture, inks: Ink): string {
  if (edge.denied > 0) return inks.denied;
  if (picture.comparing) {
    if (edge.change === "new") return inks.fine;
    if (edge.change === "gone") return inks.faint;
    if (edge.change === "more" || edge.change === "less") return inks.accent;
  }
  if (edge.unanswered > 0 && edge.unanswered >= edge.connections / 2) return inks.unsure;
  return inks.flow;
}

/** A curve that bends to its right, so that both directions are seen; null: of a node to itself. */
export function curve(
  edge: SceneEdge,
  picture: Pick<Picture, "byId">,
): { from: SceneNode; to: SceneNode; bend: [number, number] } | null {
  const from = picture.byId.get(edge.source);
  const to = picture.byId.get(edge.target);
  if (!from || !to || from === to) return null;
  const [across, down] = [to.x - from.x, to.y - from.y];
  return {
    from,
    to,
    bend: [(from.x + to.x) / 2 - down * 0.12, (from.y + to.y) / 2 + across * 0.12],
  };
}

function drawEdge(
  pen: CanvasRenderingContext2D,
  view: View,
  picture: Picture,
  inks: Ink,
  edge: SceneEdge,
  shown: string,
): void {
  const near =
    !shown ||
    edge.source === shown ||
    edge.target === shown ||
    shown === `${edge.source} ${edge.target}`;
  pen.globalAlpha = near ? (shown ? 0.9 : 0.5) : 0.07;
  pen.strokeStyle = paint(edge, picture, inks);
  const share = (edge.bothOctets || edge.before || 0) / picture.most;
  pen.lineWidth = Math.max(1 / view.scale, 0.8 + 7 * Math.sqrt(share));
  pen.setLineDash(edge.change === "gone" && picture.comparing ? [4, 4] : []);
  const line = curve(edge, picture);
  pen.beginPath();
  if (!line) {
    const node = picture.byId.get(edge.source);
    if (node) pen.arc(node.x, node.y - node.radius - 4, 7, 0, TURN);
    pen.stroke();
    pen.setLineDash([]);
    return;
  }
  const { from, to, bend } = line;
  pen.moveTo(from.x, from.y);
  pen.quadraticCurveTo(bend[0], bend[1], to.x, to.y);
  pen.stroke();
  pen.setLineDash([]);
  arrow(pen, from, to, bend, pen.lineWidth);
}

function arrow(
  pen: CanvasRenderingContext2D,
  from: SceneNode,
  to: SceneNode,
  bend: [number, number],
  width: number,
): void {
  const t = 0.58;
  const x = (1 - t) ** 2 * from.x + 2 * (1 - t) * t * bend[0] + t ** 2 * to.x;
  const y = (1 - t) ** 2 * from.y + 2 * (1 - t) * t * bend[1] + t ** 2 * to.y;
  const angle = Math.atan2(to.y - from.y, to.x - from.x);
  const size = 4 + width;
  pen.fillStyle = pen.strokeStyle;
  pen.beginPath();
  pen.moveTo(x + Math.cos(angle) * size, y + Math.sin(angle) * size);
  pen.lineTo(x + Math.cos(angle + 2.5) * size, y + Math.sin(angle + 2.5) * size);
  pen.lineTo(x + Math.cos(angle - 2.5) * size, y + Math.sin(angle - 2.5) * size);
  pen.fill();
}

function drawNode(
  pen: CanvasRenderingContext2D,
  view: View,
  picture: Picture,
  inks: Ink,
  node: SceneNode,
  near: Set<string> | null,
): void {
  const far = near && !near.has(node.id);
  pen.globalAlpha = far ? 0.25 : 1;
  pen.beginPath();
  outline(pen, node);
  pen.fillStyle = inks.surface;
  pen.fill();
  pen.lineWidth = Math.max(1.5, 1.5 / view.scale);
  pen.strokeStyle =
    node.id === picture.chosen ? inks.accent : node.denied > 0 ? inks.denied : inks.text;
  if (node.kind === "external") pen.setLineDash([3, 2]);
  pen.stroke();
  pen.setLineDash([]);
  if (node.id === picture.chosen) {
    pen.globalAlpha = 0.25;
    pen.lineWidth = 6;
    pen.stroke();
  }
  pen.globalAlpha = 1;
}

/** Namespaces are rounded squares, nodes of the cluster squares, all else round. */
function outline(pen: CanvasRenderingContext2D, { kind, x, y, radius }: SceneNode): void {
  if (kind === "namespace")
    pen.roundRect(x - radius, y - radius, radius * 2, radius * 2, radius / 2.5);
  else if (kind === "node") pen.rect(x - radius, y - radius, radius * 2, radius * 2);
  else pen.arc(x, y, radius, 0, TURN);
}

/** What is to be seen with a node or an edge: its other ends, and itself. */
function neighbours(picture: Picture, shown: string): Set<string> {
  const near = new Set([shown]);
  for (const { source, target } of picture.edges) {
    if (source === shown || target === shown || shown === `${source} ${target}`) {
      near.add(source);
      near.add(target);
    }
  }
  return near;
}

/** The largest first; a label that would lie on another is left out until one comes closer. */
function drawLabels(
  pen: CanvasRenderingContext2D,
  view: View,
  picture: Picture,
  inks: Ink,
  shown: string,
  near: Set<string> | null,
): void {
  const height = 12 / view.scale;
  pen.font = `${height}px ${inks.font}`;
  pen.textAlign = "center";
  pen.textBaseline = "top";
  pen.lineJoin = "round";
  const taken: [number, number, number, number][] = picture.nodes.map(({ x, y, radius }) => [
    x - radius,
    y - radius,
    x + radius,
    y + radius,
  ]);
  const first = picture.nodes.filter((each) => each.id === shown);
  for (const node of [...first, ...picture.nodes]) {
    const text = shortened(node.label, 13, 10);
    const wide = pen.measureText(text).width;
    const [left, top] = [node.x - wide / 2, node.y + node.radius + 3 / view.scale];
    const [right, bottom] = [left + wide, top + height];
    const hidden = taken.some(([l, t, r, b]) => left < r && right > l && top < b && bottom > t);
    if (hidden) continue;
    taken.push([left, top, right, bottom]);
    const far = near && !near.has(node.id);
    pen.globalAlpha = far ? 0.25 : 1;
    pen.strokeStyle = inks.ground;
    pen.lineWidth = 3 / view.scale;
    pen.strokeText(text, node.x, top);
    pen.fillStyle = inks.text;
    pen.fillText(text, node.x, top);
  }
  pen.globalAlpha = 1;
  pen.textBaseline = "alphabetic";
}
