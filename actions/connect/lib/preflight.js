// What is looked at before anything is asked of anybody.

import { isLoopback } from './proxy.js';
import { Failure } from './runner.js';

// What Claude Code and Anthropic's SDKs prefer to the session of this step, silently.
const shadows = {
  ANTHROPIC_API_KEY: 'an API key',
  ANTHROPIC_AUTH_TOKEN: 'a bearer token',
  ANTHROPIC_PROFILE: 'a credentials profile',
  CLAUDE_CODE_OAUTH_TOKEN: 'an OAuth token',
  CLAUDE_CODE_USE_BEDROCK: "another provider's endpoint",
  CLAUDE_CODE_USE_VERTEX: "another provider's endpoint",
  CLAUDE_CODE_USE_FOUNDRY: "another provider's endpoint",
};

/** refuseShadows throws where the job's environment holds a credential or a switch that goes around Jobgate. */
export function refuseShadows(env) {
  const found = Object.keys(shadows).filter((name) => env[name]);
  if (found.length === 0) return;
  const list = found.map((name) => `${name} (${shadows[name]})`).join(', ');
  throw new Failure(`${list} stands in this job's environment. Claude clients prefer it, silently, to the session of `
    + 'this step, and calls would go around Jobgate. Remove it from env: of the workflow or job (Jobgate holds the '
    + 'credential; the job needs none), or give it with env: to the one other step that uses it.');
}

/** readInputs returns the step's inputs, checked; url without the slash at its end. */
export function readInputs(runner) {
  const onDenial = runner.input('on-denial') || 'fail';
  if (onDenial !== 'fail' && onDenial !== 'warn') {
    throw new Failure(`on-denial is "${onDenial}"; write fail or warn`);
  }
  return {
    url: checkURL(runner.input('url')),
    mapping: runner.input('mapping'),
    scope: runner.input('scope').split(/\s+/).filter(Boolean).join(' '),
    connection: runner.input('connection'),
    onDenial,
  };
}

function checkURL(given) {
  if (!given) throw new Failure("the input url is empty; write Jobgate's public_url, such as https://jobgate.example.com");
  let url;
  try {
    url = new URL(given);
  } catch {
    throw new Failure(`url "${given}" is not a URL; write Jobgate's public_url, such as https://jobgate.example.com`);
  }
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) {
    throw new Failure(`url "${given}" must begin with https://; plain http is taken on a loopback address only`);
  }
  if (url.username || url.password || url.search || url.hash || /[\s?#]/.test(given)) {
    throw new Failure("url must be scheme, host and path only: no user, no query, no fragment");
  }
  return given.replace(/\/+$/, '');
}

/** readMint returns where the job's OIDC tokens come from: {url, token}. */
export function readMint(env) {
  const url = env.ACTIONS_ID_TOKEN_REQUEST_URL;
  const token = env.ACTIONS_ID_TOKEN_REQUEST_TOKEN;
  if (url && token) return { url, token };
  throw new Failure('this job cannot get an OIDC token (ACTIONS_ID_TOKEN_REQUEST_URL is not set). Add to the job:\n'
    + '    permissions:\n'
    + '      id-token: write\n'
    + 'and what else the job needs, such as "contents: read": permissions that are not listed are none. A pull request '
    + 'from a fork never gets this permission.');
}
