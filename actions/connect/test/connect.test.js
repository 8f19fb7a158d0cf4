import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Job, proxy, Stub, testCA } from './stub.js';

// scene runs main (and post, if asked) of one job against one stub and cleans up.
async function scene(t, { stub: options, inputs, env, change = () => {} } = {}) {
  const stub = await Stub.start(options);
  await change(stub);
  const job = new Job(stub, { inputs, env });
  t.after(() => { job.end(); stub.close(); });
  return { stub, job };
}

test('main opens a session and exports what the SDK reads', async (t) => {
  const { stub, job } = await scene(t, {
    inputs: { mapping: 'agents', scope: ' anthropic   pages ' },
    change: (s) => {
      s.connections = [{ name: 'anthropic', kind: 'anthropic', env: { CLAUDE_CODE_X: '1', PATH: '/evil', ANTHROPIC_API_KEY: 'k' } },
        { name: 'build-cache', kind: 'http' }];
    },
  });
  const { code } = await job.main();
  assert.equal(code, 0, job.printed);
  const env = job.file('ENV');
  const file = env.JOBGATE_TOKEN_FILE;
  assert.deepEqual(env, {
    JOBGATE_TOKEN_FILE: file, JOBGATE_SESSION_ID: 's_1',
    JOBGATE_URL_ANTHROPIC: `${stub.url}/anthropic`, JOBGATE_URL_BUILD_CACHE: `${stub.url}/build-cache`,
    CLAUDE_CODE_X: '1', ANTHROPIC_BASE_URL: `${stub.url}/anthropic`, ANTHROPIC_FEDERATION_RULE_ID: 'agents',
    ANTHROPIC_ORGANIZATION_ID: 'jobgate', ANTHROPIC_IDENTITY_TOKEN_FILE: file, CLAUDE_CODE_GATEWAY_HINT_HEADERS: '1',
    CLAUDE_CODE_FEDERATION_CACHE_DIR: join(dirname(file), 'federation'),
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
  });
  assert.deepEqual(job.file('OUTPUT'), { 'session-id': 's_1', 'base-url': `${stub.url}/anthropic`, 'token-file': file });
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(file)).mode & 0o777, 0o700);
  assert.equal(stub.tokens.get(readFileSync(file, 'utf8')), 's_1');
  const { form } = stub.calls.find((c) => c.path === '/oauth/token');
  assert.equal(form.mapping, 'agents');
  assert.equal(form.scope, 'anthropic pages');
});

test('without the input, the mapping is asked for and the slash of the url dropped', async (t) => {
  const { stub, job } = await scene(t);
  job.base.INPUT_URL += '/';
  assert.equal((await job.main()).code, 0, job.printed);
  assert.equal(job.file('ENV').ANTHROPIC_FEDERATION_RULE_ID, 'agents');
  assert.equal(stub.calls[0].query.audience, stub.url);
});

test('no secret stands in the log, in a file of the runner or in the renewal process, and every one is masked', async (t) => {
  const { stub, job } = await scene(t, { stub: { lease: 3 } });
  await job.main();
  await stub.until('/oauth/token', 2);
  const pid = job.file('STATE').renewal;
  for (const file of ['cmdline', 'environ']) {
    const seen = readFileSync(`/proc/${pid}/${file}`, 'utf8');
    for (const secret of stub.secrets) assert.ok(!seen.includes(secret), `${file} of the renewal process`);
  }
  const atMain = stub.secrets.slice(0, 3);
  await job.post();
  for (const secret of stub.secrets) assert.ok(!job.everything().includes(secret));
  for (const secret of atMain) assert.ok(job.printed.includes(`::add-mask::${secret}\n`));
});

const refusals = [
  ['an API key beside it', { env: { ANTHROPIC_API_KEY: 'sk-1' } }, /ANTHROPIC_API_KEY \(an API key\).*Remove it from env:/],
  ['a bearer token beside it', { env: { ANTHROPIC_AUTH_TOKEN: 'x' } }, /ANTHROPIC_AUTH_TOKEN/],
  ['an OAuth token beside it', { env: { CLAUDE_CODE_OAUTH_TOKEN: 'x' } }, /CLAUDE_CODE_OAUTH_TOKEN/],
  ['a profile beside it', { env: { ANTHROPIC_PROFILE: 'work' } }, /ANTHROPIC_PROFILE/],
  ['plain http', { inputs: { url: 'http://jobgate.example.com' } }, /must begin with https/],
  ['http on a name that only looks like loopback', { inputs: { url: 'http://127.evil.example' } }, /must begin with https/],
  ['no url', { inputs: { url: '' } }, /url is empty/],
  ['nonsense', { inputs: { url: 'jobgate' } }, /is not a URL/],
  ['a query', { inputs: { url: 'https://jobgate.example.com/?a=1' } }, /no query/],
  ['a user', { inputs: { url: 'https://a:b@jobgate.example.com' } }, /no user/],
  ['a wrong on-denial', { inputs: { 'on-denial': 'ignore' } }, /write fail or warn/],
  ['no permission', { env: { ACTIONS_ID_TOKEN_REQUEST_URL: '' } }, /permissions:%0A      id-token: write/],
  ['a port where nothing listens', { inputs: { url: 'http://127.0.0.1:1' } }, /connection refused/],
  ['a port without TLS', { tlsToPlain: true }, /does not speak TLS/],
];
for (const [name, { inputs, env, tlsToPlain }, wanted] of refusals) {
  test(`main refuses ${name}`, async (t) => {
    const { stub, job } = await scene(t, { inputs, env });
    if (tlsToPlain) job.base.INPUT_URL = stub.url.replace('http:', 'https:');
    const { code, out } = await job.main();
    assert.equal(code, 1);
    assert.match(out, /^::error title=Jobgate::/m);
    assert.match(out, wanted);
    assert.equal(stub.count('/oauth/token'), 0);
    assert.equal((await job.post()).code, 0, 'post after a main that opened nothing');
  });
}

