// The step's second half, at the end of the job whatever became of it: ask what the session did, close it, show it, and
// let no job in which something was refused be silently green.

import { lstatSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { Unreachable } from './http.js';
import { Jobgate } from './jobgate.js';
import { stopRenewal } from './renew.js';
import { count, render } from './summary.js';
import { visible } from './text.js';

/** close does all of it. Where connect opened nothing, there is nothing to do. */
export async function close(runner) {
  const state = (name) => runner.state(name);
  if (!state('session')) return;
  stopRenewal(Number(state('renewal')));
  const dir = ownFolder(runner.env, state('dir'));
  if (state('joined')) {
    clear(runner, dir);
    return runner.info('the session is closed by the step that opened it');
  }
  const jobgate = new Jobgate({
    url: state('url'), env: runner.env, mask: (secret) => runner.mask(secret), say: (line) => runner.info(line),
    mint: { url: runner.env.ACTIONS_ID_TOKEN_REQUEST_URL, token: runner.env.ACTIONS_ID_TOKEN_REQUEST_TOKEN },
  });
  jobgate.mask(jobgate.mint.token);

  let told;
  try {
    told = await ask(jobgate, { session: state('session'), mapping: state('mapping'), held: heldToken(dir) });
    await closeSession(runner, jobgate, told.token);
  } catch (error) {
    told = { failed: error.message };
  }
  showRenewal(runner, dir);
  clear(runner, dir);

  runner.summary(render(told.info, { session: state('session'), failed: told.failed }));
  judge(runner, told, state('on-denial'));
}

// The job's processes run as this user and can put what they like into the token file. So the answer counts only if it is
// about the session that main opened; otherwise a fresh OIDC token of the job, which they cannot forge, leads back to it.
async function ask(jobgate, { session, mapping, held }) {
  if (held) {
    jobgate.mask(held);
    const info = await jobgate.introspect(held).catch(unlessAway);
    if (info?.session_id === session) return { info, token: held };
  }
  const fresh = await jobgate.open({ mapping });
  if (fresh.session_id !== session) throw new Error(`the job's token leads to session ${fresh.session_id}, not to ${session}`);
  return { info: await jobgate.introspect(fresh.access_token), token: fresh.access_token };
}

// unlessAway gives up at once where the server cannot be reached: a fresh token would not change that.
function unlessAway(error) {
  if (error.cause instanceof Unreachable) throw error;
  return null;
}

async function closeSession(runner, jobgate, token) {
  try {
    await jobgate.close(token);
    runner.info('the session is closed');
  } catch (error) {
    runner.warning(`the session could not be closed (${error.message}); it sleeps when its lease ends`);
  }
}

function heldToken(dir) {
  const token = dir && small(join(dir, 'token'))?.trim();
  return /^jg_[0-9A-Za-z]{20,200}$/.test(token ?? '') ? token : null;
}

// small reads a plain file of at most 128 KiB: a pipe or a device that was put in its place must not hang this step.
function small(file) {
  try {
    const is = lstatSync(file);
    return is.isFile() && is.size <= 128 << 10 ? readFileSync(file, 'utf8') : null;
  } catch {
    return null;
  }
}

function clear(runner, dir) {
  try {
    if (dir) rmSync(dir, { recursive: true, force: true });
  } catch (error) {
    runner.warning(`${dir} could not be removed: ${error.message}`);
  }
}

// ownFolder returns dir if it is what main made, and null for anything else: it is going to be deleted.
function ownFolder(env, dir) {
  const home = resolve(env.RUNNER_TEMP || tmpdir());
  return dir && dirname(resolve(dir)) === home && basename(dir).startsWith('jobgate-') ? resolve(dir) : null;
}

function showRenewal(runner, dir) {
  const lines = (dir && small(join(dir, 'renewal.log'))?.trimEnd().split('\n')) || [];
  for (const line of lines.slice(-20)) runner.info(`renewal: ${line}`);
}

function judge(runner, { info, failed }, onDenial) {
  const say = (message) => (onDenial === 'warn' ? runner.warning(message) : runner.error(message));
  if (failed) return say(`what this session did is not known: ${failed}`);
  if (info.end_reason && info.end_reason !== 'closed') {
    runner.warning(`the session had ended before the job did: ${visible(info.end_reason)}`);
  }
  const denials = count(info.denials);
  if (denials === 0) return;
  if (denials === null) return say("Jobgate's answer does not tell how many calls and tool uses were refused");
  const first = Array.isArray(info.denied) ? info.denied[0] : null;
  const example = first ? `; the first: ${visible(first.rule, 80)}: ${visible(first.reason, 200)}` : '';
  say(`${denials} ${denials === 1 ? 'call or tool use was' : 'calls and tool uses were'} refused${example}. The job's `
    + 'summary lists them. With on-denial: warn the job would not fail for it.');
}
