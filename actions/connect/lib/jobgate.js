// Jobgate's side for jobs: the exchange (RFC 8693), introspection (RFC 7662) and revocation (RFC 7009), and the runner's
// endpoint that mints the job's OIDC tokens.

import { Failure } from './runner.js';
import { send, Unreachable } from './http.js';

const patience = 60_000; // milliseconds in which a server that is away for a moment is asked again

/** Refused is Jobgate's no: an OAuth error, its description and the exchange id that the server's log knows it by. */
export class Refused extends Failure {
  constructor(status, { error, description, exchange }) {
    const id = exchange ? ` (exchange ${exchange})` : '';
    super(`Jobgate refused the exchange with ${status} ${error}${description ? `: ${description}` : ''}${id}`);
    this.code = error;
  }
}

/** Jobgate talks to one server on behalf of one job. mask is told of every secret before anything else sees it. */
export class Jobgate {
  constructor({ url, mint, env = {}, mask = () => {}, say = () => {}, wait = sleep }) {
    Object.assign(this, { url, mint, env, mask, say, wait });
  }

  /**
   * open exchanges a fresh OIDC token of the job. The first time it opens the session; later it renews its lease. Every
   * try takes a new token, since one whose answer was lost may have been spent.
   */
  async open({ mapping, scope }) {
    return this.patiently(async () => {
      const form = {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: await this.identityToken(),
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      };
      if (mapping) form.mapping = mapping;
      if (scope) form.scope = scope;
      const answer = await this.#post('/oauth/token', form);
      const body = parse(answer);
      if (answer.status !== 200) throw refusal(answer, body);
      return this.#checked(body);
    });
  }

  /** identityToken mints an OIDC token of this job whose audience is the server's URL. */
  async identityToken() {
    const address = new URL(this.mint.url);
    address.searchParams.set('audience', this.url);
    const headers = { authorization: `bearer ${this.mint.token}` };
    const answer = await send(address, { headers, env: this.env });
    if (answer.status >= 500) throw new Unreachable(`GitHub's token endpoint answered ${answer.status}`, true);
    const token = parse(answer)?.value;
    if (answer.status !== 200 || typeof token !== 'string' || !token) {
      throw new Failure(`GitHub's token endpoint answered ${answer.status} and gave no OIDC token for this job; check `
        + 'that the job has "permissions: id-token: write"');
    }
    this.mask(token);
    return token;
  }

  /** introspect returns what the session of token has done, to a bearer of that session. */
  async introspect(token) {
    return this.patiently(async () => {
      const answer = await this.#post('/oauth/introspect', { token }, token);
      const body = parse(answer);
      if (answer.status !== 200 || typeof body !== 'object' || body === null) throw refusal(answer, body);
      return body;
    });
  }

  /** close ends the session of token, for good. */
  async close(token) {
    return this.patiently(async () => {
      const answer = await this.#post('/oauth/revoke', { token }, token);
      if (answer.status !== 200) throw refusal(answer, parse(answer));
    });
  }

  /** patiently repeats what failed for a passing reason, for a minute at most. */
  async patiently(ask) {
    let spent = 0;
    for (let pause = 500; ; pause = Math.min(pause * 2, 15_000)) {
      const begun = Date.now();
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
        spent += Date.now() - begun + pause;
        if (!error.passing || spent > patience) throw new Failure(error.message, { cause: error });
        this.say(`${error.message}; asking again in ${pause / 1000} s`);
        await this.wait(pause);
      }
    }
  }

  async #post(path, form, bearer) {
    const headers = bearer ? { authorization: `Bearer ${bearer}` } : {};
    const answer = await send(this.url + path, { method: 'POST', headers, form, env: this.env });
    if ([502, 503, 504].includes(answer.status)) {
      const why = parse(answer)?.error_description ?? 'it is temporarily unavailable';
      throw new Unreachable(`Jobgate answered ${answer.status}: ${why}`, true);
    }
    if (answer.status >= 300 && answer.status < 400) {
      throw new Failure(`${this.url}${path} answers with a redirect, which is not followed; set url to Jobgate's public_url itself`);
    }
    return answer;
  }

  #checked(body) {
    const token = body?.access_token;
    this.mask(token);
    if (!/^jg_[0-9A-Za-z]{20,200}$/.test(token ?? '')) {
      throw new Failure(`${this.url}/oauth/token answered 200 without a session token; is url a Jobgate server?`);
    }
    const whole = typeof body.session_id === 'string' && body.expires_in > 0 && Array.isArray(body.connections);
    if (!whole) throw new Failure(`${this.url}/oauth/token answered without session_id, expires_in or connections`);
    return body;
  }
}

function refusal(answer, body) {
  if (typeof body?.error !== 'string') {
    return new Failure(`Jobgate's URL answered ${answer.status} without an OAuth error; is url a Jobgate server's public_url?`);
  }
  const exchange = body.exchange_id ?? answer.headers['jobgate-exchange-id'];
  return new Refused(answer.status, { error: body.error, description: body.error_description, exchange });
}

function parse(answer) {
  try {
    return JSON.parse(answer.body);
  } catch {
    return undefined;
  }
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
