// One request at a time, with errors that a person can act upon. Redirects are not followed: a token goes to the address
// that the user wrote, or nowhere.

import http from 'node:http';
import https from 'node:https';
import { proxyFor, tunnel } from './proxy.js';

const patience = 20_000; // milliseconds for one request; the server waits up to 5 s for an issuer's keys
const maxBody = 1 << 20; // bytes of an answer; the largest real one is a few kilobytes

/** Unreachable says that no answer came, and why; passing tells whether a later try may succeed. */
export class Unreachable extends Error {
  constructor(message, passing) {
    super(message);
    this.passing = passing;
  }
}

/** send makes one request and returns {status, headers, body}, body as text. It throws Unreachable. */
export async function send(address, { method = 'GET', headers = {}, form, env = {} } = {}) {
  const target = new URL(address);
  const signal = AbortSignal.timeout(patience);
  const body = form ? new URLSearchParams(form).toString() : undefined;
  const all = { accept: 'application/json', 'user-agent': 'jobgate-connect', ...headers };
  if (body !== undefined) {
    all['content-type'] = 'application/x-www-form-urlencoded';
    all['content-length'] = Buffer.byteLength(body);
  }
  try {
    const options = { method, headers: all, signal, agent: false, rejectUnauthorized: true };
    const proxy = proxyFor(target, env);
    if (proxy) {
      const stream = await tunnel(proxy, target, signal);
      delete options.agent; // with one, even false, Node would not look at createConnection
      options.createConnection = () => stream;
    }
    return await roundTrip(target, options, body);
  } catch (error) {
    throw explain(error, target);
  }
}

function roundTrip(target, options, body) {
  const client = target.protocol === 'https:' ? https : http;
  return new Promise((resolve, reject) => {
    const ask = client.request(target, options, (answer) => {
      const parts = [];
      let size = 0;
      answer.on('data', (part) => {
        size += part.length;
        if (size > maxBody) return ask.destroy(new Error(`an answer of more than ${maxBody} bytes`));
        parts.push(part);
      });
      answer.once('error', reject);
      answer.once('end', () =>
        resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(parts).toString('utf8') }));
    });
    ask.once('error', reject);
    ask.end(body);
  });
}

const privateCA = 'its certificate comes from an authority that Node does not know; for a private one, name its PEM file in '
  + 'NODE_EXTRA_CA_CERTS, in the environment of the runner or in env: of the job';

const meanings = {
  ENOTFOUND: ['DNS knows no such host; check the url', false],
  EAI_AGAIN: ['DNS does not answer', true],
  ECONNREFUSED: ['nothing listens there (connection refused); check host and port, and that Jobgate is up', false],
  ECONNRESET: ['the connection was reset', true],
  EPIPE: ['the connection was closed', true],
  ETIMEDOUT: ['no answer; a firewall may drop the packets', true],
  EHOSTUNREACH: ['no route to the host', false],
  ENETUNREACH: ['no route to the network', false],
  EPROTO: ['it does not speak TLS there; check scheme and port', false],
  ERR_SSL_WRONG_VERSION_NUMBER: ['it does not speak TLS there; check scheme and port', false],
  CERT_HAS_EXPIRED: ['its certificate has expired', false],
  ERR_TLS_CERT_ALTNAME_INVALID: ['its certificate is for another host name', false],
  DEPTH_ZERO_SELF_SIGNED_CERT: [privateCA, false],
  SELF_SIGNED_CERT_IN_CHAIN: [privateCA, false],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: [privateCA, false],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: [privateCA, false],
};

function explain(error, target) {
  const late = error.name === 'AbortError' || error.name === 'TimeoutError';
  const [meaning, passing] = late
    ? [`no answer within ${patience / 1000} s`, true]
    : meanings[error.code] ?? [error.message || error.code || 'unknown error', false];
  return new Unreachable(`cannot reach ${target.host}: ${meaning}`, passing);
}
