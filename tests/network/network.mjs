// What `run` starts inside the hub namespace: lays the cables, runs the chosen groups of faults or the measurement.
import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, statSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Cables } from './cluster.mjs';
import { groups, runGroup } from './faults.mjs';
import { measure } from './measure.mjs';

const NODES = 4;
const root = new URL('../..', import.meta.url).pathname;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    prefix: { type: 'string' },
    work: { type: 'string' },
    tandem: { type: 'string' },
    seed: { type: 'string', default: '1' },
    all: { type: 'boolean', default: false },
    measure: { type: 'boolean', default: false },
    delays: { type: 'string', default: '5,25,100' },
    seconds: { type: 'string', default: '20' },
    rate: { type: 'string', default: '0' },
    logs: { type: 'string' },
  },
});

/** A copy of the binary: another build must not change it under the running networks. */
function binary() {
  let built = values.tandem;
  if (!built) {
    execFileSync('cargo', ['build', '--release', '-p', 'tandem'], { cwd: root, stdio: 'inherit' });
    const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], { cwd: root, maxBuffer: 1 << 26 });
    built = `${JSON.parse(metadata).target_directory}/release/tandem`;
  }
  copyFileSync(built, `${values.work}/tandem`);
  return `${values.work}/tandem`;
}

/** Everything else of a run is deleted at its end. */
function keepLogs() {
  if (!values.logs) return;
  const isLog = (path) => statSync(path).isDirectory() || path.endsWith('.log');
  cpSync(values.work, values.logs, { recursive: true, filter: isLog });
}

function table(rows) {
  if (!rows.length) return;
  console.log('\n| group | fault | meanwhile | s to a new final block on every node | s until all is well |\n|---|---|---|---|---|');
  for (const { group, fault, meanwhile, blocks, healthy } of rows) {
    console.log(`| ${group} | ${fault} | ${meanwhile.replace(/^meanwhile /, '')} | ${blocks.toFixed(1)} | ${healthy.toFixed(1)} |`);
  }
}

const unknown = positionals.find((name) => !groups[name]);
if (unknown) {
  console.error(`there is no group ${unknown}; there are: ${Object.keys(groups).join(', ')}`);
  process.exit(2);
}

const tandem = binary();
const seed = Number(values.seed);
const cables = await Cables.lay(values.prefix, NODES, values.work, seed);
if (values.measure) {
  await measure({ tandem, cables, work: values.work, delays: values.delays.split(',').map(Number), seconds: Number(values.seconds), rate: Number(values.rate) });
  keepLogs();
  process.exit(0);
}

const rows = [];
let [passed, failed] = [0, 0];
const chosen = (fault) => values.all || fault.smoke;
for (const name of positionals.length ? positionals : Object.keys(groups)) {
  const result = await runGroup(name, { tandem, cables, work: values.work, seed, chosen });
  rows.push(...result.rows);
  passed += result.counts.passed;
  failed += result.counts.failed;
}
table(rows);
const { late_us_max, overflow, refused, forwarded, lost, blocked } = await cables.counters();
console.log(`\nswitch: ${forwarded} packets carried, ${lost} lost, ${blocked} blocked, ${overflow + refused} too many, at most ${late_us_max} µs late; seed ${seed}`);
console.log(`${passed} passed, ${failed} failed`);
keepLogs();
process.exit(failed || !passed ? 1 : 0);
