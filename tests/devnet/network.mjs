// One devnet as a test sees it: the process, its events, its nodes' addresses, process ids and files.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { assert, eventually, rpc, within } from '../lib/checks.mjs';
import { start } from '../lib/child.mjs';

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const REQUEST_TIMEOUT_MS = 5_000;
const run = promisify(execFile);

export async function freeOffset(nodes) {
  const script = new URL('../lib/free-ports.mjs', import.meta.url).pathname;
  return Number((await run(process.execPath, [script, 'devnet', `${nodes}`])).stdout);
}

export class Network {
  /** Starts `tandem devnet` and waits until every node has finalized a block. */
  static async start(binary, dir, { nodes, offset, options = [] }) {
    const network = new Network();
    Object.assign(network, { binary, dir, nodes, offset, events: [], finalized: new Map() });
    const args = ['devnet', '--validators', `${nodes}`, '--dir', dir, '--base-port-offset', `${offset}`, '--json', ...options];
    network.process = start(binary, args, `${dir}.log`);
    const ready = new Promise((resolve, reject) => {
      createInterface({ input: network.process.stdout }).on('line', (line) => {
        const event = JSON.parse(line);
        network.events.push(event);
        if (event.event === 'height') network.finalized.set(event.height, event.hash);
        if (event.event === 'ready') resolve(event);
      });
      network.process.exited.then((code) => reject(new Error(`devnet ended with ${code}: ${network.logTail()}`)), reject);
    });
    network.ready = await within(START_TIMEOUT_MS, 'the ready event', ready);
    return network;
  }

  logTail() {
    return readFileSync(`${this.dir}.log`, 'utf8').slice(-500);
  }

  nodeDir(node) {
    return `${this.dir}/node-${node}`;
  }

  rpcUrl(node) {
    return this.ready.rpc[node];
  }

  pid(node, role) {
    return Number(readFileSync(`${this.nodeDir(node)}/${role}.pid`, 'utf8'));
  }

  signal(node, role, signal) {
    process.kill(this.pid(node, role), signal);
  }

  killNode(node) {
    for (const role of ['consensusd', 'executord']) this.signal(node, role, 'SIGKILL');
  }

  /** Starts both processes of a node by hand, as an operator without the supervisor would. */
  startNode(node) {
    const config = `${this.nodeDir(node)}/node.toml`;
    return ['executord', 'consensusd'].map((role) =>
      start(this.binary, [role, '--config', config], `${this.dir}-${role}-${node}.log`));
  }

  async rest(node, path) {
    const url = `${this.ready.rest[node]}${path}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    assert(response.ok, `${url} answered ${response.status}`);
    return response.json();
  }

  status(node) {
    return this.rest(node, '/node/v1/status');
  }

  async reasons(node) {
    return (await this.status(node)).reasons;
  }

  /** Height of a node's last final block, as wallets see it. */
  async height(node) {
    return Number(await rpc('eth_blockNumber', [], this.rpcUrl(node)));
  }

  /** Waits until a node, which may be down for a moment, has a final block of this height. */
  reaches(node, height, timeoutMs) {
    return eventually(timeoutMs, `node ${node} at height ${height}`, () => this.height(node).then((at) => at >= height, () => false));
  }

  /** What a node's two processes say about one height; every field must be the same on every node. */
  async block(node, height) {
    const [header, block] = await Promise.all([
      this.rest(node, `/consensus/v1/headers/${height}`),
      rpc('eth_getBlockByNumber', [`0x${height.toString(16)}`, false], this.rpcUrl(node)),
    ]);
    assert(header.hash === block.hash, `node ${node}, height ${height}: consensus has ${header.hash}, execution ${block.hash}`);
    return { hash: header.hash, state: header.state_hash, receipts: header.receipts_hash, block: JSON.stringify(block) };
  }

  /** Stops as Ctrl-C does and returns the exit code. */
  async stop() {
    this.process.kill('SIGINT');
    return within(STOP_TIMEOUT_MS, 'the end of the devnet', this.process.exited);
  }
}
