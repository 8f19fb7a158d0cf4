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

// Marks that mean nothing to Markdown where they stand: an underscore within a word begins no emphasis, and a colon before
// a space no emoji. What would make a link (www., ://, @, #1, GH-1) is not among them.
const harmless = /[-.,;=+%()/'"?]|(?<=[\p{L}\p{N}])_(?=[\p{L}\p{N}])|:(?=\s|$)/u;
const linking = /(?<=www)\.|(?<=\bGH)-(?=\d)/i;

/**
 * markdown shows value as plain text inside GitHub's Markdown, table cells included. Every mark that could begin a table, a
 * link, a mention, code, emphasis or HTML becomes a character reference, which Markdown reads as text only.
 */
export function markdown(value, max = 200) {
  const text = visible(value, max);
  return text.replace(/[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]/g, (c, at) =>
    matchesAt(harmless, text, at) && !matchesAt(linking, text, at) ? c : `&#${c.charCodeAt(0)};`);
}

function matchesAt(pattern, text, at) {
  const sticky = new RegExp(pattern.source, pattern.flags + 'y');
  sticky.lastIndex = at;
  return sticky.test(text);
}

/** commandData escapes the message of a workflow command, as actions/toolkit does. */
export function commandData(value) {
  return String(value).replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');
}
