// The scenarios; `run` says how to start them. Each starts its own network in a temporary directory.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { assert, equal, eventually, failure, suite, tool, within } from '../lib/checks.mjs';
import { load, start } from '../lib/child.mjs';
import { Network, freeOffset } from './network.mjs';

const root = new URL('../..', import.meta.url).pathname;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { tandem: { type: 'string' }, 'chaos-seconds': { type: 'string', default: '30' }, seed: { type: 'string', default: '1' } },
});
const chaosSeconds = Number(values['chaos-seconds']);
const work = mkdtempSync(`${tmpdir()}/tandem-devnet-`);
process.on('exit', () => rmSync(work, { recursive: true, force: true }));

/** A copy of the binary: another build must not change it under the running networks. */
function binary() {
  let built = values.tandem;
  if (!built) {
    execFileSync('cargo', ['build', '--release', '-p', 'tandem'], { cwd: root, stdio: 'inherit' });
    const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], { cwd: root, maxBuffer: 1 << 26 });
    built = `${JSON.parse(metadata).target_directory}/release/tandem`;
  }
  copyFileSync(built, `${work}/tandem`);
  return `${work}/tandem`;
}
const tandem = binary();

/** A small generator of numbers below `n`: a chaos run can be repeated by its seed. */
function random(seed) {
  let state = BigInt(seed) + 0x9e3779b97f4a7c15n;
  return (n) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n);
    return Number((state >> 33n) % BigInt(n));
  };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Every height from 1 to the lowest node's head: the same hashes and the same block on every node. */
async function agree(network, heightMin = 1) {
  const heights = await Promise.all(Array.from({ length: network.nodes }, (_, node) => network.height(node)));
  const top = Math.min(...heights);
  for (let height = heightMin; height <= top; height++) {
    const told = await Promise.all(heights.map((_, node) => network.block(node, height)));
    told.forEach((answer, node) => equal(JSON.stringify(answer), JSON.stringify(told[0]), `height ${height} on node ${node}`));
    const seen = network.finalized.get(height);
    assert(!seen || seen === told[0].hash, `height ${height} was finalized as ${seen} and is ${told[0].hash} now`);
  }
  return top;
}

/** Transactions per second for a while, spread over all nodes; resolves to the report. */
function send(network, rate, seconds) {
  const args = ['--rpc', network.ready.rpc.join(','), '--rate', `${rate}`, '--duration', `${seconds}`, '--connections', '8'];
  return load(tandem, args, `${work}/load-${Date.now()}.log`);
}

async function four() {
  const { check, counts } = suite('four');
  const offset = await freeOffset(4);
  const dir = `${work}/four`;
  let network;
  let heightBefore = 0;

  await check('four validators reach finality', async () => {
    const begun = Date.now();
    network = await Network.start(tandem, dir, { nodes: 4, offset });
    return `ready after ${Date.now() - begun} ms`;
  });
  if (!network) return counts;

  await check('more than 100 blocks in a row become final under load, the same on every node', async () => {
    const from = await network.height(0);
    const sending = send(network, 200, 30);
    sending.catch(() => {}); // awaited below
    await network.reaches(0, from + 101, 90_000);
    const { final, latency_ms } = await sending;
    const top = await agree(network);
    assert(top > from + 100, `height ${top}`);
    return `${top} heights compared, ${final} transactions final, p50 ${Math.round(latency_ms.p50)} ms`;
  }, 150_000);

  await check(`processes killed at random for ${chaosSeconds} s under load: nothing final is lost or changed`, async () => {
    const pick = random(values.seed);
    const deadline = Date.now() + chaosSeconds * 1000;
    const from = await network.height(0);
    const sending = send(network, 50, chaosSeconds);
    sending.catch(() => {}); // awaited below, when the killing is over
    let kills = 0;
    while (Date.now() < deadline) {
      const [node, role] = [pick(4), ['consensusd', 'executord'][pick(2)]];
      // A process that is just being restarted has no id to kill.
      try { network.signal(node, role, 'SIGKILL'); kills++; } catch {}
      await sleep(1_500 + pick(2_000));
    }
    const top = Math.max(...network.finalized.keys());
    await Promise.all([0, 1, 2, 3].map((node) => network.reaches(node, top + 3, 60_000)));
    const compared = await agree(network);
    assert(compared > from, 'nothing became final');
    const report = await sending;
    equal(report.final, report.accepted, 'final transactions of those accepted');
    return `${kills} kills, ${compared - from} blocks, ${report.final} transactions meanwhile, seed ${values.seed}`;
  }, chaosSeconds * 1000 + 240_000);

  await check('transactions sent after the crashes are all final', async () => {
    const { accepted, final } = await send(network, 100, 5);
    equal(final, accepted, 'final transactions of those accepted');
  });

  await check('Ctrl-C stops everything with exit code 0, and the journals are whole', async () => {
    heightBefore = await agree(network);
    equal(await network.stop(), 0, 'exit code');
    for (let node = 0; node < 4; node++) await tool(tandem, ['db', 'check', `${network.nodeDir(node)}/consensus`]);
  }, 120_000);

  await check('started again, the chain goes on where it was', async () => {
    const finalized = network.finalized;
    network = await Network.start(tandem, dir, { nodes: 4, offset });
    network.finalized = new Map([...finalized, ...network.finalized]);
    await Promise.all([0, 1, 2, 3].map((node) => network.reaches(node, heightBefore + 3, 30_000)));
    await agree(network);
  }, 120_000);
  await network.stop().catch(() => {});
  return counts;
}

