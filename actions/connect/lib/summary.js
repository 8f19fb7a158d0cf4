// The job's page: what a session did, as Markdown. Nothing in it is trusted: rule names come from people, reasons and
// commands from models and from whoever wrote to them.

import { markdown } from './text.js';

/** count returns value if it is a number of things, and null for anything else. */
export function count(value) {
  return Number.isSafeInteger(value) && value >= 0 ? value : null;
}

/** when shows a time to the second, and anything else as it is. */
function when(value) {
  const time = typeof value === 'string' ? /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z$/.exec(value) : null;
  return time ? markdown(`${time[1]} ${time[2]} UTC`) : markdown(value);
}

/** render draws the answer of an introspection, or says why there is none. */
export function render(info, { session, failed }) {
  const title = `### Jobgate session ${markdown(session)}\n\n`;
  if (!info) return `${title}What this session did is not known: ${markdown(failed, 500)}\n`;
  return title + [facts(info), connections(info.connections), denied(info), observed(info)].filter(Boolean).join('\n');
}

function facts(info) {
  const window = info.window ?? {};
  const approvals = info.approvals ?? {};
  const kinds = ['approved', 'denied', 'expired', 'cancelled'].map((kind) => `${number(approvals[kind])} ${kind}`).join(', ');
  const closes = window.closes ? ` to ${when(window.closes)} at the latest` : '';
  const rows = [
    ['Mapping', markdown(info.override ? `${info.mapping}, override ${info.override}` : info.mapping)],
    ['Connections', markdown(info.scope)],
    ['Window', `${when(window.opens)}${closes}`],
    ['Calls', number(info.calls)],
    ['Refused', number(info.denials)],
    ['Approvals', `${number(approvals.asked)} asked: ${kinds}`],
    ['Archive', markdown(info.archive || 'none named', 500)],
  ];
  if (info.end_reason) rows.splice(3, 0, ['Ended before the job', markdown(info.end_reason)]);
  return table(['', ''], rows);
}

function connections(list) {
  if (!Array.isArray(list) || list.length === 0) return '';
  return table(['Connection', 'Requests', 'Input tokens', 'Output tokens'], list.slice(0, 50).map((c) =>
    [markdown(c?.name), number(c?.requests), number(c?.input_tokens), number(c?.output_tokens)]));
}

function denied({ denied: list, denials }) {
  if (!Array.isArray(list) || list.length === 0) return '';
  const shown = list.slice(0, 20);
  const more = denials > shown.length ? `\nThese are ${shown.length} of ${number(denials)}; the archive has all.\n` : '';
  const rows = shown.map((d) => [when(d?.time), ...[d?.connection, d?.rule, d?.reason, d?.what].map((cell) => markdown(cell))]);
  return `#### Refused\n\n${table(['Time', 'Connection', 'Rule', 'Reason', 'What'], rows)}${more}`;
}

function observed({ would_have_denied: n }) {
  return count(n) ? `${n} more would have been refused by what is only observed (mode: observe).\n` : '';
}

function number(value) {
  return count(value) === null ? '?' : String(value);
}

function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |\n`;
  return line(head) + line(head.map(() => '---')) + rows.map(line).join('');
}
