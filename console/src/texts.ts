// Texts of records as people may trust their eyes: what draws nothing, or turns what follows it
// around (U+202E), stands there as its number, \u{202e}. Records have names of whoever sent them.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** The same text, all of it visible. */
export function visible(text: string): string {
  return text.replace(UNSEEN, escaped);
}

/** The same for a text that we made of several lines. */
export function visibleLines(text: string): string {
  return text.split("\n").map(visible).join("\n");
}

/** The beginning and the end of a text, as slice counts, with no character cut in two. */
export function ends(text: string, head: number, tail: number): [string, string] {
  const points = [...text];
  return [points.slice(0, head).join(""), points.slice(-tail).join("")];
}

/** A text with its middle left out where it has more characters than both ends. */
export function shortened(text: string, head: number, tail: number): string {
  return [...text].length > head + tail + 1 ? ends(text, head, tail).join("…") : text;
}

/** So many of something: "1 row", "2 rows". */
export function several(count: number, one: string): string {
  return `${count} ${count === 1 ? one : `${one}s`}`;
}

function escaped(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
