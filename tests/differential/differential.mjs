// The same transactions on Tandem and on anvil: receipts, state, calls and refusals compared. See ../README.md.
import { parseArgs } from 'node:util';
import { suite } from '../lib/checks.mjs';
import { allBlocks, blockFaults, environmentFaults, historyFaults, logFilterFaults, tips } from './lib/blocks.mjs';
import { callDifferences } from './lib/calls.mjs';
import { cases } from './lib/cases.mjs';
import { Chain } from './lib/chain.mjs';
import { dump, receiptDifferences, receiptFaults, stateDifferences } from './lib/compare.mjs';
import { Account, address, ethers, sign } from './lib/evm.mjs';
import { afterwards, refusals } from './lib/refusals.mjs';
import { PRECOMPILE_ADDRESSES } from './lib/precompiles.mjs';
import { PRICE, World } from './lib/world.mjs';

const { values: options } = parseArgs({
  options: {
    tandem: { type: 'string' },
    anvil: { type: 'string' },
    seed: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '12' },
    transactions: { type: 'string', default: '30' },
    calls: { type: 'string', default: '300' },
  },
});
const MNEMONIC = 'test test test test test test test test test test test junk';
/** Who sends what: worlds, chosen cases, funding, refusals, the rest. */
const [WORLDS, CASES, FUNDER, REFUSED, OTHER] = [12, 12, 13, 14, 15];
const ACCOUNTS = 16;
/** The oracle pays its fees to an account of their own; Tandem pays its validator. */
const ORACLE_FEES = '0x00000000000000000000000000000000c01b0a5e';
/** Contracts that come with a chain: the CREATE2 factory and EIP-2935's history. No transaction here uses them. */
const BUILT_IN = ['0x4e59b44847b379578588920ca78fbf26c0b4956c', '0x0000f90827f1c53a10cb7a02335b175320002935'];
const SHOWN = 5;

