// The world around the step in small: a Jobgate, GitHub's token endpoint, a proxy, and a runner that runs main and post.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
export const testCA = here('testdata/localhost-cert.pem');
const requestToken = 'runner-request-token-0123456789';

/** Stub is a Jobgate and a token endpoint on one port. behave overrides what a path answers: (form, stub) => [status, body]. */
export class Stub {
  static async start({ tls = false, lease } = {}) {
    const stub = new Stub();
    const keys = tls && { key: readFileSync(here('testdata/localhost-key.pem')), cert: readFileSync(testCA) };
    const handler = (req, res) => stub.#serve(req, res);
    stub.server = tls ? https.createServer(keys, handler) : http.createServer(handler);
    stub.server.listen(0, '127.0.0.1');
    await once(stub.server, 'listening');
    stub.url = `${tls ? 'https' : 'http'}://127.0.0.1:${stub.server.address().port}`;
    stub.lease = lease;
    return stub;
  }

  calls = []; // {path, form, headers}
  behave = {};
  session = 's_1';
  tokens = new Map(); // access token -> session id
  minted = new Set(); // CI tokens that are not spent
  secrets = [requestToken];
  connections = [{ name: 'anthropic', kind: 'anthropic', env: {} }];
  info = { calls: 3, denials: 0, approvals: { asked: 1, approved: 1, denied: 0, expired: 0, cancelled: 0 } };
  #waiters = [];

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  count(path) {
    return this.calls.filter((c) => c.path === path).length;
  }

  /** until resolves when path has been called n times. */
  async until(path, n) {
    while (this.count(path) < n) await new Promise((resolve) => this.#waiters.push(resolve));
  }

  async #serve(req, res) {
    const url = new URL(req.url, this.url);
    const form = Object.fromEntries(new URLSearchParams(await text(req)));
    this.calls.push({ path: url.pathname, form, query: Object.fromEntries(url.searchParams), headers: req.headers });
    const [status, body, headers = {}] = this.#answer(url, form, req.headers);
    res.writeHead(status, { 'content-type': 'application/json', ...headers }).end(typeof body === 'string' ? body : JSON.stringify(body));
    for (const wake of this.#waiters.splice(0)) wake();
  }

  #answer(url, form, headers) {
    const special = this.behave[url.pathname]?.(form, this);
    if (special) return special;
    switch (url.pathname) {
      case '/actions/idtoken': return this.#mint(url, headers);
      case '/oauth/token': return this.exchange(form);
      case '/oauth/introspect': return this.#introspect(form, headers);
      case '/oauth/revoke': return this.#authorized(form, headers) ? [200, ''] : [401, { error: 'invalid_client' }];
      default: return [404, {}];
    }
  }

  #mint(url, headers) {
    if (headers.authorization !== `bearer ${requestToken}`) return [401, {}];
    const token = `eyJh.${randomBytes(30).toString('base64url')}.${randomBytes(30).toString('base64url')}`;
    this.minted.add(`${token} for ${url.searchParams.get('audience')}`);
    this.secrets.push(token);
    return [200, { value: token }];
  }

  exchange(form) {
    if (!this.minted.delete(`${form.subject_token} for ${this.url}`)) {
      return [400, { error: 'invalid_grant', error_description: 'replayed, or for another audience' }];
    }
    const token = `jg_${randomBytes(24).toString('hex')}`;
    this.tokens.set(token, this.session);
    this.secrets.push(token);
    const connections = this.connections.map((c) => ({ base_url: `${this.url}/${c.name}`, ...c }));
    return [200, { access_token: token, token_type: 'Bearer', expires_in: 3600, session_id: this.session, lease_seconds: this.lease, connections }];
  }

  #authorized(form, headers) {
    return this.tokens.has(form.token) && headers.authorization === `Bearer ${form.token}`;
  }

  #introspect(form, headers) {
    if (!this.#authorized(form, headers)) return [401, { error: 'invalid_client' }];
    return [200, {
      active: true, session_id: this.tokens.get(form.token), mapping: 'agents', scope: 'anthropic', state: 'awake',
      window: { opens: '2026-11-24T10:00:00Z', closes: '2026-11-24T11:00:00Z' }, archive: 'file:///archive/s_1', ...this.info,
    }];
  }
}

/** Job is one job on a runner: files, environment, and what main and post printed. */
export class Job {
  constructor(stub, { inputs = {}, env = {} } = {}) {
    this.temp = mkdtempSync(join(tmpdir(), 'connect-test-'));
    mkdirSync(join(this.temp, 'work'));
    this.printed = '';
    this.base = {
      PATH: process.env.PATH, HOME: this.temp, RUNNER_TEMP: join(this.temp, 'work'),
      ACTIONS_ID_TOKEN_REQUEST_URL: `${stub.url}/actions/idtoken?api-version=2.0`,
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: requestToken, ...env,
    };
    for (const file of ['ENV', 'OUTPUT', 'STATE', 'STEP_SUMMARY']) {
      this.base[`GITHUB_${file}`] = join(this.temp, file);
      writeFileSync(this.base[`GITHUB_${file}`], '');
    }
    for (const [name, value] of Object.entries({ url: stub.url, ...inputs })) this.base[`INPUT_${name.toUpperCase()}`] = value;
  }

  main() { return this.#run('main.js', {}); }

  post() {
    const state = Object.fromEntries(Object.entries(this.file('STATE')).map(([name, value]) => [`STATE_${name}`, value]));
    return this.#run('post.js', state);
  }

  /** file reads one of the runner's files of NAME<<END blocks. */
  file(name) {
    const found = readFileSync(join(this.temp, name), 'utf8').matchAll(/^(.+)<<(.+)\n([^]*?)\n\2\n/gm);
    return Object.fromEntries([...found].map(([, key, , value]) => [key, value]));
  }

  summary() { return readFileSync(join(this.temp, 'STEP_SUMMARY'), 'utf8'); }

  /** everything is all that the job's log and files show, without the lines that tell the runner what to mask. */
  everything() {
    const files = ['ENV', 'OUTPUT', 'STATE', 'STEP_SUMMARY'].map((f) => readFileSync(join(this.temp, f), 'utf8'));
    return [this.printed.replace(/^::add-mask::.*$/gm, ''), ...files].join('\n');
  }

  alive() {
    const pid = Number(this.file('STATE').renewal);
    return pid > 1 && existsSync(`/proc/${pid}/cmdline`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('renew.js');
  }

  end() {
    if (this.alive()) process.kill(Number(this.file('STATE').renewal));
    rmSync(this.temp, { recursive: true, force: true });
  }

  async #run(script, env) {
    const child = spawn(process.execPath, [here(`../${script}`)], { env: { ...this.base, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
    this.printed += out + err;
    return { code: child.exitCode, out, err };
  }
}

/** proxy starts a CONNECT proxy that counts its tunnels; login, where given, is what it asks for. */
export async function proxy(login) {
  const seen = [];
  const server = http.createServer();
  server.on('connect', (req, socket, head) => {
    seen.push(req.url);
    if (login && req.headers['proxy-authorization'] !== `Basic ${Buffer.from(login).toString('base64')}`) {
      return socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n');
    }
    const [, port] = req.url.split(':');
    const up = net.connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      up.write(head);
      up.pipe(socket).pipe(up);
    });
    up.on('error', () => socket.destroy());
    socket.on('error', () => up.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: server.address().port, seen, close: () => { server.closeAllConnections(); server.close(); } };
}
