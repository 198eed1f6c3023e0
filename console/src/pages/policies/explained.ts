// What `explain` answers.
export interface Check {
  what: string;
  matches: boolean | null;
  part: string | null;
  why: string;
}

export interface PolicyName {
  kind: string;
  namespace: string;
  name: string;
}

export interface Step {
  stage: string;
  policy: PolicyName;
  rule: string;
  isolation: boolean;
  action: string;
  selects: Check | null;
  matches: boolean | null;
  part: string | null;
  why: string;
  reached: boolean;
  decides: boolean;
  peers: Check[] | null;
  ports: Check[] | null;
}

export interface WayOf {
  direction: "egress" | "ingress";
  conclusion: string;
  denies: boolean;
  text: string;
  decided: number | null;
  steps: Step[];
  omitted: number;
  others: { policy: PolicyName; why: string }[];
  othersOmitted: number;
  hidden: boolean;
  /** What the stored record says; null where none is asked about. */
  reported?: { text: string; agrees: boolean | null } | null;
}

export interface EndOf {
  kind: string;
  text: string;
}

export interface ExplainedConnection {
  source: EndOf;
  destination: EndOf;
  protocol: string;
  port: number;
  verdict: string;
  egress: WayOf;
  ingress: WayOf;
}

export interface ExplainAnswer {
  at: number;
  now: boolean;
  known: boolean;
  knownFrom: number | null;
  verdict: string;
  service: string | null;
  connections: ExplainedConnection[];
  more: number;
  notes: string[];
}
