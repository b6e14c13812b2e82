// Validators in network namespaces: their directories, processes, cables, clocks and what they say.
//
// Runs inside the hub namespace. Each validator has two interfaces: `eth0`, on which validators reach each other through
// the switch, and `ctl0`, on which only this process reaches the validator, so that no fault hides it from the tests.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { assert, equal, eventually, rpc, tool, within } from '../lib/checks.mjs';
import { load, start } from '../lib/child.mjs';

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const REQUEST_TIMEOUT_MS = 5_000;
const CHAIN_ID = 4242;
/** Stakes are given in coins and written in wei. */
const COIN = 10n ** 18n;
const run = promisify(execFile);

const ip = (...args) => run('ip', args);

/** Where libfaketime is, or nothing. */
export function libfaketime() {
  const folders = ['/usr/lib', '/usr/lib64', ...readdirSync('/usr/lib').map((name) => `/usr/lib/${name}`)];
  return folders.map((folder) => `${folder}/faketime/libfaketimeMT.so.1`).find((path) => existsSync(path));
}

/** The cables: namespaces joined by interfaces, and the switch that carries frames between them. */
export class Cables {
  static async lay(prefix, nodes, work, seed) {
    const cables = Object.assign(new Cables(), { prefix, nodes, answers: [], waiting: [] });
    await ip('link', 'set', 'lo', 'up');
    await ip('link', 'add', 'name', 'control', 'type', 'bridge');
    await ip('addr', 'add', '10.78.0.1/24', 'dev', 'control');
    await ip('link', 'set', 'control', 'up');
    for (let node = 0; node < nodes; node++) await cables.connect(node);
    const args = [new URL('switch.py', import.meta.url).pathname, `${seed}`, ...cables.all().map((node) => `port${node}`)];
    cables.process = start('python3', args, `${work}/switch.log`, { stdio: ['pipe', 'pipe', 'pipe'] });
    createInterface({ input: cables.process.stdout }).on('line', (line) => cables.waiting.shift()?.(JSON.parse(line)));
    await cables.answer('the switch');
    cables.process.exited.then((code) => { cables.ended = code; });
    return cables;
  }

  all() {
    return Array.from({ length: this.nodes }, (_, node) => node);
  }

