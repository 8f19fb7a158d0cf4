import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tunnel, isLoopback, proxyFor } from '../lib/proxy.js';
import { proxy, Stub } from './stub.js';

const rows = [
  ['https://a.example', { https_proxy: 'http://p:1' }, 'http://p:1/'],
  ['https://a.example', { HTTPS_PROXY: 'p:81' }, 'http://p:81/'],
  ['https://a.example', {}, null],
  ['http://a.example', { https_proxy: 'http://p:1' }, null],
  ['https://127.0.0.1', { https_proxy: 'http://p:1' }, null],
  ['https://a.example', { https_proxy: 'http://p:1', no_proxy: 'b.example, a.example' }, null],
  ['https://x.a.example', { https_proxy: 'http://p:1', NO_PROXY: '.a.example' }, null],
  ['https://x.a.example', { https_proxy: 'http://p:1', NO_PROXY: '*.a.example' }, null],
  ['https://ba.example', { https_proxy: 'http://p:1', no_proxy: 'a.example' }, 'http://p:1/'],
  ['https://a.example:444', { https_proxy: 'http://p:1', no_proxy: 'a.example:443' }, 'http://p:1/'],
  ['https://a.example', { https_proxy: 'http://p:1', no_proxy: 'a.example:443' }, null],
  ['https://a.example', { https_proxy: 'http://p:1', no_proxy: '*' }, null],
];
for (const [target, env, wanted] of rows) {
  test(`proxyFor ${target} with ${JSON.stringify(env)}`, () => {
    assert.equal(proxyFor(new URL(target), env)?.href ?? null, wanted);
  });
}

test('isLoopback takes this machine only', () => {
  for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '[::1]']) assert.ok(isLoopback(host), host);
  for (const host of ['localhost.evil.example', '127.0.0.1.evil.example', '128.0.0.1', '0.0.0.0']) assert.ok(!isLoopback(host), host);
});

test('tunnel goes through the proxy with its login and verifies the target', async (t) => {
  const stub = await Stub.start({ tls: true });
  const middle = await proxy('ana:s3cret');
  t.after(() => { stub.close(); middle.close(); });
  const target = new URL(stub.url);
  const signal = AbortSignal.timeout(5000);
  const refused = tunnel(new URL(`http://127.0.0.1:${middle.port}`), target, signal);
  await assert.rejects(refused, /the proxy 127\.0\.0\.1:\d+ answered 407/);
  const stream = await tunnel(new URL(`http://ana:s3cret@127.0.0.1:${middle.port}`), target, signal);
  await assert.rejects(new Promise((_, reject) => stream.once('error', reject)), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
  assert.deepEqual(middle.seen, [target.host, target.host]);
});
