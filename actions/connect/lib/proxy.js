// Corporate proxies, as curl and the runner understand them: https_proxy and no_proxy in either case. Node 20 has no
// support for them in its http modules.

import http from 'node:http';
import https from 'node:https';
import tls from 'node:tls';
import { isIP } from 'node:net';

/** proxyFor returns the URL of the proxy that an https target goes through, or null for none. */
export function proxyFor(target, env) {
  if (target.protocol !== 'https:' || isLoopback(target.hostname)) return null;
  const proxy = env.https_proxy || env.HTTPS_PROXY;
  if (!proxy || excepted(target, env.no_proxy || env.NO_PROXY || '')) return null;
  return new URL(proxy.includes('://') ? proxy : `http://${proxy}`);
}

/** isLoopback reports whether hostname, as URL gives it, can only mean this machine. */
export function isLoopback(hostname) {
  return hostname === 'localhost' || hostname === '[::1]' || (isIP(hostname) === 4 && hostname.startsWith('127.'));
}

function excepted(target, list) {
  const host = target.hostname.toLowerCase();
  const port = target.port || '443';
  return list.split(/[\s,]+/).filter(Boolean).some((entry) => {
    if (entry === '*') return true;
    const [, name, wanted] = /^(.*?)(?::(\d+))?$/.exec(entry.toLowerCase());
    const suffix = name.replace(/^\*?\.?/, '');
    return (!wanted || wanted === port) && (host === suffix || host.endsWith(`.${suffix}`));
  });
}

/** tunnel opens a TLS connection to target through proxy by CONNECT (RFC 9110 section 9.3.6). */
export async function tunnel(proxy, target, signal) {
  const authority = `${target.hostname}:${target.port || 443}`;
  const headers = { host: authority };
  if (proxy.username) {
    const login = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
    headers['proxy-authorization'] = `Basic ${Buffer.from(login).toString('base64')}`;
  }
  const client = proxy.protocol === 'https:' ? https : http;
  const socket = await new Promise((resolve, reject) => {
    const ask = client.request(proxy, { method: 'CONNECT', path: authority, headers, agent: false, signal });
    ask.once('error', reject);
    ask.once('response', (answer) => reject(refused(proxy, answer.statusCode)));
    ask.once('connect', (answer, stream) =>
      answer.statusCode === 200 ? resolve(stream) : (stream.destroy(), reject(refused(proxy, answer.statusCode))));
    ask.end();
  });
  const servername = isIP(target.hostname) ? undefined : target.hostname;
  return tls.connect({ socket, servername, host: target.hostname, rejectUnauthorized: true });
}

function refused(proxy, status) {
  return Object.assign(new Error(`the proxy ${proxy.host} answered ${status}`), { code: 'PROXY_REFUSED' });
}
