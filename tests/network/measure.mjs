// Block period and finality in units of the one-way delay δ, against the optimum of 2δ and 3δ.
import { readFileSync, readdirSync } from 'node:fs';
import { assert, tool } from '../lib/checks.mjs';
import { Cluster } from './cluster.mjs';

/** Headers in one answer of the REST interface. */
const HEADERS_MAX = 256;
const NODES = [1, 1, 1, 1];
/** As fast as messages allow, without waiting for transactions; one epoch, so that no boundary is in the figures. */
const EAGER = { block_interval_ms: 0, empty_block_interval_ms: 0 };
const EPOCH_LENGTH = 1 << 20;
/**
 * Before other work on the machine, as if it had none: a validator that wakes up for a message and finds both processors
 * taken waits for milliseconds otherwise. The same among the validators: what an executor does, and what the threads do
 * that carry messages, takes a fraction of a millisecond and must not wait for the signature checks of other nodes, which
 * on machines of their own it would not see. Signature checks are the work of the thread `consensus`; `calm` puts
 * it behind the others. The switch runs before all of them.
 */
const FIRST = { executord: ['chrt', '--rr', '2'], consensusd: ['chrt', '--rr', '2'] };

/** Puts the threads that check signatures behind the others. */
async function calm(cluster) {
  for (const { pid } of cluster.of(cluster.all(), 'consensusd')) {
    const threads = readdirSync(`/proc/${pid}/task`);
    const checking = threads.filter((id) => readFileSync(`/proc/${pid}/task/${id}/comm`, 'utf8').trim() === 'consensus');
    assert(checking.length === 1, `process ${pid} has ${checking.length} threads named consensus`);
    await tool('chrt', ['--rr', '--pid', '1', checking[0]]);
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const quantile = (values, q) => [...values].sort((a, b) => a - b)[Math.floor(q * (values.length - 1))];

/** Looks at the last blocks once a second: rarely enough to cost the nodes nothing, often enough to miss none. */
const LOOK_MS = 1_000;

/**
 * Follows every node's final blocks for a while: their stamps, and when they became final on each node. A look asks for the
 * blocks of three seconds at the fastest possible, no more, because nodes that answer do nothing else meanwhile.
 */
async function follow(cluster, seconds, delay_ms) {
  const count = Math.min(HEADERS_MAX, Math.ceil((3 * LOOK_MS) / (2 * delay_ms)));
  const blocks = cluster.all().map(() => new Map());
  for (let looks = 0; looks < (seconds * 1000) / LOOK_MS; looks++) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    for (const node of cluster.all()) {
      const { headers } = await cluster.rest(node, `/consensus/v1/headers?count=${count}`);
      headers.forEach((header) => blocks[node].set(header.height, header));
    }
  }
  return blocks;
}

/** Sums of a histogram and counters of one node, to see where the time goes. */
async function readMetrics(cluster, node) {
  const values = new Map();
  for (const port of [9100, 9200]) {
    const text = await (await fetch(`${cluster.rpcUrl(node).replace(':8545', `:${port}`)}/metrics`)).text();
    for (const line of text.split('\n').filter((line) => line && !line.startsWith('#'))) {
      const [name, value] = line.split(' ');
      values.set(name, Number(value));
    }
  }
  return values;
}

/** Mean duration in ms of what a histogram counted on all nodes between two readings. */
function spent(before, after, name, labels = '') {
  const sum = (readings, suffix) => readings.reduce((total, values) => total + (values.get(`${name}_${suffix}${labels}`) ?? 0), 0);
  const delta = (suffix) => sum(after, suffix) - sum(before, suffix);
  return delta('count') ? (delta('sum') / delta('count')) * 1000 : 0;
}

/** How much a histogram counted on all nodes. */
const count = (readings, name) => readings.reduce((total, values) => total + (values.get(`${name}_count`) ?? 0), 0);

/** What became of payloads built ahead between two readings, on all nodes. */
function ahead(before, after) {
  const name = (outcome) => `tandem_consensus_payloads_ahead_total{outcome="${outcome}"}`;
  const sum = (readings, outcome) => readings.reduce((total, values) => total + (values.get(name(outcome)) ?? 0), 0);
  return ['used', 'dropped', 'refilled'].map((outcome) => `${sum(after, outcome) - sum(before, outcome)} ${outcome}`).join(', ');
}

async function at(delay_ms, { tandem, cables, work, seconds, rate }) {
  await cables.heal();
  const cluster = await Cluster.start(tandem, cables, `${work}/delay-${delay_ms}`, { stakes: NODES, timing: EAGER, epochLength: EPOCH_LENGTH, before: FIRST });
  await calm(cluster);
  await cables.everywhere({ delay_ms });
  // Connections find the new round trip first.
  await cluster.reach(await cluster.top() + 30, 120_000);
  await cables.counters();
  const readings = () => Promise.all(cluster.all().map((node) => readMetrics(cluster, node)));
  const before = await readings();
  const views = (await cluster.status(0)).view;
  const cpu = () => ['consensusd', 'executord'].map((role) => cluster.cpu(role));
  const cpuBefore = cpu();
  const start = await cluster.top();
  // Blocks with something in them take time to build and to execute.
  const sending = rate ? cluster.load(rate, seconds) : undefined;
  sending?.catch(() => {}); // awaited below
  const blocks = await follow(cluster, seconds, delay_ms);
  const after = await readings();
  const viewsAfter = (await cluster.status(0)).view;
  const [consensusd, executord] = cpu().map((ms, role) => (ms - cpuBefore[role]) / (viewsAfter - views));
  const { late_us_max } = await cables.counters();
  const load = await sending;

  // No block from before the measurement, and only heights whose finality every node reported.
  const reported = (height) => blocks.every((seen) => seen.get(height)?.finalized_at_ms);
  const heights = [...blocks[0].keys()].filter((height) => height > start && reported(height)).sort((a, b) => a - b);
  const stamp = (height) => blocks[0].get(height).timestamp_ms;
  const [first, last] = [heights[0], heights.at(-1)];
  const period = (stamp(last) - stamp(first)) / (last - first);
  const finality = blocks.flatMap((seen) => heights.map((height) => seen.get(height).finalized_at_ms - stamp(height)));
  const slowest = heights.map((height) => Math.max(...blocks.map((seen) => seen.get(height).finalized_at_ms - stamp(height))));
  const engine = (method) => spent(before, after, 'tandem_consensus_engine_request_seconds', `{method="${method}",status="ok"}`);
  // A block is stamped when its payload is asked for, which may be before its parent is certified; its proposal is sent
  // when both are there and it is durable.
  const building = spent(before, after, 'tandem_consensus_proposal_seconds');
  const parts = {
    ...(load && { 'send to final, p50': load.latency_ms.p50 }),
    'stamp to sending': building, fsync: spent(before, after, 'tandem_consensus_journal_fsync_seconds'),
    'CPU of four consensusd per view': consensusd, 'CPU of four executord per view': executord,
    GetPayload: engine('GetPayload'), NewPayload: engine('NewPayload'), ForkchoiceUpdated: engine('ForkchoiceUpdated'),
  };
  const batches = count(after, 'tandem_consensus_journal_fsync_seconds') - count(before, 'tandem_consensus_journal_fsync_seconds');
  await cluster.agree();
  const audit = await cluster.audit();
  return { delay_ms, blocks: last - first, period, finality: mean(finality) - building, p50: quantile(finality, 0.5) - building, p99: quantile(finality, 0.99) - building, slowest: mean(slowest) - building, late_us_max, parts, batches: batches / (viewsAfter - views), ahead: ahead(before, after), final: load?.final ?? 0, audit };
}

export async function measure({ tandem, cables, work, delays, seconds, rate }) {
  const rows = [];
  for (const delay of delays) {
    const row = await at(delay, { tandem, cables, work, seconds, rate });
    rows.push(row);
    const parts = Object.entries(row.parts).map(([name, ms]) => `${name} ${ms.toFixed(2)} ms`).join(', ');
    console.log(`δ = ${delay} ms: ${row.blocks} blocks, period ${row.period.toFixed(1)} ms, finality ${row.finality.toFixed(1)} ms; mean of ${parts}; ${row.batches.toFixed(1)} durable batches per view of four nodes; payloads built ahead: ${row.ahead}; ${row.final} transactions final; switch at most ${row.late_us_max} µs late; ${row.audit}`);
  }
  console.log('\n| δ one way | blocks | period | in δ (optimum 2) | sent to final, mean of all nodes | in δ (optimum 3) | p50 / p99 | slowest node, in δ |\n|---|---|---|---|---|---|---|---|');
  for (const { delay_ms: d, blocks, period, finality, p50, p99, slowest } of rows) {
    console.log(`| ${d} ms | ${blocks} | ${period.toFixed(1)} ms | ${(period / d).toFixed(2)} | ${finality.toFixed(1)} ms | ${(finality / d).toFixed(2)} | ${p50.toFixed(0)} / ${p99.toFixed(0)} ms | ${(slowest / d).toFixed(2)} |`);
  }
}
