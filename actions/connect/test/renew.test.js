import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Jobgate } from '../lib/jobgate.js';
import { renew } from '../lib/renew.js';
import { Job, Stub } from './stub.js';

// kept runs the renewal in this process against a stub with an open session; step is called before every round.
async function kept(t, { rounds, step = () => {}, orders = {} }) {
  const stub = await Stub.start();
  const dir = mkdtempSync(join(tmpdir(), 'renew-test-'));
  t.after(() => { stub.close(); rmSync(dir, { recursive: true, force: true }); });
  const job = new Job(stub);
  t.after(() => job.end());
  const mint = { url: job.base.ACTIONS_ID_TOKEN_REQUEST_URL, token: job.base.ACTIONS_ID_TOKEN_REQUEST_TOKEN };
  const { access_token: first } = await new Jobgate({ url: stub.url, mint }).open({});
  const tokenFile = join(dir, 'token');
  const log = join(dir, 'renewal.log');
  writeFileSync(tokenFile, first);
  let round = 0;
  const wait = async () => {
    if (++round > rounds) rmSync(tokenFile, { force: true });
    else await step({ stub, round, tokenFile });
  };
  await renew({ url: stub.url, mint, mapping: 'agents', scope: 'anthropic', session: 's_1', tokenFile, log, interval: 1,
    until: Date.now() + 1e6, ...orders }, { env: {}, wait });
  const read = (file) => { try { return readFileSync(file, 'utf8'); } catch { return ''; } };
  return { stub, first, log: read(log), token: read(tokenFile), rounds: round };
}

test('every round exchanges a fresh token under the same mapping and scope, until post removes the file', async (t) => {
  const { stub, log } = await kept(t, { rounds: 3 });
  const exchanges = stub.calls.filter((c) => c.path === '/oauth/token').slice(1);
  assert.equal(exchanges.length, 3);
  assert.equal(new Set(exchanges.map((c) => c.form.subject_token)).size, 3);
  for (const { form } of exchanges) assert.deepEqual([form.mapping, form.scope], ['agents', 'anthropic']);
  assert.match(log, /token file is gone/);
});

test('the file keeps its token while it is good, and gets the fresh one when it is not', async (t) => {
  const seen = [];
  const step = ({ stub, round, tokenFile }) => {
    seen.push(readFileSync(tokenFile, 'utf8'));
    if (round === 2) stub.behave['/oauth/introspect'] = (form) => (form.token === seen[0] ? [200, { active: false }] : null);
  };
  const { first } = await kept(t, { rounds: 4, step });
  assert.deepEqual(seen.slice(0, 2), [first, first]);
  assert.notEqual(seen[2], first);
  assert.equal(seen[3], seen[2]);
});

test('renewal ends when it leads to another session', async (t) => {
  const { log, rounds } = await kept(t, { rounds: 9, step: ({ stub }) => { stub.session = 's_2'; } });
  assert.equal(rounds, 1);
  assert.match(log, /leads to session s_2/);
});

test('renewal ends after three refusals in a row', async (t) => {
  const no = () => [400, { error: 'invalid_grant', error_description: 'the window is over' }];
  const step = ({ stub, round }) => { stub.behave = round === 2 ? {} : { '/oauth/token': no }; };
  const { log, rounds } = await kept(t, { rounds: 9, step });
  assert.equal(rounds, 5);
  assert.match(log, /not renewed: .*the window is over/);
  assert.match(log, /refused too often/);
});

test('an outage of GitHub is noted and tried again', async (t) => {
  const step = ({ stub, round }) => { stub.behave = round < 5 ? { '/actions/idtoken': () => [403, {}] } : {}; };
  const { stub, log } = await kept(t, { rounds: 5, step });
  assert.equal(log.match(/not renewed/g).length, 4);
  assert.equal(stub.count('/oauth/token'), 2);
  for (const secret of stub.secrets) assert.ok(!log.includes(secret));
});

test('renewal ends with the window and with the runner', async (t) => {
  const late = await kept(t, { rounds: 9, orders: { until: Date.now() } });
  assert.equal(late.stub.count('/oauth/token'), 1);
  const orphan = await kept(t, { rounds: 9, orders: { runner: { pid: process.pid, start: 'another' } } });
  assert.match(orphan.log, /the runner is gone/);
  assert.equal(orphan.stub.count('/oauth/token'), 1);
});
