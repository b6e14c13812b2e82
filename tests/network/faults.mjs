// The faults, in groups; the faults of a group befall one network one after the other. Each asks three things: what the
// network does meanwhile, that it recovers by itself when the fault is over, and how long that takes. After the last
// fault of a group every block and every vote is compared.
import { assert, equal, eventually, suite } from '../lib/checks.mjs';
import { Cluster, libfaketime } from './cluster.mjs';

/** How long a network may take to recover. Far more than it takes: it separates slow from never. */
const RECOVERY_MS_MAX = 90_000;
/** How long a network that can go on may take for the blocks asked for. */
const PROGRESS_MS_MAX = 90_000;
const CHECK_MS_MAX = 300_000;

const EVEN = [1, 1, 1, 1];
/** Any three are a quorum of 67 and no two are; no two have the same weight. */
const UNEVEN = [30, 27, 23, 20];

/** Blocks come all the time, four a second, whether there is something to include or not. */
const STEADY = { block_interval_ms: 250, empty_block_interval_ms: 250 };

/** A generator of numbers below `n`, so that a run can be repeated by its seed. */
function random(seed) {
  let state = BigInt(seed) + 0x9e3779b97f4a7c15n;
  return (n) => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n);
    return Number((state >> 33n) % BigInt(n));
  };
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const others = (node) => [0, 1, 2, 3].filter((other) => other !== node);

/** Nodes that can go on do: `blocks` more of them. */
async function goesOn(cluster, nodes, blocks = 6) {
  const from = await cluster.top(nodes);
  const begun = Date.now();
  await cluster.reach(from + blocks, PROGRESS_MS_MAX, nodes);
  return `meanwhile ${(blocks / (Date.now() - begun) * 1000).toFixed(1)} blocks/s`;
}

/** A node that is cut off may finish what it had; from then on it stays where it is, however long that lasts. */
async function standsStill(cluster, nodes, observeMs) {
  await Promise.all(nodes.map((node) => eventually(30_000, `node ${node} noticing that it is cut off`, async () =>
    (await cluster.reasons(node)).some(({ code }) => code === 'below_quorum'))));
  const before = await cluster.heights(nodes);
  await pause(observeMs);
  equal((await cluster.heights(nodes)).join(), before.join(), 'heights without a quorum');
}

const partition = {
  stakes: UNEVEN,
  faults: {
    'a minority cut off: the heaviest of four': {
      smoke: true,
      async during(cluster) {
        await cluster.cables.split([0], [1, 2, 3]);
        const note = await goesOn(cluster, [1, 2, 3]);
        await standsStill(cluster, [0], 1_000);
        return note;
      },
    },
    'two halves, neither with a quorum': {
      smoke: true,
      async during(cluster) {
        await cluster.cables.split([0, 1], [2, 3]);
        await standsStill(cluster, [0, 1, 2, 3], 6_000);
        return 'no block, as it must be';
      },
    },
    'a minority cut off for half a minute: the lightest of four': {
      async during(cluster) {
        await cluster.cables.split([3], [0, 1, 2]);
        const note = await goesOn(cluster, [0, 1, 2]);
        await standsStill(cluster, [3], 30_000);
        return note;
      },
    },
    'two halves for half a minute': {
      async during(cluster) {
        await cluster.cables.split([0, 3], [1, 2]);
        await standsStill(cluster, [0, 1, 2, 3], 30_000);
        return 'no block, as it must be';
      },
    },
    'four parts': {
      async during(cluster) {
        await cluster.cables.split([0], [1], [2], [3]);
        await standsStill(cluster, [0, 1, 2, 3], 6_000);
        return 'no block, as it must be';
      },
    },
    'one way: a node hears nobody': {
      smoke: true,
      async during(cluster) {
        await cluster.cables.set(others(1).map((from) => [from, 1]), { up: false });
        return goesOn(cluster, others(1));
      },
    },
    'one way: nobody hears a node': {
      async during(cluster) {
        await cluster.cables.set(others(2).map((to) => [2, to]), { up: false });
        return goesOn(cluster, others(2));
      },
    },
    'one way: one direction of one cable': {
      async during(cluster) {
        await cluster.cables.set([[0, 2]], { up: false });
        return goesOn(cluster, [0, 1, 2, 3], 12);
      },
    },
    'a ring: every node hears only its neighbour': {
      async during(cluster) {
        await cluster.cables.everywhere({ up: false });
        await cluster.cables.set([[0, 1], [1, 2], [2, 3], [3, 0]], {});
        await standsStill(cluster, [0, 1, 2, 3], 6_000);
        return 'no block, as it must be';
      },
    },
    'a flapping cable': {
      async during(cluster) {
        return flap(cluster, [[0, 1], [1, 0]], [0, 1, 2, 3]);
      },
    },
    'a flapping node': {
      async during(cluster) {
        return flap(cluster, others(3).flatMap((other) => [[other, 3], [3, other]]), others(3));
      },
    },
  },
};

