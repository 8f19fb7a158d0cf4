// Text that others wrote, made safe for the place where it is shown.

// Characters that move the cursor, hide, or turn the reading direction: every control and format character, line and
// paragraph separators, private, unassigned and lone surrogate code points.
const invisible = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}]/gu;

/**
 * visible shows value as one line of at most max characters in which nothing is hidden: what is invisible is written as
 * \u{HEX}. The result is safe in a log line that has a fixed beginning, not in Markdown.
 */
export function visible(value, max = 500) {
  const characters = [...String(value ?? '')];
  const kept = characters.length > max ? [...characters.slice(0, max - 1), '…'] : characters;
  return kept.join('').replace(invisible, (c) => `\\u{${c.codePointAt(0).toString(16).toUpperCase()}}`);
}

/**
 * markdown shows value as plain text inside GitHub's Markdown, table cells included. Every ASCII character that is not a
 * letter, a digit or a space becomes a character reference, which Markdown reads as text only: no table, link, mention,
 * code or HTML can begin in it.
 */
export function markdown(value, max = 200) {
  return visible(value, max).replace(/[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** commandData escapes the message of a workflow command, as actions/toolkit does. */
export function commandData(value) {
  return String(value).replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
}
