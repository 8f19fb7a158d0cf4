import { close } from './lib/close.js';
import { Runner } from './lib/runner.js';

const runner = new Runner(process);
await runner.guard(() => close(runner));