test('a host that DNS does not know is named', async (t) => {
  const { job } = await scene(t, { inputs: { url: 'https://jobgate.invalid' } });
  assert.match((await job.main()).out, /cannot reach jobgate\.invalid: DNS/);
});

test("a refusal's error, description and exchange id are shown, defused", async (t) => {
  const { stub, job } = await scene(t, {
    change: (s) => {
      s.behave['/oauth/token'] = (form) => [400, {
        error: 'invalid_grant', error_description: `claim ref is "x"\n::warning::forged \u202e\u001b[31m ${form.subject_token}`, exchange_id: 'x_42',
      }];
    },
  });
  const { code, out } = await job.main();
  assert.equal(code, 1);
  assert.match(out, /^::error title=Jobgate::Jobgate refused the exchange with 400 invalid_grant: claim ref is "x".*\(exchange x_42\)/m);
  assert.doesNotMatch(out, /^::warning/m);
  assert.doesNotMatch(out, /[\u202e\u001b]/);
  for (const secret of stub.secrets) assert.ok(!job.everything().includes(secret));
  assert.equal(stub.count('/oauth/token'), 1);
});

test('503 is asked again, each time with a fresh OIDC token', async (t) => {
  let times = 0;
  const { stub, job } = await scene(t, {
    change: (s) => {
      s.behave['/oauth/token'] = () => (times++ < 2 ? [503, { error: 'temporarily_unavailable', error_description: 'no keys' }] : null);
    },
  });
  const { code, out } = await job.main();
  assert.equal(code, 0, out);
  assert.match(out, /Jobgate answered 503: no keys; asking again/);
  assert.equal(stub.count('/actions/idtoken'), 3);
});

test('a redirect is not followed', async (t) => {
  const { stub, job } = await scene(t, { change: (s) => { s.behave['/oauth/token'] = () => [307, {}, { location: '/elsewhere' }]; } });
  assert.match((await job.main()).out, /answers with a redirect/);
  assert.equal(stub.count('/elsewhere'), 0);
});

test('a server that is no Jobgate is said to be none', async (t) => {
  const { job } = await scene(t, { change: (s) => { s.behave['/oauth/token'] = () => [200, '<html>hello']; } });
  assert.match((await job.main()).out, /is url a Jobgate server/);
});

test('a connection outside of the url is refused, and post closes what was opened', async (t) => {
  const { stub, job } = await scene(t, { change: (s) => { s.connections = [{ name: 'a', kind: 'anthropic', base_url: 'https://evil.example/a' }]; } });
  const { code, out } = await job.main();
  assert.equal(code, 1);
  assert.match(out, /which is not under/);
  assert.equal(job.file('ENV').ANTHROPIC_BASE_URL, undefined);
  await job.post();
  assert.equal(stub.count('/oauth/revoke'), 1);
});

test('several anthropic connections need a choice', async (t) => {
  const change = (s) => { s.connections = [{ name: 'a', kind: 'anthropic' }, { name: 'b', kind: 'anthropic' }]; };
  const first = await scene(t, { change });
  assert.match((await first.job.main()).out, /\(a, b\); name one in the input connection/);
  const second = await scene(t, { change, inputs: { connection: 'b' } });
  assert.equal((await second.job.main()).code, 0);
  assert.equal(second.job.file('ENV').ANTHROPIC_BASE_URL, `${second.stub.url}/b`);
  const third = await scene(t, { change, inputs: { connection: 'c' } });
  assert.match((await third.job.main()).out, /"c" is not granted/);
});

test('TLS: a private authority is explained, and taken by NODE_EXTRA_CA_CERTS', async (t) => {
  const first = await scene(t, { stub: { tls: true } });
  assert.match((await first.job.main()).out, /NODE_EXTRA_CA_CERTS/);
  const env = { NODE_TLS_REJECT_UNAUTHORIZED: '0' };
  const second = await scene(t, { stub: { tls: true }, env });
  assert.equal((await second.job.main()).code, 1, 'verification cannot be switched off');
  const third = await scene(t, { stub: { tls: true }, env: { NODE_EXTRA_CA_CERTS: testCA } });
  assert.equal((await third.job.main()).code, 0, third.job.printed);
  assert.equal((await third.job.post()).code, 0, third.job.printed);
});

test('the token file and its folder are gone after post', async (t) => {
  const { job } = await scene(t);
  await job.main();
  const file = job.file('OUTPUT')['token-file'];
  await job.post();
  assert.ok(!existsSync(dirname(file)));
});

test('a corporate proxy is gone through for https, by main, the renewal and post', async (t) => {
  const middle = await proxy('ana:s3cret');
  const env = { NODE_EXTRA_CA_CERTS: testCA, https_proxy: `http://ana:s3cret@127.0.0.1:${middle.port}` };
  const change = (s) => { s.url = s.url.replace('127.0.0.1', 'jobgate.test'); };
  const { stub, job } = await scene(t, { stub: { tls: true, lease: 1 }, env, change });
  t.after(() => middle.close());
  assert.equal((await job.main()).code, 0, job.printed);
  await stub.until('/oauth/token', 2);
  assert.equal((await job.post()).code, 0, job.printed);
  assert.ok(middle.seen.every((authority) => authority === new URL(stub.url).host));
  assert.ok(middle.seen.length >= 6);
});
