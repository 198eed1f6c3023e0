// Whether what is on the page is all that there was, in a word; and what is missing and why.
import type { Answer, Missing } from "../api";
import { answers, unreachable } from "../asking";
import { Menu } from "../parts/Menu";
import { Num } from "../parts/values";
import { said } from "../quantities";
import { clock } from "../times";

/** What is missing from any of the answers, once each. */
export function missing(given: Answer[]): Missing[] {
  const found = new Map<string, Missing>();
  for (const each of given.flatMap((answer) => answer.missing)) {
    found.set(`${each.node} ${each.stage} ${each.reason} ${each.text}`, each);
  }
  return [...found.values()];
}

export function Completeness() {
  const given = answers.value;
  if (unreachable.value) return <span class="books lost">No answer</span>;
  if (given.length === 0) return null;
  const gone = missing(given);
  const complete = given.every((answer) => answer.complete);
  const records = gone.reduce((sum, each) => sum + (each.records || 0), 0);
  const label = complete ? "Complete" : records ? `${said(records)} records missing` : "Incomplete";
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
            <p key={each.text}>{each.text}</p>
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
                  <td>
                    {clock(answer.from)}–{clock(answer.to)}
                  </td>
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
