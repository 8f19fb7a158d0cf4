// The step's first half: open the session, keep its token in a file, tell the job's SDKs where to call.

import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Jobgate } from './jobgate.js';
import { readInputs, readMint, refuseShadows } from './preflight.js';
import { startRenewal } from './renew.js';
import { Failure } from './runner.js';

/** connect does all of it, and throws Failure with what the user can do. */
export async function connect(runner) {
  const inputs = readInputs(runner);
  refuseShadows(runner.env);
  const mint = readMint(runner.env);
  runner.mask(mint.token);
  const jobgate = new Jobgate({
    url: inputs.url, mint, env: runner.env, mask: (secret) => runner.mask(secret), say: (line) => runner.info(line),
  });

  const dir = mkdtempSync(join(runner.env.RUNNER_TEMP || tmpdir(), 'jobgate-')); // mode 0700
  const session = await jobgate.open(inputs);
  const tokenFile = join(dir, 'token');
  writeFileSync(tokenFile, session.access_token, { mode: 0o600, flag: 'wx' });
  const saved = { dir, url: inputs.url, session: session.session_id, 'on-denial': inputs.onDenial };
  // A second step under the same mapping joins the session of the first, whose post step runs last and closes it.
  if (runner.env.JOBGATE_SESSION_ID === session.session_id) saved.joined = 'true';
  for (const [name, value] of Object.entries(saved)) runner.saveState(name, value);

  const chosen = choose(session.connections, inputs);
  const mapping = await nameMapping(jobgate, session, inputs);
  runner.saveState('mapping', mapping);
  const pid = await startRenewal({ jobgate, session, inputs, mapping, dir, tokenFile });
  runner.saveState('renewal', String(pid));

  exportAll(runner, { session, inputs, chosen, mapping, tokenFile });
  const names = session.connections.map((c) => c.name).join(', ');
  runner.info(`session ${session.session_id} is open under mapping ${mapping}, for ${names}; its window closes with `
    + `this job, or after ${session.expires_in} s`);
}

/** choose returns the connection that the SDKs' variables shall name, or null. */
function choose(connections, { url, connection }) {
  for (const c of connections) {
    if (!/^[a-z][a-z0-9-]{0,62}$/.test(c?.name ?? '') || c.base_url !== `${url}/${c.name}`) {
      throw new Failure(`the server names a connection "${c?.name}" at "${c?.base_url}", which is not under ${url}; set `
        + "url to the server's public_url, exactly");
    }
  }
  const able = connections.filter((c) => c.kind === 'anthropic');
  const list = able.map((c) => c.name).join(', ') || 'none';
  if (connection) {
    const found = able.find((c) => c.name === connection);
    if (!found) throw new Failure(`connection "${connection}" is not granted here as one of kind anthropic; granted: ${list}`);
    return found;
  }
  if (able.length > 1) throw new Failure(`several connections of kind anthropic are granted (${list}); name one in the input connection`);
  return able[0] ?? null;
}

async function nameMapping(jobgate, session, inputs) {
  return inputs.mapping || session.mapping || (await jobgate.introspect(session.access_token)).mapping;
}

function exportAll(runner, { session, inputs, chosen, mapping, tokenFile }) {
  const env = { JOBGATE_TOKEN_FILE: tokenFile, JOBGATE_SESSION_ID: session.session_id };
  for (const c of session.connections) env[`JOBGATE_URL_${c.name.toUpperCase().replaceAll('-', '_')}`] = c.base_url;
  if (chosen) {
    Object.assign(env, fromServer(chosen.env), {
      ANTHROPIC_BASE_URL: chosen.base_url,
      ANTHROPIC_FEDERATION_RULE_ID: mapping,
      ANTHROPIC_ORGANIZATION_ID: chosen.env?.ANTHROPIC_ORGANIZATION_ID || 'jobgate',
      ANTHROPIC_IDENTITY_TOKEN_FILE: tokenFile,
      CLAUDE_CODE_GATEWAY_HINT_HEADERS: '1',
      CLAUDE_CODE_FEDERATION_CACHE_DIR: cacheDir(tokenFile),
      // Otherwise Claude Code asks the base URL for /api/hello and /api/claude_cli/bootstrap, which a narrow allow list
      // refuses, and every job would end as one in which something was refused.
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    });
  }
  for (const [name, value] of Object.entries(env)) runner.exportEnv(name, value);
  const alone = session.connections.length === 1 ? session.connections[0] : null;
  runner.setOutput('session-id', session.session_id);
  runner.setOutput('base-url', (chosen ?? alone)?.base_url ?? inputs.url);
  runner.setOutput('token-file', tokenFile);
}

// Claude Code keeps what it exchanged for the processes of one job, by default in the home folder, where a self-hosted
// runner would keep it after the job. In the session's own folder post removes it, and the client's sandbox hides it.
function cacheDir(tokenFile) {
  const dir = join(dirname(tokenFile), 'federation');
  mkdirSync(dir, { mode: 0o700 });
  return dir;
}

// Only variables of the clients themselves are taken from the server, and no credential: PATH or NODE_OPTIONS, set by an
// answer, would be code that runs in every later step.
function fromServer(env) {
  const credential = /KEY|TOKEN$|SECRET|PASSWORD/;
  return Object.fromEntries(Object.entries(env ?? {}).filter(([name, value]) =>
    /^(ANTHROPIC|CLAUDE)_[A-Z0-9_]+$/.test(name) && !credential.test(name) && typeof value === 'string'));
}
