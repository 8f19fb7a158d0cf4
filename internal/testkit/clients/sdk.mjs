// Asks two questions with the plain Anthropic SDK, one not streamed and one streamed, and prints one line of JSON for each.
// README.md says how to call it.

import { readFileSync } from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';

const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const textOf = (message) => message.content.filter((block) => block.type === 'text').map((block) => block.text).join('');

const auth = process.argv[2] ?? (process.env.ANTHROPIC_FEDERATION_RULE_ID ? 'federation' : 'token-file');
const model = process.argv[3] ?? 'claude-sonnet-5-5';
const question = { model, max_tokens: 64, messages: [{ role: 'user', content: 'Say hello.' }] };

function client() {
  switch (auth) {
    case 'federation': return new Anthropic(); // its own credential chain: ANTHROPIC_FEDERATION_RULE_ID and its companions
    case 'token-file': return new Anthropic({ authToken: readFileSync(process.env.JOBGATE_TOKEN_FILE, 'utf8').trim() });
    default: throw new Error(`${auth}: write federation or token-file`);
  }
}

async function plain(anthropic) {
  return anthropic.messages.create(question);
}

async function streamed(anthropic) {
  return anthropic.messages.stream(question).finalMessage();
}

const anthropic = client();
let code = 0;
for (const [stream, ask] of [[false, plain], [true, streamed]]) {
  try {
    const message = await ask(anthropic);
    print({ auth, stream, id: message.id, text: textOf(message), stop_reason: message.stop_reason, usage: message.usage });
  } catch (error) {
    code = 1;
    print({ auth, stream, error: { name: error.constructor.name, status: error.status, message: error.message, request_id: error.requestID } });
  }
}
process.exit(code);
