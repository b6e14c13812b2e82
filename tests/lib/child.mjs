// Processes that suites start: their output goes to files, and none outlives the suite.
import { spawn } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { finished } from 'node:stream/promises';
import { assert } from './checks.mjs';

/** Everything started here that runs. */
const started = new Set();
process.on('exit', () => started.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

/**
 * Starts a child whose output goes to a file. `exited` resolves to its exit code, or the signal's name; `logged` when
 * all it said is in the file, which is later: what it wrote last may still be in the pipe when it ends.
 */
export function start(command, args, log, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  started.add(child);
  const file = createWriteStream(log, { flags: 'a' });
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  child.logged = new Promise((resolve, reject) => {
    // Its pipes are closed and read to their ends.
    child.once('close', () => {
      file.end();
      finished(file).then(resolve, reject);
    });
  });
  child.exited = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      started.delete(child);
      resolve(code ?? signal);
    });
  });
  return child;
}

/** Runs `tandem load --json` to its end; resolves to its report. */
export async function load(tandem, args, log) {
  const child = start(tandem, ['load', ...args, '--json'], log);
  const code = await child.exited;
  await child.logged;
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  // What it says on the way is in the same file.
  const report = lines.findLast((line) => line.startsWith('{'));
  assert(code === 0 && report, `load ended with ${code}: ${lines.join('\n').slice(-300) || 'without a word'}`);
  return JSON.parse(report);
}
