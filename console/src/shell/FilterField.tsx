// The filter: one line of text, completed by the aggregator, its errors shown in their place.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { type Completion, type FilterProblem, get } from "../api";
import { refused } from "../asking";
import { change, parameter } from "../location";

const PAUSE = 120; // ms without a key before the aggregator is asked

const NONE: Completion = { from: 0, to: 0, options: [], error: null };

async function completion(text: string, position: number, signal?: AbortSignal) {
  return get<Completion>("complete", { text, position }, signal ?? null);
}

export function FilterField() {
  const applied = parameter("filter");
  const [text, write] = useState(applied);
  const [offered, offer] = useState<Completion>(NONE);
  const [open, show] = useState(false);
  const [chosen, choose] = useState(-1);
  const [problem, say] = useState<FilterProblem | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const asking = useRef<AbortController>(null);
  const list = useId();

  useEffect(() => {
    write(applied);
    say(null);
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

  const complete = (value: string, wait = PAUSE) => {
    asking.current?.abort();
    const abort = new AbortController();
    asking.current = abort;
    const position = input.current?.selectionStart ?? value.length;
    setTimeout(() => {
      if (abort.signal.aborted) return;
      completion(value, position, abort.signal).then(
        (found) => {
          offer(found);
          choose(-1);
          show(found.options.length > 0);
        },
        () => show(false), // completion is a help, no more
      );
    }, wait);
  };
  const insert = (index: number) => {
    const option = offered.options[index];
    if (!option) return;
    const after = text.slice(offered.to);
    const gap = /^\s/.test(after) || option.text.endsWith("(") ? "" : " ";
    const next = text.slice(0, offered.from) + option.text + gap + after;
    const caret = offered.from + option.text.length + 1;
    write(next);
    say(null);
    requestAnimationFrame(() => {
      input.current?.setSelectionRange(caret, caret);
      complete(next, 0);
    });
  };
  const apply = async () => {
    asking.current?.abort();
    show(false);
    const value = text.trim();
    try {
      const { error } = await completion(value, value.length);
      if (error) {
        say(error);
        return;
      }
    } catch {
      // The pages will say what is wrong with the aggregator.
    }
    say(null);
    change({ filter: value, cursor: null });
  };
  const press = (event: KeyboardEvent) => {
    const count = offered.options.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) complete(text, 0);
      else if (event.key === "ArrowDown") choose((chosen + 1) % count);
      else choose(chosen <= 0 ? count - 1 : chosen - 1);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && chosen >= 0) insert(chosen);
      else apply();
    } else if (event.key === "Tab" && open && !event.shiftKey && count) {
      event.preventDefault();
      insert(Math.max(chosen, 0));
    } else if (event.key === "Escape") {
      if (open) show(false);
      else {
        write(applied);
        say(null);
      }
    }
  };
  const repaired = shown && suggested(text, shown);

  return (
    <div class="filter">
      <div class={shown ? "filter-box wrong" : "filter-box"}>
        {shown && <Underline text={text} problem={shown} />}
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
            write(event.currentTarget.value);
            say(null);
            complete(event.currentTarget.value);
          }}
          onFocus={() => complete(text, 0)}
          onBlur={() => {
            asking.current?.abort();
            show(false);
          }}
          onKeyDown={press}
        />
        {text !== applied && !shown && <kbd>Enter</kbd>}
        {applied && text === applied && (
          <button
            type="button"
            aria-label="Clear the filter"
            onClick={() => change({ filter: null })}
          >
            ×
          </button>
        )}
      </div>
      {open && (
        <ul class="completions" id={list} role="listbox" aria-label="Completions">
          {offered.options.slice(0, 12).map((option, index) => (
            <li
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
            </li>
          ))}
        </ul>
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
                write(repaired);
                say(null);
                input.current?.focus();
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

function suggested(text: string, problem: FilterProblem): string | null {
  const { position, length, suggestion } = problem;
  if (!suggestion || position === null || position === undefined) return null;
  return text.slice(0, position) + suggestion + text.slice(position + (length ?? 0));
}

/** The same text behind the field's, with a wave under what is wrong. */
function Underline({ text, problem }: { text: string; problem: FilterProblem }) {
  if (problem.position === null || problem.position === undefined) return null;
  const end = problem.position + Math.max(problem.length ?? 1, 1);
  return (
    <div class="underline mono" aria-hidden="true">
      <span>{text.slice(0, problem.position)}</span>
      <u>{text.slice(problem.position, end) || " "}</u>
    </div>
  );
}
