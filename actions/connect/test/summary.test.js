import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render } from '../lib/summary.js';
import { markdown, visible } from '../lib/text.js';

const hostile = [
  '<script>alert(1)</script>', '<img src=x onerror=y>', '| a | b |\n|---|---|', '`code` ``` fence', '[x](https://evil.example)',
  'https://evil.example www.evil.example', '@octocat #1', '&lt;b&gt; &#60;', 'line\r\n## heading', '\u202eevil\u2066', '\u001b[2J\u0007\u0000',
  'zero\u200bwidth\u{e0041}', '$$\\frac{1}{2}$$', '~~x~~ **y** _z_', '\\| \\`', '\ud800', '<!-- ', '</td></table>', ':smile:', ':100:', 'GH-12 gh-1', '_a_ __b__', 'WWW.evil.example',
];

test('markdown leaves nothing that Markdown, HTML or a terminal would act upon', () => {
  for (const text of hostile) {
    const bare = markdown(text, 500).replace(/&#\d+;/g, ' ');
    assert.match(bare, /^[\p{L}\p{N}\p{M} \-.,;=+%()/'"?_:]*$/u, text);
    assert.doesNotMatch(bare, /www\.|:\/\/|:\S|\bGH-\d|(^|[^\p{L}\p{N}])_|_([^\p{L}\p{N}]|$)/iu, text);
  }
});

test('markdown leaves names, rules and times as people and programs search for them', () => {
  for (const text of ['ses_g38v1vp3q2k39', 'no-network', 'tool use Bash', 'v1/sessions/dt=2026-11-24/', 'Jobgate: denied (by a rule), "so".']) {
    assert.equal(markdown(text), text);
  }
});

test('markdown keeps the text', () => {
  const decoded = markdown('a|b <c> `d` é 漢', 500).replace(/&#(\d+);/g, (_, n) => String.fromCharCode(n));
  assert.equal(decoded, 'a|b <c> `d` é 漢');
});

test('visible shows what hides, and cuts by characters', () => {
  assert.equal(visible('a\u202eb\n\u{e0041}'), 'a\\u{202E}b\\u{A}\\u{E0041}');
  assert.equal(visible('😀😀😀', 2), '😀…');
  assert.equal(visible(undefined), '');
});

test('a hostile summary keeps its shape: every table line has as many cells as its head', () => {
  for (const text of hostile) {
    const info = {
      mapping: text, scope: text, window: { opens: text, closes: text }, calls: text, denials: 21, would_have_denied: 4, end_reason: text,
      approvals: { asked: text }, connections: [{ name: text, requests: text, input_tokens: -1, output_tokens: 1e99 }, null, 7],
      denied: [{ time: text, connection: text, rule: text, reason: text, what: { toString: () => text } }, null], archive: text,
    };
    let cells = 0;
    for (const line of render(info, { session: text }).split('\n')) {
      if (!line.startsWith('|')) { cells = 0; continue; }
      const here = line.split('|').length;
      assert.equal(here, cells || here, line);
      cells = here;
    }
  }
});

test('what is no object, no list and no number is shown as unknown', () => {
  const page = render({ window: null, approvals: 'x', connections: 'y', denied: 3, calls: 1.5 }, { session: 's' });
  assert.match(page, /\| Calls \| \? \|/);
  assert.match(page, /\| Approvals \| \? asked/);
});

test('the override that applies stands beside its mapping', () => {
  assert.match(render({ mapping: 'octo', override: 'payments' }, { session: 's' }), /\| Mapping \| octo, override payments \|/);
  assert.match(render({ mapping: 'octo' }, { session: 's' }), /\| Mapping \| octo \|/);
});

test('at most 20 refusals are listed, and the rest is counted', () => {
  const page = render({ denials: 90, denied: Array(50).fill({ rule: 'r' }) }, { session: 's' });
  assert.equal(page.match(/\| r \|/g).length, 20);
  assert.match(page, /20 of 90/);
});