const { check, counts } = suite('differential');
const { seed } = options;
const [tandem, anvil] = [new Chain('tandem', options.tandem), new Chain('anvil', options.anvil, 'evm_mine')];
const both = (ask) => Promise.all([tandem, anvil].map(ask));
const accounts = Array.from(
  { length: ACCOUNTS },
  (_, index) => new Account(ethers.HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${index}`).privateKey),
);
const chainId = BigInt(await tandem.rpc('eth_chainId'));
/** What the oracle charged too much or too little, by sender. */
const corrections = new Map();

/** Fails with the first differences of a list. */
function none(differences, note) {
  if (differences.length)
    throw new Error(`${differences.length} differences: ${differences.slice(0, SHOWN).join('; ')}`);
  return note;
}

/** Sends the same bytes to both chains and gives both receipts of each, and what differs already. */
async function sendBoth(transactions) {
  const [mine, other] = await both((chain) =>
    chain.many(
      'eth_sendRawTransaction',
      transactions.map(({ raw }) => [raw]),
    ),
  );
  const differences = [];
  const accepted = transactions.filter((transaction, index) => {
    const [a, b] = [mine[index], other[index]];
    transaction.hash = a.result;
    if (a.result !== b.result)
      differences.push(`${transaction.name ?? 'transaction'}: tandem ${JSON.stringify(a)}, anvil ${JSON.stringify(b)}`);
    return a.result && b.result;
  });
  const [receipts, wanted] = await both((chain) => chain.receipts(accepted.map(({ hash }) => hash)));
  accepted.forEach((transaction, index) =>
    Object.assign(transaction, { receipt: receipts[index], wanted: wanted[index] }),
  );
  return { differences, accepted };
}

/** Everything that differs between the receipts of one transaction, or is wrong with Tandem's. */
function differencesOf({ name = '', hash, fields, expected = {}, receipt, wanted }) {
  const all = [...receiptDifferences(receipt, wanted), ...receiptFaults(receipt, fields)];
  const differences = expected.gasUsed === undefined ? all : all.filter((one) => !one.startsWith('gasUsed'));
  if (expected.gasUsed !== undefined && Number(receipt.gasUsed) !== expected.gasUsed) {
    differences.push(`gasUsed is ${Number(receipt.gasUsed)}, must be ${expected.gasUsed}`);
  }
  if (expected.status !== undefined && receipt.status !== expected.status)
    differences.push(`status is ${receipt.status}`);
  if (receipt.gasUsed !== wanted.gasUsed && expected.gasUsed !== undefined) {
    const difference = (BigInt(receipt.gasUsed) - BigInt(wanted.gasUsed)) * BigInt(receipt.effectiveGasPrice);
    corrections.set(receipt.from, (corrections.get(receipt.from) ?? 0n) + difference);
  }
  return differences.map((one) => `${name} ${hash}: ${one}`);
}

async function nonces(addresses) {
  const answers = await anvil.results(
    'eth_getTransactionCount',
    addresses.map((one) => [one, 'latest']),
  );
  return new Map(addresses.map((one, index) => [one, Number(answers[index])]));
}

const worlds = accounts.slice(0, WORLDS).map((account, index) => new World(index, seed, account, chainId));

await check('both chains start alike', async () => {
  await anvil.rpc('anvil_setCoinbase', [ORACLE_FEES]);
  for (const at of BUILT_IN) await anvil.rpc('anvil_setCode', [at, await tandem.rpc('eth_getCode', [at, 'latest'])]);
  for (const [method, params] of [
    ['eth_chainId', []],
    ...accounts.flatMap(({ address: one }) => [
      ['eth_getBalance', [one, 'latest']],
      ['eth_getTransactionCount', [one, 'latest']],
    ]),
  ]) {
    const [a, b] = await both((chain) => chain.rpc(method, params));
    if (a !== b) throw new Error(`${method} ${params[0]}: tandem ${a}, anvil ${b}`);
  }
  const limits = await both((chain) =>
    chain.rpc('eth_getBlockByNumber', ['latest', false]).then(({ gasLimit }) => gasLimit),
  );
  if (limits[0] !== limits[1]) throw new Error(`gas limits ${limits}`);
});

await check('accounts that worlds share exist before they start', async () => {
  // The oracle refunds an authorization as if every authority existed, so all of them do.
  const to = [
    ...worlds.flatMap(({ cosigners }) => cosigners.map((one) => one.address)),
    ...PRECOMPILE_ADDRESSES.map(address),
  ];
  const sender = accounts[FUNDER];
  const nonce = (await nonces([sender.address])).get(sender.address);
  const transactions = to.map((one, index) => {
    const fields = { type: 0, chainId, nonce: nonce + index, to: one, value: 1n, gas: 400_000, price: PRICE };
    return { fields, raw: sign(sender, fields) };
  });
  const { differences, accepted } = await sendBoth(transactions);
  return none([...differences, ...accepted.flatMap(differencesOf)]);
});

await check('chosen transactions: every rule at its edge', async () => {
  const sender = accounts[CASES];
  const nonce = (await nonces([sender.address])).get(sender.address);
  const all = cases(sender, nonce, chainId, seed).map((one) => ({
    ...one,
    raw: sign(sender, { chainId, price: PRICE, fee: PRICE, tip: PRICE, ...one.fields }),
  }));
  const differences = [];
  for (let from = 0; from < all.length;) {
    const last = all.findIndex(({ expected }, index) => index >= from && expected.last);
    const to = last < 0 ? all.length : last + 1;
    const sent = await sendBoth(all.slice(from, to));
    differences.push(...sent.differences, ...sent.accepted.flatMap(differencesOf));
    from = to;
  }
  return none(differences, `${all.length} transactions`);
});

for (let round = 1; round <= Number(options.rounds); round++) {
  await check(`random transactions, round ${round} of seed ${seed}`, async () => {
    const known = await nonces(
      worlds.flatMap(({ sender, cosigners }) => [sender, ...cosigners].map((one) => one.address)),
    );
    const transactions = worlds.flatMap((world) => world.round(Number(options.transactions), (one) => known.get(one)));
    const { differences, accepted } = await sendBoth(transactions);
    const blocks = new Set(accepted.map(({ receipt }) => receipt.blockNumber)).size;
    const failed = accepted.filter(({ receipt }) => receipt.status === '0x0').length;
    // A co-signer without money is refused by both, each in its own words.
    const refused = differences.filter((one) => !/insufficient funds.*insufficient funds/i.test(one));
    return none(
      [...refused, ...accepted.flatMap(differencesOf)],
      `${accepted.length} transactions, ${failed} failed, in ${blocks} blocks`,
    );
  });
}

await check('the state: balances, nonces, code and storage of every account', async () => {
  const [state, { miner }] = await Promise.all([dump(anvil), tandem.rpc('eth_getBlockByNumber', ['latest', false])]);
  for (const [one, amount] of corrections) {
    const key = Object.keys(state).find((key) => key.toLowerCase() === one);
    state[key].balance = BigInt(state[key].balance) - amount;
  }
  const ignored = new Set([ORACLE_FEES, miner, ...BUILT_IN]);
  const { differences, accounts: count, slots } = await stateDifferences(tandem, state, ignored);
  return none(differences, `${count} accounts, ${slots} slots`);
});

await check('calls and estimates: results, revert data, kinds of failure', async () => {
  const { differences, note } = await callDifferences(tandem, anvil, accounts, seed, Number(options.calls));
  return none(differences, note);
});

await check('refusals have the code and words of geth', async () => {
  const sender = accounts[REFUSED];
  const nonce = (await nonces([sender.address])).get(sender.address);
  const { gasLimit } = await tandem.rpc('eth_getBlockByNumber', ['latest', false]);
  const faults = [];
  const ask = async ([name, raw, wording]) => {
    const { result, error } = await tandem.ask('eth_sendRawTransaction', [raw]);
    const right = wording ? error?.code === -32000 && wording.test(error.message) : result !== undefined;
    if (!right) faults.push(`${name}: ${JSON.stringify(error ?? result)}`);
    return result;
  };
  const table = refusals(sender, nonce, chainId, BigInt(gasLimit));
  let hash;
  for (const one of table) hash = await ask(one);
  if (hash) await tandem.receipts([hash]);
  for (const one of afterwards(sender, nonce, chainId)) await ask(one);
  return none(faults, `${table.length} kinds`);
});

await check('a contract sees its block as the block is', async () =>
  none(await environmentFaults(tandem, accounts[OTHER], chainId)),
);

const chain = await allBlocks(tandem);

await check('blocks: links, gas, blooms, order of receipts and logs, base fees', async () =>
  none(blockFaults(chain), `${chain.length} blocks`),
);

await check('nonces and balances at every past height follow from the blocks', async () => {
  const addresses = [FUNDER, REFUSED, OTHER].map((index) => accounts[index].address);
  return none(await historyFaults(tandem, chain, addresses), `${chain.length * addresses.length} of each`);
});

await check('the fee recipient has all tips and nothing else', async () => {
  const { number, miner } = chain[chain.length - 1].block;
  const [before, after] = await Promise.all(['0x0', number].map((at) => tandem.rpc('eth_getBalance', [miner, at])));
  const [earned, wanted] = [BigInt(after) - BigInt(before), tips(chain)];
  if (earned !== wanted) throw new Error(`${miner} earned ${earned}, the tips are ${wanted}`);
});

await check('log filters find what going through all receipts finds', async () => {
  const count = 150;
  return none(await logFilterFaults(tandem, chain, seed, count), `${count} filters`);
});

console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed ? 1 : 0);
