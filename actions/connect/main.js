import { connect } from './lib/connect.js';
import { Runner } from './lib/runner.js';

const runner = new Runner(process);
await runner.guard(() => connect(runner));
