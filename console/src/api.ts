// The aggregator's HTTP API (/api/v1), as far as the console asks it. The console computes nothing
// that the API can: what it shows is what was answered.
import { signal } from "@preact/signals";

export interface Missing {
  node: string | null;
  cluster: string | null;
  stage: string;
  reason: string;
  records: number;
  from: number;
  to: number;
  text: string;
}

export interface Answer {
  from: number;
  to: number;
  table: string;
  rowsRead: number;
  bytesRead: number;
  seconds: number;
  complete: boolean;
  missing: Missing[];
  notes: string[];
}

export type Cell = string | number | boolean | null;

export interface Column {
  name: string;
  kind: "dimension" | "measure";
  type: string;
  unit: string | null;
}

export interface Compared {
  from: number;
  to: number;
  rows: (number[] | null)[];
  total: number[];
  totalSeries?: (number | null)[][] | null;
}

export interface Query {
  columns: Column[];
  rows: Cell[][];
  other: number[] | null;
  total: number[];
  times: number[] | null;
  series: (number | null)[][][] | null;
  otherSeries: (number | null)[][] | null;
  totalSeries: (number | null)[][] | null;
  compared: Compared | null;
  answer: Answer;
}

export type NodeKind =
  | "namespace"
  | "workload"
  | "pod"
  | "service"
  | "node"
  | "zone"
  | "region"
  | "external"
  | "unknown";

export interface GraphNode {
  id: string;
  names: Cell[];
  kind: NodeKind;
  bothOctets: number;
  connections: number;
  denied: number;
}

export interface GraphEdge {
  source: string;
  target: string;
  bothOctets: number;
  packets: number;
  connections: number;
  denied: number;
  unanswered: number;
  throughput: number;
}

export interface Graph {
  nodes: GraphNode[];
  edges: GraphEdge[];
  others: { hidden: number } | null;
  compared: { nodes: GraphNode[]; edges: GraphEdge[] } | null;
  answer: Answer;
}

export interface Flows {
  columns: { name: string; type: string }[];
  rows: Cell[][];
  cursor: string | null;
  answer: Answer;
}

export type FlowRecord = Record<string, Cell>;

export interface Completion {
  from: number;
  to: number;
  options: { text: string; kind: string; help: string | null; count: number | null }[];
  error: FilterProblem | null;
}

export interface FilterProblem {
  message: string;
  position?: number | null;
  length?: number | null;
  expected?: string | string[] | null;
  suggestion?: string | null;
}

export interface FieldName {
  name: string;
  kind: string;
  help: string;
  sides: boolean;
  values: Cell[] | null;
  operators: string[];
  dimension: boolean;
}

export interface Fields {
  names: FieldName[];
  measures: { name: string; unit: string; help: string }[];
}

export interface PolicyRule {
  name: string;
  action: string;
  connections: number;
  octets: number;
  packets: number;
  denied: number;
  last: number | null;
}

export interface Policy {
  kind: string;
  namespace: string;
  name: string;
  direction: string;
  /** False: only records name it. */
  exists?: boolean;
  rules: PolicyRule[];
  unused: boolean;
}

export interface Policies {
  policies: Policy[];
  uncovered: { connections: number; octets: number };
  /** Policies beyond the limit. */
  more?: number;
  answer: Answer;
}

export interface Occupant {
  namespace: string;
  kind: string;
  workload: string;
  end: "source" | "destination";
  entries: number;
  unanswered: number;
}

export interface ExporterNode {
  name: string;
  lastHeardSeconds: number | null;
  recordsPerSecond: number;
  received: number;
  lost: number;
  gaps: number;
  complete: boolean;
  clockSkewSeconds: number | null;
  conntrack: { entries: number; max: number } | null;
  /** Whose connections fill its conntrack, the most first; null where its exporter is too old. */
  occupants: Occupant[] | null;
  problems: string[];
}

export interface Me {
  user: string;
  namespaces: "*" | string[];
  may: { sql: boolean; nodes: boolean };
}

export interface SqlResult {
  columns: string[];
  types: string[];
  rows: Cell[][];
  truncated: boolean;
  error?: string | { message: string };
}

export type Parameters = Record<string, string | number | undefined>;

/** The API said no, or there was no answer at all (status 0). */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly problem: FilterProblem;

  constructor(status: number, code: string, problem: FilterProblem) {
    super(problem.message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.problem = problem;
  }
}

/** The session is over, or was never begun. */
export const loggedOut = signal(false);
/** Of what was asked last there was no answer at all. */
export const unreachable = signal(false);

/** The same question may have an answer in a moment: nothing answered, or too much was asked. */
export function passes(error: ApiError | null): boolean {
  return error !== null && [0, 429, 503].includes(error.status);
}

export const BASE = "api/v1";

/** The same-origin mark that the API wants beside the session's cookie. */
const HEADERS = { "X-Flowvis": "1", Accept: "application/json" };

export function address(path: string, parameters: Parameters = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return text ? `${BASE}/${path}?${text}` : `${BASE}/${path}`;
}

export async function get<T>(
  path: string,
  parameters: Parameters = {},
  signal: AbortSignal | null = null,
): Promise<T> {
  return request<T>(address(path, parameters), { signal });
}

export async function post<T>(
  path: string,
  body: unknown,
  signal: AbortSignal | null = null,
  reviver?: Reviver,
): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  const init = { method: "POST", headers, body: JSON.stringify(body), signal };
  return request<T>(`${BASE}/${path}`, init, reviver);
}

/** For JSON.parse: whole numbers beyond 2^53 are their digits, as a Number would be another one. */
export function exactly(_: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  const source = context?.source ?? "";
  return /^-?\d+$/.test(source) ? source : value;
}

type Reviver = typeof exactly;

interface Asking {
  method?: string;
  body?: string;
  headers?: Record<string, string>;
  signal: AbortSignal | null;
}

async function request<T>(url: string, init: Asking, reviver?: Reviver): Promise<T> {
  const response = await answered(url, init);
  const text = await whole(response);
  try {
    return (text ? JSON.parse(text, reviver) : null) as T;
  } catch {
    throw new ApiError(response.status, "cut-off", { message: "The answer was cut off." });
  }
}

/** What the API says yes to, as it begins; an ApiError where it says no or nothing. */
export async function answered(url: string, init: Asking): Promise<Response> {
  const headers = { ...HEADERS, ...init.headers };
  const given: RequestInit = { credentials: "same-origin", cache: "no-store", ...init, headers };
  const response = await fetch(url, given).catch((error: unknown): never => {
    if (init.signal?.aborted) throw error;
    unreachable.value = true;
    throw new ApiError(0, "unreachable", { message: "The aggregator does not answer." });
  });
  unreachable.value = false;
  if (response.ok) return response;
  if (response.status === 401) loggedOut.value = true;
  throw refusal(response.status, await whole(response));
}

/** A body to its end; where the connection ends before, there is no answer. */
async function whole(response: Response): Promise<string> {
  try {
    return await response.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "cut-off", { message: "The answer was cut off." });
  }
}

function refusal(status: number, text: string): ApiError {
  try {
    const { error } = JSON.parse(text);
    if (typeof error === "string") return new ApiError(status, "error", { message: error });
    return new ApiError(status, String(error.code), error);
  } catch {
    return new ApiError(status, "error", { message: `The aggregator answered ${status}.` });
  }
}
