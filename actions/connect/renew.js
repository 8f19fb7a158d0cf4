// The process that keeps a session's lease while the job runs. Its orders come by stdin, because a command line and an
// environment can be read by every process of the job.
import { text } from 'node:stream/consumers';
import { renew } from './lib/renew.js';

await renew(JSON.parse(await text(process.stdin)));