  async connect(node) {
    const space = `${this.prefix}-node${node}`;
    await ip('link', 'add', 'name', `port${node}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space);
    await ip('link', 'add', 'name', `ctl${node}`, 'type', 'veth', 'peer', 'name', 'ctl0', 'netns', space);
    await ip('link', 'set', `ctl${node}`, 'master', 'control');
    await ip('-n', space, 'link', 'set', 'lo', 'up');
    // Packets of the size they have on a real network: a loss must not take 64 KiB at once.
    await ip('-n', space, 'link', 'set', 'eth0', 'address', mac(node), 'gso_max_segs', '1');
    await ip('-n', space, 'addr', 'add', `${address(node)}/24`, 'dev', 'eth0');
    await ip('-n', space, 'addr', 'add', `${controlAddress(node)}/24`, 'dev', 'ctl0');
    for (const device of ['eth0', 'ctl0']) await ip('-n', space, 'link', 'set', device, 'up');
    for (const device of [`port${node}`, `ctl${node}`]) await ip('link', 'set', device, 'up');
    for (const other of this.all().filter((other) => other !== node)) {
      await ip('-n', space, 'neigh', 'add', address(other), 'lladdr', mac(other), 'dev', 'eth0', 'nud', 'permanent');
    }
  }

  answer(what) {
    return within(REQUEST_TIMEOUT_MS, `an answer of ${what}`, new Promise((resolve) => this.waiting.push(resolve)));
  }

  async command(command) {
    assert(this.ended === undefined, `the switch ended with ${this.ended}`);
    this.process.stdin.write(`${JSON.stringify(command)}\n`);
    return this.answer('the switch');
  }

  /** Gives directions of pairs of nodes these properties; what is left out is perfect. In force when it resolves. */
  set(pairs, values) {
    return this.command({ links: pairs.map(([from, to]) => [from, to, values]) });
  }

  pairs() {
    return this.all().flatMap((from) => this.all().filter((to) => to !== from).map((to) => [from, to]));
  }

  everywhere(values) {
    return this.set(this.pairs(), values);
  }

  heal() {
    return this.everywhere({});
  }

  /** Cuts every cable between nodes of different groups. */
  split(...groups) {
    const group = (node) => groups.findIndex((members) => members.includes(node));
    return this.set(this.pairs().filter(([from, to]) => group(from) !== group(to)), { up: false });
  }

  counters() {
    return this.command({ counters: true });
  }
}

const mac = (node) => `02:00:00:00:00:${(node + 1).toString(16).padStart(2, '0')}`;
const address = (node) => `10.77.0.${10 + node}`;
const controlAddress = (node) => `10.78.0.${10 + node}`;

export class Cluster {
  /**
   * Makes the directories of a new chain, one validator per stake, and starts all of them.
   * `timing` replaces values of the genesis' timing, `clocks` runs every process under libfaketime, `before`
   * is for each role a command that starts it.
   */
  static async start(tandem, cables, dir, { stakes, timing = {}, epochLength, clocks = false, before = {} }) {
    const cluster = new Cluster();
    Object.assign(cluster, { tandem, cables, dir, nodes: stakes.length, clocks, before });
    Object.assign(cluster, { processes: new Map(), finalized: new Map() });
    mkdirSync(dir);
    await cluster.makeChain(stakes, timing, epochLength);
    cluster.all().forEach((node) => cluster.startNode(node));
    await cluster.reach(1, START_TIMEOUT_MS);
    return cluster;
  }

  all() {
    return Array.from({ length: this.nodes }, (_, node) => node);
  }

  // Directories.

  async makeChain(stakes, timing, epochLength) {
    const options = [];
    for (const [node, stake] of stakes.entries()) {
      const owner = `0x${(0xa0 + node).toString(16).padStart(40, '0')}`;
      await tool(this.tandem, ['keys', 'new', '--plain', '--out', this.keyFile(node), '--address', owner, '--stake', `${BigInt(stake) * COIN}`]);
      options.push('--validator', this.keyFile(node).replace('.json', '.pub.json'));
    }
    const genesis = `${this.dir}/genesis.json`;
    if (epochLength) options.push('--epoch-length', `${epochLength}`);
    await tool(this.tandem, ['genesis', 'new', ...options, '--chain-id', `${CHAIN_ID}`, '--dev-accounts', '10', '--out', genesis]);
    const parsed = JSON.parse(readFileSync(genesis, 'utf8'));
    Object.assign(parsed.tandem.timing, timing);
    writeFileSync(genesis, JSON.stringify(parsed));
    for (const node of this.all()) await this.initNode(node);
  }

  async initNode(node) {
    const others = this.all().filter((other) => other !== node);
    const peers = others.flatMap((other) => ['--peer', `${address(other)}:9000`, '--tx-peer', `${address(other)}:30303`]);
    const files = ['--dir', this.nodeDir(node), '--genesis', `${this.dir}/genesis.json`, '--key', this.keyFile(node)];
    await tool(this.tandem, ['init', ...files, '--listen', address(node), ...peers]);
    // As `tandem init` writes it, but for the addresses that this process reaches the node by.
    const config = `${this.nodeDir(node)}/node.toml`;
    const text = readFileSync(config, 'utf8')
      .replaceAll('"127.0.0.1:', `"${controlAddress(node)}:`)
      .replace('rest_allowed_hosts = []', 'rest_allowed_hosts = ["*"]')
      .replace('hosts = ["localhost"]', 'hosts = ["*"]');
    writeFileSync(config, text);
    if (this.clocks) this.setClock(node, 0);
  }

  keyFile(node) {
    return `${this.dir}/key-${node}.json`;
  }

  nodeDir(node) {
    return `${this.dir}/node-${node}`;
  }

  consensusDir(node) {
    return `${this.nodeDir(node)}/consensus`;
  }

  /** Deletes everything the executor of a stopped node holds. */
  wipeExecution(node) {
    rmSync(`${this.nodeDir(node)}/execution`, { recursive: true });
  }

  // Processes.

  startNode(node) {
    for (const role of ['executord', 'consensusd']) {
      const faked = this.clocks ? ['env', ...this.clockSettings(node)] : [];
      const command = [...(this.before[role] ?? []), ...faked, this.tandem, role, '--config', `${this.nodeDir(node)}/node.toml`];
      // Each of these becomes the next one in place: the child is the node's process itself.
      const args = ['netns', 'exec', `${this.cables.prefix}-node${node}`, ...command];
      this.processes.set(`${role}-${node}`, start('ip', args, this.logFile(node, role)));
    }
  }

  logFile(node, role) {
    return `${this.dir}/${role}-${node}.log`;
  }

  /** The processes of some nodes; of both roles unless one is named. */
  of(nodes, role) {
    const roles = role ? [role] : ['consensusd', 'executord'];
    return nodes.flatMap((node) => roles.map((role) => this.processes.get(`${role}-${node}`)));
  }

  signal(nodes, signal, role) {
    this.of(nodes, role).forEach((child) => assert(child.kill(signal), `no process to send ${signal}`));
  }

  /** Ends nodes and answers their exit codes. */
  async end(nodes, signal = 'SIGTERM') {
    const children = this.of(nodes);
    children.forEach((child) => child.kill(signal));
    return within(STOP_TIMEOUT_MS, 'the end of the processes', Promise.all(children.map((child) => child.exited)));
  }

  /** Milliseconds of CPU that the processes of one role took so far, on all nodes together. */
  cpu(role) {
    const ticks = this.of(this.all(), role).map(({ pid }) => {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
      return Number(fields[11]) + Number(fields[12]);
    });
    // A tick is a hundredth of a second on every Linux.
    return ticks.reduce((sum, own) => sum + own, 0) * 10;
  }

  // Clocks.

  clockSettings(node) {
    return [
      `LD_PRELOAD=${libfaketime()}`, `FAKETIME_TIMESTAMP_FILE=${this.dir}/clock-${node}`, 'FAKETIME_CACHE_DURATION=1',
      // The wall clock alone: a wrong clock does not make time run differently.
      'FAKETIME_DONT_FAKE_MONOTONIC=1', 'FAKETIME_DONT_RESET=1', 'NO_FAKE_STAT=1',
    ];
  }

  /** Sets how far a node's wall clock is ahead; its processes see it within a second. */
  setClock(node, seconds) {
    writeFileSync(`${this.dir}/clock-${node}`, `${seconds < 0 ? '' : '+'}${seconds}\n`);
  }

  /** How far a node's wall clock is ahead, as its own stamps say: of the block that became final last. */
  async clockAhead(node) {
    const before = await this.height(node);
    const [header] = await eventually(20_000, `a block on node ${node}`, async () => {
      const { headers } = await this.rest(node, '/consensus/v1/headers?count=1');
      return headers[0]?.height > before && headers;
    });
    return (header.finalized_at_ms - Date.now()) / 1000;
  }

  // What they say.

  async rest(node, path) {
    const url = `http://${controlAddress(node)}:5052${path}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    assert(response.ok, `${url} answered ${response.status}`);
    return response.json();
  }

  rpcUrl(node) {
    return `http://${controlAddress(node)}:8545`;
  }

  status(node) {
    return this.rest(node, '/node/v1/status');
  }

  async reasons(node) {
    return (await this.status(node)).reasons;
  }

  /** Height of a node's last final block; 0 while it has none. */
  async height(node) {
    const { headers } = await this.rest(node, '/consensus/v1/headers?count=1');
    return headers[0]?.height ?? 0;
  }

  heights(nodes = this.all()) {
    return Promise.all(nodes.map((node) => this.height(node)));
  }

  async top(nodes = this.all()) {
    return Math.max(...(await this.heights(nodes)));
  }

  /** Waits until every one of these nodes, which may be down for a moment, has a final block of this height. */
  reach(height, timeoutMs, nodes = this.all()) {
    return eventually(timeoutMs, `nodes ${nodes.join(', ')} at height ${height}`, async () => {
      const reached = await Promise.all(nodes.map((node) => this.height(node).then((at) => at >= height, () => false)));
      return reached.every(Boolean);
    }).catch(async (error) => {
      const states = await Promise.all(this.all().map((node) => this.describe(node)));
      throw new Error(`${error.message}: ${states.join('; ')}`);
    });
  }

  async describe(node) {
    const state = await this.status(node).catch((error) => ({ error: error.message }));
    if (state.error) return `node ${node}: ${state.error}`;
    return `node ${node}: height ${state.height}, view ${state.view}, ${state.reasons.map(({ message }) => message).join(', ') || 'no reason'}`;
  }

  /** Waits until no node has a reason why it does not move, and each is connected to all others. */
  healthy(timeoutMs) {
    return eventually(timeoutMs, 'a healthy status of every node', async () => {
      const states = await Promise.all(this.all().map((node) => this.status(node).catch(() => undefined)));
      return states.every((state) => state?.reasons.length === 0 && state.validators.connected === this.nodes);
    });
  }

  /**
   * Every height up to the lowest node's last one: the same block, by consensus and by execution, on every node, and
   * the same as at an earlier look.
   */
  async agree() {
    const top = Math.min(...(await this.heights()));
    for (let height = 1; height <= top; height++) {
      const told = await Promise.all(this.all().map((node) => this.block(node, height)));
      told.forEach((hashes, node) => equal(hashes, told[0], `height ${height} on node ${node}`));
      equal(told[0], this.finalized.get(height) ?? told[0], `height ${height} and what was final there before`);
      this.finalized.set(height, told[0]);
    }
    return top;
  }

  async block(node, height) {
    const [header, block] = await Promise.all([
      this.rest(node, `/consensus/v1/headers/${height}`),
      rpc('eth_getBlockByNumber', [`0x${height.toString(16)}`, false], this.rpcUrl(node)),
    ]);
    equal(block.hash, header.hash, `node ${node}, height ${height}: the executor's block`);
    equal(header.status, 'finalized', `node ${node}, height ${height}`);
    return [header.hash, header.state_hash, header.receipts_hash].join(' ');
  }

  /** Transactions per second for a while, spread over all nodes; resolves to the report. */
  load(rate, seconds) {
    const rpcs = this.all().map((node) => this.rpcUrl(node)).join(',');
    const args = ['--rpc', rpcs, '--rate', `${rate}`, '--duration', `${seconds}`, '--connections', '4'];
    return load(this.tandem, args, `${this.dir}/load-${Date.now()}.log`);
  }

  /** Stops everything as an operator does. Whole journals and no two votes that contradict each other, or an error. */
  async audit() {
    const codes = await this.end(this.all());
    assert(codes.every((code) => code === 0), `exit codes ${codes.join(', ')}`);
    const dirs = this.all().map((node) => this.consensusDir(node));
    for (const dir of dirs) await tool(this.tandem, ['db', 'check', dir]);
    return (await tool(this.tandem, ['db', 'audit', ...dirs])).stdout;
  }
}
