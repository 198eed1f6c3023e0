// Why a connection was allowed or denied, as the aggregator says it.
export interface Explained {
  source: string;
  destination: string;
  port: string;
  protocol: string;
  at: string;
}

export function Explanation(_: { of: Explained; brief?: boolean }) {
  return null;
}
