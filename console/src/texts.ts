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

function escaped(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}
