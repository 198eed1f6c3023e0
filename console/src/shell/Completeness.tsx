// Whether what is on the page is all that there was, in a word; and what is missing and why.
import { type Answer, type Missing, unreachable } from "../api";
import { answers } from "../asking";
import { Menu } from "../parts/Menu";
import { Num } from "../parts/values";
import { said } from "../quantities";
import { between } from "../times";

/**
 * What is missing from any of the answers, once each. Answers a moment apart count the same loss
 * differently; of one place and reason those of the answer that lacks most are all there is.
 */
export function missing(given: Answer[]): Missing[] {
  const found = new Map<string, Missing[]>();
  for (const answer of given) {
    const here = new Map<string, Missing[]>();
    for (const each of answer.missing) {
      here.set(place(each), [...(here.get(place(each)) ?? []), each]);
    }
    for (const [name, lost] of here) {
      if (weight(lost) > weight(found.get(name) ?? [])) found.set(name, lost);
    }
  }
  return [...found.values()].flat();
}

/** Where and why, whatever the numbers in the text. */
function place({ node, cluster, stage, reason, text }: Missing): string {
  return [node, cluster, stage, reason, text.replace(/\d+/g, "")].join("\n");
}

function weight(of: Missing[]): number {
  return of.reduce((sum, each) => sum + (each.records || 1), 0);
}

export function Completeness() {
  const given = answers.value;
  if (unreachable.value) return <span class="books lost">No answer</span>;
  if (given.length === 0) return <span class="books unheard" />; // its place
  const gone = missing(given);
  const complete = given.every((answer) => answer.complete);
  const records = gone.reduce((sum, each) => sum + (each.records || 0), 0);
  const label = complete
    ? "Complete"
    : records
      ? `${said(records)} ${records === 1 ? "record" : "records"} missing`
      : "Incomplete";
  return (
    <Menu
      right
      class={complete ? "books" : "books incomplete"}
      name="Answers:"
      label={
        <>
          <i class="dot" aria-hidden="true" />
          {label}
        </>
      }
    >
      {() => (
        <div class="books-body">
          <h3>{complete ? "Nothing is missing in this range" : "Missing in this range"}</h3>
          {gone.map((each) => (
            <p key={`${each.node} ${each.from} ${each.text}`}>{each.text}</p>
          ))}
          {notes(given).map((each) => (
            <p key={each} class="faint">
              {each}
            </p>
          ))}
          <table aria-label="Answers">
            <thead>
              <tr>
                <th>Table</th>
                <th>Range</th>
                <th class="numeric">Rows read</th>
                <th class="numeric">Time</th>
              </tr>
            </thead>
            <tbody>
              {given.map((answer, index) => (
                <tr key={index}>
                  <td>{answer.table}</td>
                  <td>{between(answer.from, answer.to)}</td>
                  <td class="numeric">
                    <Num value={answer.rowsRead} />
                  </td>
                  <td class="numeric">
                    <Num value={answer.seconds} unit="s" />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Menu>
  );
}

function notes(given: Answer[]): string[] {
  return [...new Set(given.flatMap((answer) => answer.notes))];
}