async function three() {
  const { check, counts } = suite('three');
  let network;
  const restarted = [];
  await check('three validators reach finality', async () => {
    network = await Network.start(tandem, `${work}/three`, { nodes: 3, offset: await freeOffset(3), options: ['--no-restart'] });
  });
  if (!network) return counts;

  await check('an executor that is stopped is named within two seconds, and its validator votes again afterwards', async () => {
    network.signal(1, 'executord', 'SIGSTOP');
    const reasons = await eventually(2_000, 'a reason', async () => {
      const found = await network.reasons(1);
      return found.length > 0 && found;
    }).finally(() => network.signal(1, 'executord', 'SIGCONT'));
    await eventually(30_000, 'a healthy status', async () => (await network.reasons(1)).length === 0);
    return reasons.map((reason) => reason.code).join(', ');
  });

  await check('with one validator killed, blocks keep coming', async () => {
    const from = await network.height(0);
    network.killNode(2);
    await network.reaches(0, from + 5, 45_000);
    await network.reaches(1, from + 5, 10_000);
  });

  await check('with a second one killed, the status says below quorum and who is missing', async () => {
    network.killNode(1);
    const reason = await eventually(5_000, 'the reason', async () =>
      (await network.reasons(0)).find(({ code, missing }) => code === 'below_quorum' && missing.length === 2));
    equal(reason.missing.map(({ index }) => index).sort().join(), '1,2', 'missing');
    const refused = await failure('tandem status', () => tool(tandem, ['status', '--rest', network.ready.rest[0]]));
    assert(/below quorum/.test(refused.said), refused.said);
  });

  await check('both started again, finality resumes by itself and all three agree', async () => {
    const from = await network.height(0);
    restarted.push(...network.startNode(1), ...network.startNode(2));
    const begun = Date.now();
    await network.reaches(0, from + 1, 30_000);
    const took = Date.now() - begun;
    await Promise.all([0, 1, 2].map((node) => network.reaches(node, from + 3, 30_000)));
    await agree(network);
    return `first block after ${took} ms`;
  }, 90_000);

  restarted.forEach((child) => child.kill('SIGTERM'));
  await Promise.all(restarted.map((child) => within(20_000, 'the end of a node', child.exited).catch(() => child.kill('SIGKILL'))));
  await network.stop().catch(() => {});
  return counts;
}

async function wrong() {
  const { check, counts } = suite('wrong');
  const refused = (...args) => failure(args.join(' '), () => tool(tandem, args));
  const offset = await freeOffset(1);

  await check('one validator alone is a network', async () => {
    const network = await Network.start(tandem, `${work}/one`, { nodes: 1, offset });
    const second = await refused('devnet', '--dir', `${work}/one`, '--base-port-offset', `${offset + 50}`);
    const code = await network.stop();
    assert(/another devnet runs/.test(second.said), `a second devnet in the same directory: ${second.said}`);
    equal(code, 0, 'exit code');
  });

  await check('a port in use is named, and the directory is usable afterwards', async () => {
    const squatter = createServer();
    await new Promise((resolve) => squatter.listen(8545 + offset, '127.0.0.1', resolve));
    const error = await refused('devnet', '--dir', `${work}/one`, '--base-port-offset', `${offset}`)
      .finally(() => new Promise((resolve) => squatter.close(resolve)));
    assert(error.said.includes(`${8545 + offset}`), error.said);
    const network = await Network.start(tandem, `${work}/one`, { nodes: 1, offset });
    equal(await network.stop(), 0, 'exit code');
  });

  await check('a directory of something else is left alone', async () => {
    const error = await refused('devnet', '--dir', work, '--fresh', '--base-port-offset', `${offset}`);
    readFileSync(tandem);
    assert(error.said.length > 0, 'says nothing');
  });
  return counts;
}

const scenarios = { four, three, wrong };
const chosen = positionals.length ? positionals : Object.keys(scenarios);
let [passed, failed] = [0, 0];
for (const name of chosen) {
  if (!scenarios[name]) {
    console.error(`there is no scenario ${name}; there are: ${Object.keys(scenarios).join(', ')}`);
    process.exit(2);
  }
  const counts = await scenarios[name]();
  passed += counts.passed;
  failed += counts.failed;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
