// The editor of SQL: CodeMirror, in a shadow root, where its styles are adopted style sheets. The
// Content-Security-Policy knows no inline style, and these are none.
import { autocompletion, closeBrackets, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { SQLDialect, sql } from "@codemirror/lang-sql";
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, keymap, lineNumbers, placeholder } from "@codemirror/view";
import { tags } from "@lezer/highlight";

const CLICKHOUSE = SQLDialect.define({
  keywords:
    "select from where prewhere group by order having limit offset with as and or not in is null like ilike between case when then else end distinct asc desc interval union all join left inner any on using array global sample settings format if count sum avg min max uniq quantile",
  builtin:
    "toDateTime toStartOfMinute toStartOfHour now today yesterday countIf sumIf uniqExact formatReadableSize concat",
  backslashEscapes: true,
});

const LOOK = EditorView.theme({
  "&": { fontSize: "12px", height: "100%", color: "var(--ink)", backgroundColor: "var(--surface)" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-content": { fontFamily: "var(--mono)", caretColor: "var(--ink)" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--ink-3)", border: "none" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": {
    background: "var(--accent-soft) !important",
  },
  ".cm-tooltip": {
    backgroundColor: "var(--raised)",
    color: "var(--ink)",
    border: "1px solid var(--line)",
  },
  ".cm-tooltip-autocomplete ul li[aria-selected]": {
    backgroundColor: "var(--accent-soft)",
    color: "var(--ink)",
  },
});

const COLOURS = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--accent)", fontWeight: "600" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--series-1)" },
  { tag: tags.number, color: "var(--series-0)" },
  { tag: tags.comment, color: "var(--ink-3)" },
]);

export interface Editor {
  text(): string;
  write(text: string): void;
  end(): void;
}

function started(run: () => void): boolean {
  run();
  return true; // the key is taken
}

/** Put an editor into an element. `tables`: names of columns by table, for completion. */
export function edit(
  place: HTMLElement,
  text: string,
  tables: Record<string, string[]>,
  run: () => void,
): Editor {
  const root = place.shadowRoot ?? place.attachShadow({ mode: "open" });
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        keymap.of([{ key: "Mod-Enter", run: () => started(run) }]),
        lineNumbers(),
        history(),
        drawSelection(),
        closeBrackets(),
        autocompletion(),
        sql({ dialect: CLICKHOUSE, schema: tables, upperCaseKeywords: true }),
        syntaxHighlighting(COLOURS),
        placeholder("SELECT …"),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ "aria-label": "SQL query" }),
        LOOK,
        keymap.of([...completionKeymap, ...defaultKeymap, ...historyKeymap]),
      ],
    }),
  });
  return {
    text: () => view.state.doc.toString(),
    write: (next) =>
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: next } }),
    end: () => {
      view.destroy();
      root.replaceChildren();
    },
  };
}
