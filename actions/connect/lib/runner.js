// The GitHub Actions runner as a step meets it: inputs and states in the environment, files to append to, commands on
// stdout. https://docs.github.com/actions/reference/workflow-commands-for-github-actions

import { randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { EOL } from 'node:os';
import { commandData, visible } from './text.js';

/** Failure is an error whose message is written for the user; no stack is shown for it. */
export class Failure extends Error {}

/** Runner speaks to the runner, and lets no secret that it was told of into a line or a file. */
export class Runner {
  #stdout;
  #process;
  #secrets = new Set();

  constructor(process) {
    this.#process = process;
    this.#stdout = process.stdout;
    this.env = process.env;
  }

  /** guard runs a step to its end: an error becomes an error annotation and exit code 1. */
  async guard(step) {
    try {
      await step();
    } catch (error) {
      this.error(error instanceof Failure ? error.message : `internal error: ${error?.stack ?? error}`);
    }
  }

  input(name) {
    return (this.env[`INPUT_${name.replace(/ /g, '_').toUpperCase()}`] ?? '').trim();
  }

  state(name) {
    return this.env[`STATE_${name}`] ?? '';
  }

  /** mask has the runner blot out secret wherever it is printed from now on; call it before anything else sees it. */
  mask(secret) {
    if (!secret) return;
    this.#secrets.add(secret);
    this.#stdout.write(`::add-mask::${commandData(secret)}${EOL}`);
  }

  /** info prints a line that can be no workflow command, whatever stands in it. */
  info(message) {
    this.#stdout.write(`Jobgate: ${visible(this.#redact(message), 1000)}${EOL}`);
  }

  notice(message) {
    this.#annotate('notice', message);
  }

  warning(message) {
    this.#annotate('warning', message);
  }

  /** error shows message and lets the step fail when it ends. */
  error(message) {
    this.#annotate('error', message);
    this.#process.exitCode = 1;
  }

  exportEnv(name, value) {
    this.#append('GITHUB_ENV', name, value);
  }

  setOutput(name, value) {
    this.#append('GITHUB_OUTPUT', name, value);
  }

  saveState(name, value) {
    this.#append('GITHUB_STATE', name, value);
  }

  /** summary adds Markdown to the job's page; without a file for it (old servers), it is left out. */
  summary(text) {
    if (this.env.GITHUB_STEP_SUMMARY) appendFileSync(this.env.GITHUB_STEP_SUMMARY, this.#redact(text));
  }

  #annotate(kind, message) {
    const lines = this.#redact(message).split('\n').map((line) => visible(line, 1000));
    this.#stdout.write(`::${kind} title=Jobgate::${commandData(lines.join('\n'))}${EOL}`);
  }

  #append(file, name, value) {
    const text = String(value);
    if (this.#redact(text) !== text) throw new Error(`a secret was about to be written to ${file} as ${name}`);
    const path = this.env[file];
    if (!path) throw new Failure(`${file} is not set: this step must be run by a GitHub Actions runner (2.297 or later)`);
    const end = `end-${randomUUID()}`;
    appendFileSync(path, `${name}<<${end}${EOL}${text}${EOL}${end}${EOL}`);
  }

  #redact(text) {
    let clean = String(text);
    for (const secret of this.#secrets) clean = clean.replaceAll(secret, '***');
    return clean;
  }
}
