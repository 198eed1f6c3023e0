// What each policy and rule let through or stopped; what no policy covers; and why.
import { useEffect, useState } from "preact/hooks";
import type { Policies as PoliciesAnswer, Policy, PolicyRule, Query } from "../api";
import { asked, useAnswer } from "../asking";
import { both, equals } from "../conditions";
import { DENIED } from "../dimensions";
import { change, follow, parameter, to } from "../location";
import { Answered, Panel } from "../parts/Panel";
import { Table } from "../parts/Table";
import { Name, Num } from "../parts/values";
import { type Group, groups } from "../rows";
import { ago, fully } from "../times";
import { Explanation } from "./policies/Explanation";

export default function Policies() {
  const result = useAnswer<PoliciesAnswer>("policies", asked());
  return (
    <div class="beside">
      <div class="column">
        <Panel title="Policies" aside={<Uncovered answer={result.value} />} class="fills">
          <Answered
            asked={result}
            empty={(value) =>
              !value.policies.length &&
              "There is no network policy that you may see, and none decided anything in this range."
            }
          >
            {({ policies, more }) => (
              <>
                <Rules policies={policies} />
                {!!more && <p class="state">And {more} further policies, which are not listed.</p>}
              </>
            )}
          </Answered>
        </Panel>
      </div>
      <aside class="side wide-side" aria-label="Why">
        <Explain />
        <DeniedBy />
      </aside>
    </div>
  );
}

function Uncovered({ answer }: { answer: PoliciesAnswer | null }) {
  if (!answer) return null;
  const { connections, octets } = answer.uncovered;
  return (
    <a href={to("flows", { filter: both(parameter("filter"), "verdict = none") })} onClick={follow}>
      No policy covers <Num value={connections} /> connections, <Num value={octets} unit="octets" />
    </a>
  );
}

interface Line {
  policy: Policy;
  rule: PolicyRule | null;
  first: boolean;
}

function lines(policies: Policy[]): Line[] {
  return policies.flatMap((policy): Line[] =>
    policy.rules.length
      ? policy.rules.map((rule, at) => ({ policy, rule, first: at === 0 }))
      : [{ policy, rule: null, first: true }],
  );
}

const KINDS: Record<string, string> = {
  NetworkPolicy: "K8s",
  ClusterNetworkPolicy: "Antrea cluster",
  AdminNetworkPolicy: "K8s admin",
  BaselineAdminNetworkPolicy: "K8s baseline",
};

function Rules({ policies }: { policies: Policy[] }) {
  const name = ({ policy }: Line) =>
    policy.namespace ? `${policy.namespace}/${policy.name}` : policy.name;
  return (
    <Table<Line>
      label="Policies and rules"
      scrolls
      rows={lines(policies)}
      id={(line, at) => `${name(line)} ${line.policy.direction} ${line.rule?.name ?? ""} ${at}`}
      mark={({ rule }) => (rule?.denied ? "is-denied" : "")}
      columns={[
        {
          key: "policy",
          title: "Policy",
          width: "30%",
          cell: (line) => (
            <span class={line.first ? undefined : "faint"}>
              <Name text={name(line)} />
            </span>
          ),
          order: name,
        },
        {
          key: "kind",
          title: "Kind",
          width: "11%",
          cell: ({ policy }) => <span class="faint">{KINDS[policy.kind] ?? policy.kind}</span>,
          order: ({ policy }) => policy.kind,
        },
        {
          key: "direction",
          title: "Direction",
          width: "68px",
          cell: ({ policy }) => <span class="faint">{policy.direction}</span>,
        },
        {
          key: "rule",
          title: "Rule",
          width: "18%",
          cell: ({ rule }) => (
            <Name text={rule?.name} none={rule ? "default isolation" : "no rule"} />
          ),
        },
        {
          key: "action",
          title: "Action",
          width: "64px",
          cell: ({ rule }) =>
            rule && (
              <span class={/drop|reject/i.test(rule.action) ? "tag tag-denied" : "tag"}>
                {rule.action}
              </span>
            ),
        },
        {
          key: "connections",
          title: "Conn.",
          width: "60px",
          tip: "Connections it decided about",
          numeric: true,
          cell: ({ rule }) => <Num value={rule?.connections} />,
          order: ({ rule }) => rule?.connections ?? 0,
        },
        {
          key: "octets",
          title: "Bytes",
          width: "76px",
          numeric: true,
          cell: ({ rule }) => <Num value={rule?.octets} unit="octets" />,
          order: ({ rule }) => rule?.octets ?? 0,
        },
        {
          key: "denied",
          title: "Denied",
          width: "60px",
          numeric: true,
          cell: ({ rule }) => <Num value={rule?.denied} />,
          order: ({ rule }) => rule?.denied ?? 0,
        },
        {
          key: "last",
          title: "Last",
          width: "88px",
          tip: "When it last decided",
          numeric: true,
          cell: ({ policy, rule }) =>
            rule?.last ? (
              <span data-tip={fully(rule.last)}>{ago((Date.now() - rule.last) / 1000)}</span>
            ) : (
              <span class="faint">
                {policy.unused ? "unused" : policy.exists === false ? "gone" : "–"}
              </span>
            ),
          order: ({ rule }) => rule?.last ?? 0,
        },
      ]}
    />
  );
}

