// The filter: one line of text, completed by the aggregator, its errors shown in their place.
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Completion, type FilterProblem, get } from "../api";
import { refused } from "../asking";
import { change, parameter } from "../location";

const PAUSE = 120; // ms without a key before the aggregator is asked

/** What completes a text. */
type Offer = Completion & { text: string };

const NONE: Offer = { text: "", from: 0, to: 0, options: [], error: null };

async function completion(text: string, position: number, signal?: AbortSignal) {
  return get<Completion>("complete", { text, position }, signal ?? null);
}

export function FilterField() {
  const applied = parameter("filter");
  const [text, write] = useState(applied);
  const [offered, offer] = useState<Offer>(NONE);
  const [opened, show] = useState(false);
  const [named, choose] = useState(""); // what is chosen of what is offered, whichever answer has it
  const [problem, say] = useState<FilterProblem | null>(null);
  const [scrolled, scroll] = useState(0);
  const input = useRef<HTMLInputElement>(null);
  const asking = useRef<AbortController>(null);
  const applying = useRef<AbortController>(null);
  const typedOn = useRef(false); // what is applied is not what the field has by now
  const inserted = useRef<number>(null); // where the caret goes, once what was inserted is there
  const list = useId();

  // What completes another text has nothing to do with this one.
  const open = opened && offered.text === text;
  const chosen = shownOptions(offered).findIndex((each) => each.text === named);

  useEffect(() => {
    if (!typedOn.current) {
      write(applied);
      say(null);
    }
    typedOn.current = false;
  }, [applied]);
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      const typing =
        event.target instanceof HTMLElement &&
        event.target.closest("input, textarea, [contenteditable], .editor");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      input.current?.focus();
    };
    document.addEventListener("keydown", keys);
    return () => document.removeEventListener("keydown", keys);
  }, []);

  const fromUrl = refused.value?.filter === text ? refused.value.error.problem : null;
  const shown = problem ?? fromUrl;

  const hide = () => {
    show(false);
    choose("");
  };
  const complete = (value: string, wait = PAUSE) => {
    asking.current?.abort();
    const abort = new AbortController();
    asking.current = abort;
    const caret = input.current?.selectionStart ?? value.length;
    const position = [...value.slice(0, caret)].length;
    setTimeout(() => {
      if (abort.signal.aborted) return;
      completion(value, position, abort.signal).then(
        (found) => {
          if (abort.signal.aborted) return;
          offer({ ...found, text: value });
          show(found.options.length > 0);
        },
        () => abort.signal.aborted || hide(), // completion is a help, no more
      );
    }, wait);
  };
  const insert = (index: number) => {
    const option = offered.options[index];
    if (!option) return;
    const points = [...text];
    const before = points.slice(0, offered.from).join("");
    const after = points.slice(offered.to).join("");
    const gap = /^\s/.test(after) || /[(.]$/.test(option.text) ? "" : " ";
    const next = before + option.text + gap + after;
    const caret = before.length + option.text.length + (/[(.]$/.test(option.text) ? 0 : 1);
    put(next, caret);
  };
  const put = (next: string, caret: number) => {
    write(next);
    say(null);
    // What was offered is of the text before: Enter once more is to ask, not to insert again.
    hide();
    inserted.current = caret;
  };
  // Before the next key: a frame later it would ask about a text that somebody has gone on with.
  useLayoutEffect(() => {
    const caret = inserted.current;
    if (caret === null) return;
    inserted.current = null;
    input.current?.setSelectionRange(caret, caret);
    complete(text, 0);
  });
  const apply = async () => {
    asking.current?.abort();
    applying.current?.abort(); // the last Enter counts, whichever answer comes last
    const abort = new AbortController();
    applying.current = abort;
    hide();
    const value = text.trim();
    let error: FilterProblem | null | undefined = null;
    try {
      ({ error } = await completion(value, [...value].length, abort.signal));
    } catch {
      // The pages will say what is wrong with the aggregator.
    }
    if (abort.signal.aborted) return;
    // Somebody may have gone on, whose text stays, and of which nothing is known to be wrong.
    const same = input.current?.value.trim() === value;
    if (error) {
      if (same) say(error);
      return;
    }
    if (same) say(null);
    typedOn.current = !same && value !== applied;
    change({ filter: value, cursor: null });
  };
  const keys: Record<string, () => boolean> = {
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    Enter: () => {
      if (open && chosen >= 0) insert(chosen);
      else void apply();
      return true;
    },
    Tab: () => {
      if (!open || offered.options.length === 0) return false;
      insert(Math.max(chosen, 0));
      return true;
    },
    Escape: () => {
      asking.current?.abort();
      if (open) hide();
      else {
        applying.current?.abort();
        write(applied);
        say(null);
      }
      return true;
    },
  };
  const step = (by: number) => {
    const options = shownOptions(offered);
    const count = options.length;
    const next = chosen < 0 ? (by > 0 ? 0 : count - 1) : (chosen + by + count) % count;
    if (open) choose(options[next]?.text ?? "");
    else complete(text, 0);
    return true;
  };
  const press = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // those are the browser's
    if (event.shiftKey && event.key === "Tab") return;
    if (keys[event.key]?.()) event.preventDefault();
  };
  const repaired = shown && suggested(text, shown);

  return (
    <div class="filter">
      <div class={shown ? "filter-box wrong" : "filter-box"}>
        {shown && <Underline text={text} problem={shown} scrolled={scrolled} />}
        <input
          ref={input}
          type="text"
          class="mono"
          role="combobox"
          aria-label="Filter"
          aria-expanded={open}
          aria-controls={list}
          aria-autocomplete="list"
          aria-activedescendant={open && chosen >= 0 ? `${list}-${chosen}` : undefined}
          aria-invalid={shown !== null}
          aria-describedby={shown ? `${list}-problem` : undefined}
          placeholder="Filter, as in: src.namespace = shop ( / )"
          spellcheck={false}
          autocomplete="off"
          autocapitalize="off"
          value={text}
          onInput={(event) => {
            const value = event.currentTarget.value;
            const left = narrowed(offered, value);
            write(value);
            say(null);
            offer(left);
            choose("");
            show(open && left.options.length > 0);
            complete(value);
          }}
          onScroll={(event) => scroll(event.currentTarget.scrollLeft)}
          onFocus={() => complete(text, 0)}
          onBlur={() => {
            asking.current?.abort();
            hide();
          }}
          onKeyDown={press}
        />
        {text !== applied && !shown && <kbd>Enter</kbd>}
        {applied && text === applied && (
          <button
            type="button"
            aria-label="Clear the filter"
            onClick={() => {
              change({ filter: null });
              input.current?.focus(); // the button is gone
            }}
          >
            ×
          </button>
        )}
      </div>
      {open && (
        <div class="completions" id={list} role="listbox" aria-label="Completions">
          {shownOptions(offered).map((option, index) => (
            <div
              key={option.text}
              id={`${list}-${index}`}
              role="option"
              tabIndex={-1}
              aria-selected={index === chosen}
              onPointerDown={(event) => {
                event.preventDefault(); // the field keeps the focus
                insert(index);
              }}
            >
              <span class="mono">{option.text}</span>
              <span class="help">{option.help}</span>
              {option.count !== null && option.count !== undefined && (
                <span class="num faint">{option.count}</span>
              )}
            </div>
          ))}
        </div>
      )}
      {shown && (
        <p class="filter-problem" role="alert" id={`${list}-problem`}>
          <span>{shown.message}</span>
          {shown.expected && !shown.message.includes(String(shown.expected)) && (
            <span class="faint"> Expected: {[shown.expected].flat().join(", ")}.</span>
          )}
          {repaired && (
            <button
              type="button"
              onPointerDown={(event) => event.preventDefault()}
              onClick={() => {
                input.current?.focus();
                put(repaired.text, repaired.caret);
              }}
            >
              Use <span class="mono">{shown.suggestion}</span>
            </button>
          )}
        </p>
      )}
    </div>
  );
}