/** Cables go down and up again at random for 15 s; these nodes go on all the time. */
async function flap(cluster, pairs, nodes) {
  const pick = random(cluster.seed);
  const until = Date.now() + 15_000;
  const from = await cluster.top(nodes);
  let changes = 0;
  for (let up = false; Date.now() < until; up = !up, changes++) {
    await cluster.cables.set(pairs, { up });
    await pause(200 + pick(1_300));
  }
  const to = await cluster.top(nodes);
  assert(to >= from + 6, `${to - from} blocks in 15 s of flapping`);
  return `meanwhile ${((to - from) / 15).toFixed(1)} blocks/s, ${changes} changes`;
}

/** Every packet late by this, a fifth more or less, so that packets overtake each other; some are lost or come twice. */
const bad = (delay_ms, loss, seconds = 12) => async (cluster) => {
  await cluster.cables.everywhere({ delay_ms, jitter_ms: delay_ms / 5, loss, duplicate: 0.01 });
  const [from, begun] = [await cluster.top(), Date.now()];
  const { final, accepted } = await cluster.load(20, seconds);
  assert(accepted > 0, 'no transaction was accepted');
  equal(final, accepted, 'final transactions of those accepted');
  await goesOn(cluster, [0, 1, 2, 3], 4);
  const rate = (await cluster.top() - from) / (Date.now() - begun) * 1000;
  return `meanwhile ${rate.toFixed(1)} blocks/s, ${final} transactions final`;
};

const delay = {
  stakes: EVEN,
  faults: {
    '25 ms one way, 1 % loss': { during: bad(25, 0.01) },
    '100 ms one way, 5 % loss': { smoke: true, during: bad(100, 0.05, 8) },
    '300 ms one way, 10 % loss': { during: bad(300, 0.10) },
    'one node 300 ms away, 10 % loss': {
      async during(cluster) {
        await cluster.cables.everywhere({ delay_ms: 10, jitter_ms: 2 });
        await cluster.cables.set(others(0).flatMap((other) => [[0, other], [other, 0]]), { delay_ms: 300, jitter_ms: 60, loss: 0.1 });
        return goesOn(cluster, [0, 1, 2, 3], 12);
      },
    },
  },
};

/** Stops processes with a signal that they cannot notice, until `meanwhile` is over. */
async function frozen(cluster, nodes, role, meanwhile) {
  cluster.signal(nodes, 'SIGSTOP', role);
  try {
    return await meanwhile();
  } finally {
    cluster.signal(nodes, 'SIGCONT', role);
  }
}

const freeze = {
  stakes: UNEVEN,
  faults: {
    'SIGSTOP of a consensusd': {
      during: (cluster) => frozen(cluster, [0], 'consensusd', () => goesOn(cluster, others(0), 12)),
    },
    'SIGSTOP of an executord': {
      during: (cluster) => frozen(cluster, [1], 'executord', () => goesOn(cluster, others(1), 12)),
    },
    'SIGSTOP of a whole node': {
      smoke: true,
      during: (cluster) => frozen(cluster, [2], undefined, () => goesOn(cluster, others(2), 12)),
    },
    'SIGSTOP of two of four consensusd': {
      during: (cluster) => frozen(cluster, [2, 3], 'consensusd', async () => {
        await standsStill(cluster, [0, 1], 3_000);
        return 'no block, as it must be';
      }),
    },
    'SIGSTOP of every process for eight seconds': {
      during: (cluster) => frozen(cluster, [0, 1, 2, 3], undefined, async () => {
        await pause(8_000);
        return 'no process runs';
      }),
    },
  },
};

/** The clock of one node is wrong; the others, three quarters of stake, go on, and in the end it does again. */
const skew = (seconds) => ({
  async during(cluster) {
    const node = 2;
    cluster.setClock(node, seconds);
    const note = await goesOn(cluster, others(node), 12);
    const ahead = await cluster.clockAhead(node);
    assert(Math.abs(ahead - seconds) < 3, `the clock of node ${node} should be ${seconds} s ahead and is ${ahead} s`);
    return note;
  },
  end: async (cluster) => cluster.setClock(2, 0),
});