function DeniedBy() {
  const filter = both(parameter("filter"), DENIED);
  const result = useAnswer<Query>("query", {
    ...asked(),
    filter,
    by: "src.pod,dst.pod,proto,dst.port",
    measure: "denied",
    limit: 25,
  });
  const explain = (row: Group) => {
    const names = ["src.pod", "dst.pod", "proto", "dst.port"];
    const conditions = names.map((name, at) => equals(name, row.values[at] ?? ""));
    change({ explain: both(filter, ...conditions), would: null });
  };
  return (
    <Panel title="Denied connections" aside="choose one: why">
      <Answered
        asked={result}
        empty={(query) => !query.rows.length && "No connection was denied in this range."}
      >
        {(query) => (
          <Table<Group>
            label="Denied connections"
            rows={groups(query)}
            id={(row) => JSON.stringify(row.values)}
            onOpen={explain}
            columns={[
              {
                key: "source",
                title: "Source",
                width: "36%",
                cell: (row) => <Name text={row.values[0]} none="not of a Pod" />,
              },
              {
                key: "destination",
                title: "Destination",
                width: "36%",
                cell: (row) => <Name text={row.values[1]} none="not of a Pod" />,
              },
              { key: "port", title: "Port", numeric: true, cell: (row) => row.values[3] },
              {
                key: "denied",
                title: "Denied",
                numeric: true,
                cell: (row) => <Num value={row.measures[0]} />,
              },
            ]}
          />
        )}
      </Answered>
    </Panel>
  );
}

/** Whether a connection would be allowed now, as the URL has it: source and destination. */
function would(): { source: string; destination: string } | null {
  const [source, destination] = parameter("would").split(",");
  return source && destination ? { source, destination } : null;
}

function Explain() {
  const stored = parameter("explain");
  const now = would();
  const [source, setSource] = useState(now?.source ?? "");
  const [target, setTarget] = useState(now?.destination ?? "");
  const asking = parameter("would");
  useEffect(() => {
    if (!now) return;
    setSource(now.source);
    setTarget(now.destination);
  }, [asking]);
  const ask = (event: Event) => {
    event.preventDefault();
    change({ would: `${source.trim()},${target.trim()}`, explain: null });
  };
  return (
    <Panel
      title="Why"
      aside={
        (stored || now) && (
          <button
            type="button"
            aria-label="Close the explanation"
            onClick={() => change({ explain: null, would: null })}
          >
            ×
          </button>
        )
      }
    >
      <form class="explain" onSubmit={ask}>
        <input
          aria-label="Source"
          placeholder="namespace/pod or address"
          value={source}
          onInput={(event) => setSource(event.currentTarget.value)}
        />
        <span class="faint">to</span>
        <input
          aria-label="Destination and port"
          placeholder="namespace/pod:port"
          value={target}
          onInput={(event) => setTarget(event.currentTarget.value)}
        />
        <button type="submit" disabled={!source.trim() || !target.trim()}>
          Explain
        </button>
      </form>
      {stored ? (
        <Explanation key={stored} of={{ ...asked(), filter: stored }} />
      ) : (
        now && <Explanation key={parameter("would")} of={now} />
      )}
    </Panel>
  );
}