/** What is left of an offer as somebody types on; nothing where it was of another word. */
function narrowed(offered: Offer, text: string): Offer {
  const [before, now] = [[...offered.text], [...text]];
  const to = offered.to + now.length - before.length;
  const word = now.slice(offered.from, to).join("").toLowerCase();
  const around = (points: string[], end: number) =>
    [points.slice(0, offered.from).join(""), points.slice(end).join("")].join("\n");
  if (to < offered.from || /\s/.test(word) || around(before, offered.to) !== around(now, to))
    return NONE;
  const options = offered.options.filter((each) => each.text.toLowerCase().startsWith(word));
  return { ...offered, text, to, options };
}

const SHOWN = 12;

function shownOptions(offered: Completion): Completion["options"] {
  return offered.options.slice(0, SHOWN);
}

/** The text with what is suggested in place of what is wrong, and where that ends. */
function suggested(text: string, problem: FilterProblem): { text: string; caret: number } | null {
  const { position, length, suggestion } = problem;
  if (!suggestion || position === null || position === undefined) return null;
  const points = [...text]; // the aggregator counts code points
  const before = points.slice(0, position).join("") + suggestion;
  const after = points.slice(position + (length ?? 0)).join("");
  return { text: before + after, caret: before.length };
}

interface UnderlineProps {
  text: string;
  problem: FilterProblem;
  /** How far the field's text is scrolled, px. */
  scrolled: number;
}

/** The same text behind the field's, with a wave under what is wrong. */
function Underline({ text, problem, scrolled }: UnderlineProps) {
  if (problem.position === null || problem.position === undefined) return null;
  const end = problem.position + Math.max(problem.length ?? 1, 1);
  const points = [...text];
  return (
    <div class="underline mono" aria-hidden="true">
      <span style={{ marginLeft: `${-scrolled}px` }}>
        {points.slice(0, problem.position).join("")}
      </span>
      <u>{points.slice(problem.position, end).join("") || " "}</u>
    </div>
  );
}
