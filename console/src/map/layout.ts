// What the map's layout is told and tells; it runs in a worker, see layout.worker.ts.

export interface PlacedNode {
  id: string;
  radius: number;
  /** Nodes of one group are kept together; empty: none. */
  group: string;
  /** Where it was before, if it was on the map. */
  x?: number;
  y?: number;
}

export interface Tie {
  source: string;
  target: string;
  /** From 0 to 1: how much it pulls. */
  weight: number;
}

export interface LayoutQuestion {
  turn: number;
  nodes: PlacedNode[];
  ties: Tie[];
  /** Width by height of the place, so that the map has its shape. */
  aspect: number;
}

export interface LayoutAnswer {
  turn: number;
  /** x and y of each node, in the order of the question. */
  places: Float32Array;
}
