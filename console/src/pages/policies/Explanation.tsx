// Why a connection was allowed or denied, as the aggregator says it: the rules on its way, in order.
import type { Parameters } from "../../api";
import { useAnswer } from "../../asking";
import { Answered } from "../../parts/Panel";
import { Name } from "../../parts/values";
import { date } from "../../times";
import type {
  Check,
  ExplainAnswer,
  ExplainedConnection,
  PolicyName,
  Step,
  WayOf,
} from "./explained";

interface ExplanationProps {
  /** A connection that is stored (a filter and a range), or two ends and a port: by the policies of now. */
  of: Parameters;
  /** Only what decided. */
  brief?: boolean;
}

const VERDICTS: Record<string, string> = {
  allowed: "tag tag-new",
  denied: "tag tag-denied",
};

export function Explanation({ of, brief = false }: ExplanationProps) {
  const result = useAnswer<ExplainAnswer>("explain", of, "once");
  return (
    <Answered asked={result}>
      {(answer) => (
        <div class="explained">
          {!answer.known && (
            <p class="state">
              The aggregator does not know the policies of then
              {answer.knownFrom ? `: it knows them since ${date(answer.knownFrom)}` : ""}.
            </p>
          )}
          {!brief && (
            <p class="explained-verdict">
              <span class={VERDICTS[answer.verdict] ?? "tag tag-unsure"}>{answer.verdict}</span>{" "}
              {answer.now ? "by the policies of now" : `by the policies of ${date(answer.at)}`}
              {answer.service && <span class="faint"> by the Service {answer.service}</span>}
            </p>
          )}
          {answer.notes.map((each) => (
            <p key={each} class="explained-note">
              {each}
            </p>
          ))}
          {answer.connections.slice(0, brief ? 1 : undefined).map((each, at) => (
            <Connection key={`${each.destination.text} ${at}`} of={each} brief={brief} />
          ))}
          {answer.more > 0 && <p class="explained-note">And {answer.more} further endpoints.</p>}
        </div>
      )}
    </Answered>
  );
}

function Connection({ of, brief }: { of: ExplainedConnection; brief: boolean }) {
  return (
    <div class="explained-connection">
      {!brief && (
        <h3>
          {of.source.text} → {of.destination.text}, {of.protocol.toUpperCase()} {of.port}
        </h3>
      )}
      {[of.egress, of.ingress].map((each) => (
        <Way key={each.direction} of={each} brief={brief} />
      ))}
    </div>
  );
}

function Way({ of, brief }: { of: WayOf; brief: boolean }) {
  const steps = brief ? of.steps.filter((each) => each.decides) : of.steps;
  return (
    <section class={of.denies ? "explained-way denies" : "explained-way"}>
      <p>
        <b>{of.direction === "egress" ? "Leaving the source" : "Entering the destination"}:</b>{" "}
        {of.text}
      </p>
      {of.reported && (
        <p class={of.reported.agrees === false ? "problem" : "faint"}>
          The record says: {of.reported.text}
          {of.reported.agrees === false && ", which is something else"}
        </p>
      )}
      {of.hidden && <p class="faint">The policies of that namespace are not yours to see.</p>}
      {steps.length > 0 && (
        <ol class="steps">
          {steps.map((each, at) => (
            <Rule key={`${policyText(each.policy)} ${each.rule} ${at}`} step={each} brief={brief} />
          ))}
        </ol>
      )}
      {!brief && of.omitted > 0 && (
        <p class="faint">And {of.omitted} further rules that do not match.</p>
      )}
      {!brief && of.others.length > 0 && (
        <details>
          <summary>
            Policies that do not select this end: {of.others.length + of.othersOmitted}
          </summary>
          <ul>
            {of.others.map((each) => (
              <li key={policyText(each.policy)}>
                {policyText(each.policy)}: <span class="faint">{each.why}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

export function policyText(policy: PolicyName): string {
  return policy.namespace ? `${policy.namespace}/${policy.name}` : policy.name;
}

function Rule({ step, brief }: { step: Step; brief: boolean }) {
  const state = step.decides
    ? "decides"
    : step.matches === null
      ? "doubtful"
      : step.reached
        ? ""
        : "unreached";
  return (
    <li class={`step ${state}`}>
      <div class="step-head">
        <Name text={policyText(step.policy)} />
        <span class="faint">
          {step.isolation ? "default isolation" : step.rule && `rule ${step.rule}`}
        </span>
        <span class="tag">{step.action}</span>
        {step.decides && <span class="step-decides">decides</span>}
      </div>
      {step.why && <p class="faint">{step.why}</p>}
      {!brief && <Checks title="Peers" of={step.peers} />}
      {!brief && <Checks title="Ports" of={step.ports} />}
    </li>
  );
}

const MARKS = new Map<boolean | null, string>([
  [true, "✓"],
  [false, "✗"],
  [null, "?"],
]);

function Checks({ title, of }: { title: string; of: Check[] | null }) {
  if (!of?.length) return null;
  return (
    <ul class="step-checks" aria-label={title}>
      {of.map((each) => (
        <li key={each.what} class={each.matches ? "yes" : "faint"}>
          <span aria-hidden="true">{MARKS.get(each.matches)}</span> {each.what}
          {each.why && !each.matches && <span class="faint">: {each.why}</span>}
        </li>
      ))}
    </ul>
  );
}