const clock = {
  stakes: EVEN,
  clocks: true,
  faults: {
    'clock of one node 5 s ahead': { smoke: true, ...skew(5) },
    'clock of one node 5 s behind': skew(-5),
    'clock of one node 2 h ahead': skew(7200),
    'clock of one node 2 h behind': skew(-7200),
    'clocks of two nodes 8 s ahead and 8 s behind': {
      async during(cluster) {
        cluster.setClock(1, 8);
        cluster.setClock(3, -8);
        return goesOn(cluster, [0, 2], 12);
      },
      async end(cluster) {
        [1, 3].forEach((node) => cluster.setClock(node, 0));
      },
    },
  },
};

/** Kills nodes at once and, once nobody is left, starts them again. */
async function restart(cluster, nodes, signal) {
  await cluster.end(nodes, signal);
  nodes.forEach((node) => cluster.startNode(node));
  return `${nodes.length} of 4 nodes`;
}

const restarts = {
  stakes: UNEVEN,
  faults: {
    'all nodes killed and started again': {
      smoke: true,
      during: (cluster) => restart(cluster, [0, 1, 2, 3], 'SIGKILL'),
    },
    'all nodes stopped in order and started again': {
      during: (cluster) => restart(cluster, [0, 1, 2, 3], 'SIGTERM'),
    },
    'quorum killed and started again': { during: (cluster) => restart(cluster, [0, 1], 'SIGKILL') },
    'a node cut off, killed, its executor emptied, started, connected': {
      smoke: true,
      async during(cluster) {
        await cluster.cables.split([3], [0, 1, 2]);
        await goesOn(cluster, [0, 1, 2], 4);
        await cluster.end([3], 'SIGKILL');
        cluster.wipeExecution(3);
        const note = await goesOn(cluster, [0, 1, 2], 8);
        cluster.startNode(3);
        await eventually(30_000, 'a status of the node that was emptied', () => cluster.status(3).catch(() => false));
        return note;
      },
    },
  },
};

export const groups = { partition, delay, freeze, clock, restart: restarts };

/**
 * Waits for a final block on every node that is above all that were final anywhere when the fault ended: above what
 * every node, also one that is only just starting, says first.
 */
async function recovers(cluster, begun) {
  const first = (node) => eventually(RECOVERY_MS_MAX, `an answer of node ${node}`, () =>
    cluster.height(node).then((height) => ({ height }), () => false));
  const heights = await Promise.all(cluster.all().map(first));
  await cluster.reach(Math.max(...heights.map(({ height }) => height)) + 1, RECOVERY_MS_MAX);
  const blocks = (Date.now() - begun) / 1000;
  await cluster.healthy(RECOVERY_MS_MAX);
  return { blocks, healthy: (Date.now() - begun) / 1000 };
}

/** Runs the chosen faults of one group. Answers the counts of checks and a row for each fault that was overcome. */
export async function runGroup(name, { tandem, cables, work, seed, chosen }) {
  const { check, counts } = suite(name);
  const group = groups[name];
  const rows = [];
  let cluster;
  if (group.clocks && !libfaketime()) {
    await check('libfaketime is there', async () => assert(false, 'not found: install it (Debian: apt-get install libfaketime)'));
    return { counts, rows };
  }
  await check(`four validators with stakes ${group.stakes.join(', ')} reach finality`, async () => {
    const begun = Date.now();
    await cables.heal();
    cluster = await Cluster.start(tandem, cables, `${work}/${name}`, { stakes: group.stakes, timing: STEADY, clocks: group.clocks });
    cluster.seed = seed;
    return `after ${Date.now() - begun} ms`;
  });
  if (!cluster) return { counts, rows };

  for (const [fault, { during, end }] of Object.entries(group.faults).filter(([, fault]) => chosen(fault))) {
    await check(fault, async () => {
      let meanwhile;
      try {
        meanwhile = await during(cluster);
      } finally {
        await end?.(cluster);
        await cables.heal();
      }
      const { blocks, healthy } = await recovers(cluster, Date.now());
      rows.push({ group: name, fault, meanwhile, blocks, healthy });
      return `${meanwhile}; new final block everywhere after ${blocks.toFixed(1)} s, all well after ${healthy.toFixed(1)} s`;
    }, CHECK_MS_MAX);
  }

  await check('every block is the same on every node', async () => `${await cluster.agree()} heights`, CHECK_MS_MAX);
  await check('the journals are whole and hold no two votes that contradict each other', () => cluster.audit(), CHECK_MS_MAX);
  await cluster.end(cluster.all(), 'SIGKILL').catch(() => {});
  return { counts, rows };
}
