// Runs one query of the Claude Agent SDK and prints every SDK message as one line of JSON. README.md says how to call it.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { query } from '@anthropic-ai/claude-agent-sdk';

const print = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

const given = process.argv[2] ?? process.env.AGENT_OPTIONS ?? '{}';
const {
  prompt = 'Say hello.', tools = ['Bash'], model = 'claude-sonnet-5-5', maxTurns = 10, cwd = process.cwd(), timeoutMs = 120_000,
  env = {}, options = {},
} = JSON.parse(given === '-' ? await text(process.stdin) : given);

// A configuration folder of its own: nothing of the user's settings, credentials or history takes part in a test.
const config = mkdtempSync(join(tmpdir(), 'agent-'));
const abort = new AbortController();
const alarm = setTimeout(() => abort.abort(), timeoutMs);
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => abort.abort());

let code = 1;
try {
  const run = query({
    prompt,
    options: {
      model,
      maxTurns,
      cwd,
      tools,
      allowedTools: tools,
      permissionMode: 'bypassPermissions',
      allowDangerouslySkipPermissions: true,
      settingSources: [],
      abortController: abort,
      stderr: (line) => print({ type: 'stderr', text: line }),
      env: {
        ...process.env,
        IS_SANDBOX: '1', // without it the client refuses bypassPermissions as root
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
        CLAUDE_CONFIG_DIR: config,
        ...env,
      },
      ...options,
    },
  });
  for await (const message of run) {
    print(message);
    if (message.type === 'result') code = message.subtype === 'success' && !message.is_error ? 0 : 1;
  }
} catch (error) {
  print({ type: 'error', name: error.name, message: error.message });
  code = 1;
} finally {
  clearTimeout(alarm);
  rmSync(config, { recursive: true, force: true });
}
process.exit(code);
