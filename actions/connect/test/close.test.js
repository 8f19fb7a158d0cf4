import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Job, Stub } from './stub.js';

// opened runs main against a stub whose session has done info.
async function opened(t, { info = {}, inputs, lease } = {}) {
  const stub = await Stub.start({ lease });
  Object.assign(stub.info, info);
  const job = new Job(stub, { inputs });
  t.after(() => { job.end(); stub.close(); });
  const { code } = await job.main();
  assert.equal(code, 0, job.printed);
  return { stub, job, tokenFile: job.file('OUTPUT')['token-file'] };
}

test('post asks, closes, writes the summary and ends the renewal', async (t) => {
  const { stub, job } = await opened(t, { info: { connections: [{ name: 'anthropic', requests: 3, input_tokens: 10, output_tokens: 20 }] } });
  assert.ok(job.alive());
  const { code, out } = await job.post();
  assert.equal(code, 0, out);
  const asked = stub.calls.map((c) => c.path);
  assert.deepEqual(asked.slice(-2), ['/oauth/introspect', '/oauth/revoke']);
  for (const row of ['### Jobgate session s_1', '| Calls | 3 |', '| Refused | 0 |', '| Approvals | 1 asked: 1 approved, 0 denied',
    '| Archive | file&#58;///archive/s_1 |', '| anthropic | 3 | 10 | 20 |']) {
    assert.ok(job.summary().includes(row), `${row} in\n${job.summary()}`);
  }
  while (job.alive()) await new Promise(setImmediate);
});

const denied = [{ time: 't', connection: 'anthropic', rule: 'no-network', reason: 'work offline', what: 'WebFetch' }];
const verdicts = [
  ['fails where something was refused', { denials: 2, denied }, {}, 1, /^::error .*2 calls and tool uses were refused; the first: no-network: work offline/m],
  ['warns with on-denial: warn', { denials: 1, denied }, { 'on-denial': 'warn' }, 0, /^::warning .*1 call or tool use was refused/m],
  ['passes where nothing was', { denials: 0 }, {}, 0, /the session is closed/],
  ['fails where the number makes no sense', { denials: '0' }, {}, 1, /does not tell how many/],
  ['says that the session ended early', { end_reason: 'mapping_deleted', active: false }, {}, 0, /^::warning .*ended before the job did: mapping_deleted/m],
  ['is calm about a session that the job closed', { end_reason: 'closed', active: false }, {}, 0, /the session is closed/],
];
for (const [name, info, inputs, wanted, pattern] of verdicts) {
  test(`post ${name}`, async (t) => {
    const { job } = await opened(t, { info, inputs });
    const { code, out } = await job.post();
    assert.equal(code, wanted, out);
    assert.match(out, pattern);
  });
}

test('post fails where Jobgate refuses to tell, and still cleans up', async (t) => {
  const { stub, job, tokenFile } = await opened(t);
  stub.behave['/oauth/introspect'] = () => [401, { error: 'invalid_client' }];
  const { code, out } = await job.post();
  assert.equal(code, 1, out);
  assert.match(out, /^::error .*what this session did is not known/m);
  assert.match(job.summary(), /not known/);
  assert.ok(!existsSync(tokenFile));
});

test('a close that fails is a warning', async (t) => {
  const { stub, job } = await opened(t);
  stub.behave['/oauth/revoke'] = () => [400, { error: 'invalid_request' }];
  const { code, out } = await job.post();
  assert.equal(code, 0, out);
  assert.match(out, /^::warning .*could not be closed/m);
});

// What a job's own processes can do to the token file before post reads it.
const tampering = {
  'was deleted': ({ tokenFile }) => rmSync(tokenFile),
  'is a pipe': ({ tokenFile }) => { rmSync(tokenFile); execFileSync('mkfifo', [tokenFile]); },
  'is a link to a device': ({ tokenFile }) => { rmSync(tokenFile); symlinkSync('/dev/zero', tokenFile); },
  'is a folder': ({ tokenFile }) => { rmSync(tokenFile); mkdirSync(tokenFile); },
  "holds another session's token": ({ stub, tokenFile }) => {
    const token = `jg_${'f'.repeat(40)}`;
    stub.tokens.set(token, 's_innocent');
    writeFileSync(tokenFile, token);
  },
};
for (const [name, tamper] of Object.entries(tampering)) {
  test(`a token file that ${name} hides nothing from post`, async (t) => {
    const it = await opened(t, { info: { denials: 1, denied } });
    tamper(it);
    const { code, out } = await it.job.post();
    assert.equal(code, 1);
    assert.match(out, /^::error .*1 call or tool use was refused/m);
    assert.equal(it.stub.tokens.get(it.stub.calls.at(-1).form.token), 's_1');
    assert.equal(it.stub.calls.at(-1).path, '/oauth/revoke');
  });
}

test('post leaves a process alone that is not the renewal', async (t) => {
  const { job } = await opened(t);
  const real = job.file('STATE').renewal;
  writeFileSync(join(job.temp, 'STATE'), `\nrenewal<<X\n${process.pid}\nX\n`, { flag: 'a' });
  assert.equal((await job.post()).code, 0);
  process.kill(Number(real));
});

test('a second step joins the session, and the first one closes it', async (t) => {
  const { stub, job } = await opened(t, { info: { denials: 1, denied } });
  const second = new Job(stub, { env: job.file('ENV') });
  t.after(() => second.end());
  assert.equal((await second.main()).code, 0, second.printed);
  const { code, out } = await second.post();
  assert.equal(code, 0, out);
  assert.equal(stub.count('/oauth/revoke'), 0);
  assert.ok(!existsSync(second.file('OUTPUT')['token-file']));
  assert.equal((await job.post()).code, 1);
  assert.equal(stub.count('/oauth/revoke'), 1);
});

test('a session that is over, of which the server tells no more, fails the job', async (t) => {
  const { stub, job } = await opened(t);
  stub.behave['/oauth/introspect'] = () => [200, { active: false, calls: 0, denials: 0 }];
  stub.behave['/oauth/token'] = () => [400, { error: 'invalid_grant', error_description: 'the window of this job is over' }];
  const { code, out } = await job.post();
  assert.equal(code, 1, out);
  assert.match(out, /^::error .*is not known: .*the window of this job is over/m);
});

test('a server that is gone fails the job, without asking it twice', async (t) => {
  const { stub, job, tokenFile } = await opened(t);
  stub.close();
  const { code, out } = await job.post();
  assert.equal(code, 1, out);
  assert.match(out, /^::error .*is not known: cannot reach .*connection refused/m);
  assert.ok(!existsSync(tokenFile));
});
