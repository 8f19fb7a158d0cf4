// Keeping the lease: a process beside the job that exchanges a fresh OIDC token every third of a lease.

import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Jobgate, Refused } from './jobgate.js';

const defaultLease = 900; // seconds, where the server does not say: its own default
const maxRefusals = 3; // in a row: a window that is over stays over, a mapping that is edited may match again
const maxLog = 64 << 10; // bytes of the log that the post step reads
const script = fileURLToPath(new URL('../renew.js', import.meta.url));

// What the child needs of the environment: proxies and certificates. RUNNER_TRACKING_ID lets the runner end the child with
// the job, should the post step never run.
const kept = ['PATH', 'HOME', 'RUNNER_TRACKING_ID', 'NODE_EXTRA_CA_CERTS', 'SystemRoot',
  'https_proxy', 'HTTPS_PROXY', 'no_proxy', 'NO_PROXY'];

/** startRenewal starts the process and returns its id. Nothing of it holds this step or the runner back. */
export async function startRenewal({ jobgate, session, inputs, mapping, dir, tokenFile }) {
  const lease = session.lease_seconds > 0 ? session.lease_seconds : defaultLease;
  const orders = {
    url: jobgate.url, mint: jobgate.mint, mapping, scope: inputs.scope, session: session.session_id, tokenFile,
    log: join(dir, 'renewal.log'), interval: Math.max(lease * 1000 / 3, 250), until: Date.now() + session.expires_in * 1000,
    runner: runnerProcess(process.ppid),
  };
  const env = Object.fromEntries(kept.filter((name) => jobgate.env[name]).map((name) => [name, jobgate.env[name]]));
  const child = spawn(process.execPath, [script], {
    detached: true, windowsHide: true, cwd: dir, env, stdio: ['pipe', 'ignore', 'ignore'],
  });
  await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.stdin.once('error', reject);
    child.stdin.end(JSON.stringify(orders), resolve);
  });
  child.unref();
  return child.pid;
}

/** stopRenewal ends the process with this id, if it is still the one that startRenewal started. */
export function stopRenewal(pid) {
  if (!(pid > 1)) return;
  try {
    const line = process.platform === 'linux' ? readFileSync(`/proc/${pid}/cmdline`, 'utf8') : script;
    if (line.includes(script)) process.kill(pid, 'SIGTERM');
  } catch {
    // It has ended already.
  }
}

/** renew carries out the orders until the window or the session is over, or the job's runner is gone. */
export async function renew(orders, { env = process.env, wait = sleep } = {}) {
  const say = (line) => note(orders.log, line);
  const jobgate = new Jobgate({ url: orders.url, mint: orders.mint, env, say });
  let refusals = 0; // in a row
  while (Date.now() + orders.interval < orders.until) {
    await wait(orders.interval);
    if (!existsSync(orders.tokenFile)) return say('the token file is gone; no more renewals');
    if (orders.runner && born(orders.runner.pid)?.start !== orders.runner.start) return say('the runner is gone; no more renewals');
    try {
      const session = await renewOnce(jobgate, orders);
      if (session !== orders.session) return say(`the exchange leads to session ${session}; no more renewals`);
      refusals = 0;
    } catch (error) {
      say(`not renewed: ${error.message}`);
      if (error instanceof Refused && ++refusals === maxRefusals) return say('refused too often; no more renewals');
    }
  }
}

// renewOnce returns the id of the session that it renewed. The file keeps its token, since clients may have read it
// already; asking about it also counts as its use, so that it is not the one which the server drops when there are too many.
async function renewOnce(jobgate, orders) {
  const { access_token: fresh, session_id: session } = await jobgate.open(orders);
  const held = readFileSync(orders.tokenFile, 'utf8');
  if (session === orders.session && !await alive(jobgate, held)) replace(orders.tokenFile, fresh);
  return session;
}

async function alive(jobgate, token) {
  try {
    return (await jobgate.introspect(token)).active === true;
  } catch {
    return true; // Not known: the file is left as it is until it is.
  }
}

function replace(file, token) {
  writeFileSync(`${file}.new`, token, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

// runnerProcess finds the runner's worker among the ancestors of this step, so that a lease does not outlive a runner that
// was killed. null where there is none to be seen: in a container, on another system, under another runner.
function runnerProcess(pid) {
  for (let p = born(pid); p; p = born(p.parent)) {
    if (p.name === 'Runner.Worker') return { pid: p.pid, start: p.start };
  }
  return null;
}

// born reads a process's name, parent and start time (proc(5), stat); the start time tells it from a later one of the same
// id. null where there is no such process or no /proc.
function born(pid) {
  try {
    const [, name, rest] = /^\d+ \((.*)\) (.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'));
    const fields = rest.split(' ');
    return { pid, name, parent: Number(fields[1]), start: fields[19] };
  } catch {
    return null;
  }
}

function note(file, line) {
  if (existsSync(file) && statSync(file).size > maxLog) return;
  appendFileSync(file, `${new Date().toISOString()} ${line}\n`, { mode: 0o600 });
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
