// What must hold of the blocks themselves, whatever the oracle says.
import { asm, deployer, ethers, Random, sign } from './evm.mjs';
import { bloomOf } from './compare.mjs';
import { PRICE } from './world.mjs';

const { keccak256 } = ethers;
const LOG_BATCH = 5;
const hexOf = (value) => `0x${BigInt(value).toString(16)}`;

/** All blocks of the chain with their receipts, up to the latest one. */
export async function allBlocks(tandem) {
  const head = Number(await tandem.rpc('eth_blockNumber'));
  const numbers = Array.from({ length: head + 1 }, (_, number) => hexOf(number));
  const [blocks, receipts] = await Promise.all([
    tandem.results(
      'eth_getBlockByNumber',
      numbers.map((number) => [number, true]),
    ),
    tandem.results(
      'eth_getBlockReceipts',
      numbers.map((number) => [number]),
    ),
  ]);
  return blocks.map((block, index) => ({ block, receipts: receipts[index] }));
}

/** Faults of single blocks and of the links between them. */
export function blockFaults(chain) {
  const faults = [];
  const expect = (number, what, actual, wanted) => {
    if (actual !== wanted) faults.push(`block ${number}: ${what} is ${actual}, not ${wanted}`);
  };
  chain.forEach(({ block, receipts }, number) => {
    const gas = receipts.reduce((sum, { gasUsed }) => sum + BigInt(gasUsed), 0n);
    expect(number, 'number', Number(block.number), number);
    expect(number, 'gasUsed', BigInt(block.gasUsed), gas);
    expect(number, 'logsBloom', block.logsBloom, bloomOf(receipts.flatMap(({ logs }) => logs)));
    expect(number, 'receipts', receipts.length, block.transactions.length);
    receiptOrder(block, receipts, (what, actual, wanted) => expect(number, what, actual, wanted));
    if (number === 0) return;
    const parent = chain[number - 1].block;
    expect(number, 'parentHash', block.parentHash, parent.hash);
    expect(number, 'time goes back', Number(block.timestamp) >= Number(parent.timestamp), true);
    expect(number, 'baseFeePerGas', BigInt(block.baseFeePerGas), nextBaseFee(parent, number - 1));
  });
  return faults;
}

function receiptOrder(block, receipts, expect) {
  let [gas, logs] = [0n, 0];
  receipts.forEach((receipt, index) => {
    const tx = block.transactions[index];
    gas += BigInt(receipt.gasUsed);
    expect(`cumulativeGasUsed of ${index}`, BigInt(receipt.cumulativeGasUsed), gas);
    for (const [field, wanted] of [
      ['transactionHash', tx.hash],
      ['from', tx.from],
      ['to', tx.to],
      ['type', tx.type],
      ['transactionIndex', hexOf(index)],
      ['blockHash', block.hash],
      ['blockNumber', block.number],
    ]) {
      expect(`${field} of receipt ${index}`, receipt[field], wanted);
    }
    expect(`transactionIndex of transaction ${index}`, tx.transactionIndex, hexOf(index));
    expect(`price of ${index}`, BigInt(receipt.effectiveGasPrice), effectivePrice(tx, block));
    expect(`gasPrice of transaction ${index}`, tx.gasPrice, receipt.effectiveGasPrice);
    receipt.logs.forEach((log) => expect(`log in receipt ${index}`, Number(log.logIndex), logs++));
  });
}

export function effectivePrice(tx, block) {
  if (tx.maxFeePerGas === undefined) return BigInt(tx.gasPrice);
  const [fee, tip, base] = [tx.maxFeePerGas, tx.maxPriorityFeePerGas, block.baseFeePerGas].map(BigInt);
  return fee < base + tip ? fee : base + tip;
}

/** EIP-1559; the first block has the genesis' base fee. */
function nextBaseFee(parent, parentNumber) {
  const [base, used, target] = [BigInt(parent.baseFeePerGas), BigInt(parent.gasUsed), BigInt(parent.gasLimit) / 2n];
  if (parentNumber === 0 || used === target) return base;
  const delta = (base * (used > target ? used - target : target - used)) / target / 8n;
  return used > target ? base + (delta > 1n ? delta : 1n) : base - delta;
}

/** What the fee recipient must have earned: the tips, and nothing of the base fee. */
export const tips = (chain) =>
  chain
    .flatMap(({ block, receipts }) =>
      receipts.map((one) => (BigInt(one.effectiveGasPrice) - BigInt(block.baseFeePerGas)) * BigInt(one.gasUsed)),
    )
    .reduce((sum, one) => sum + one, 0n);

/** Nonces and balances at every height, of accounts that only send and never receive, from what they sent. */
export async function historyFaults(tandem, chain, addresses) {
  const faults = [];
  const at = (method, one) =>
    tandem.results(
      method,
      chain.map(({ block }) => [one, { blockHash: block.hash, requireCanonical: true }]),
    );
  for (const one of addresses) {
    const [nonces, balances] = await Promise.all(
      ['eth_getTransactionCount', 'eth_getBalance'].map((method) => at(method, one)),
    );
    let [nonce, balance] = [0n, BigInt(balances[0])];
    chain.forEach(({ block, receipts }, number) => {
      block.transactions.forEach((tx, index) => {
        if (tx.from !== one) return;
        const { gasUsed, effectiveGasPrice, status } = receipts[index];
        nonce += 1n;
        balance -= BigInt(gasUsed) * BigInt(effectiveGasPrice) + (status === '0x1' ? BigInt(tx.value) : 0n);
      });
      if (BigInt(nonces[number]) !== nonce)
        faults.push(`nonce of ${one} at ${number} is ${nonces[number]}, not ${nonce}`);
      if (BigInt(balances[number]) !== balance)
        faults.push(`balance of ${one} at ${number} is ${balances[number]}, not ${balance}`);
    });
  }
  return faults;
}

/** Code that logs the environment of its block, one word each. */
export const ENVIRONMENT = [
  'NUMBER',
  'TIMESTAMP',
  'PREVRANDAO',
  'COINBASE',
  'GASLIMIT',
  'BASEFEE',
  'CHAINID',
  'GASPRICE',
  'ORIGIN',
  'CALLER',
  'ADDRESS',
  'BLOBBASEFEE',
];
const ANCESTORS = [0, 1, 2, 3, 256, 257];
const environmentCode =
  ENVIRONMENT.map((name, index) => asm(name, index * 32, 'MSTORE')).join('') +
  ANCESTORS.map((back, index) =>
    asm(back, 'NUMBER', 'SUB', 'BLOCKHASH', (ENVIRONMENT.length + index) * 32, 'MSTORE'),
  ).join('') +
  asm((ENVIRONMENT.length + ANCESTORS.length) * 32, 0, 'LOG0', 'STOP');

/** Compares what a contract sees of its block with what the block says. */
export async function environmentFaults(tandem, account, chainId) {
  const nonce = Number(await tandem.rpc('eth_getTransactionCount', [account.address, 'latest']));
  const common = { type: 2, chainId, gas: 1_000_000, fee: PRICE, tip: 10n ** 9n };
  const at = account.create(nonce);
  const raws = [{ to: null, data: `0x${deployer(environmentCode)}` }, { to: at }].map((tx, index) =>
    sign(account, { ...common, ...tx, nonce: nonce + index }),
  );
  const [, receipt] = await tandem.receipts(
    await tandem.results(
      'eth_sendRawTransaction',
      raws.map((raw) => [raw]),
    ),
  );
  const block = await tandem.rpc('eth_getBlockByHash', [receipt.blockHash, false]);
  const seen = receipt.logs[0].data
    .slice(2)
    .match(/.{64}/g)
    .map((one) => BigInt(`0x${one}`));
  const wanted = [
    block.number,
    block.timestamp,
    block.mixHash,
    block.miner,
    block.gasLimit,
    block.baseFeePerGas,
    chainId,
    receipt.effectiveGasPrice,
    account.address,
    account.address,
    at,
    1,
  ].map(BigInt);
  const faults = ENVIRONMENT.flatMap((name, index) =>
    seen[index] === wanted[index] ? [] : [`${name} is ${seen[index]}, the block says ${wanted[index]}`],
  );
  for (const [index, back] of ANCESTORS.entries()) {
    const number = Number(block.number) - back;
    const visible = back >= 1 && back <= 256 && number >= 0;
    const hash = visible ? BigInt((await tandem.rpc('eth_getBlockByNumber', [hexOf(number), false])).hash) : 0n;
    if (seen[ENVIRONMENT.length + index] !== hash) faults.push(`BLOCKHASH of ${back} blocks ago`);
  }
  return faults;
}

/** Random log filters, answered by the node and by going through all receipts. */
export async function logFilterFaults(tandem, chain, seed, count) {
  const r = new Random(`${seed}/filters`);
  const all = chain.flatMap(({ receipts }) => receipts.flatMap(({ logs }) => logs));
  if (all.length < 10) return [`only ${all.length} logs to look for`];
  const head = chain.length - 1;
  const some = (make) => (r.chance(50) ? make() : Array.from({ length: r.below(3) }, make));
  const filters = Array.from({ length: count }, () => {
    const filter = {};
    if (r.chance(60)) filter.address = some(() => r.pick(all).address);
    if (r.chance(60)) {
      filter.topics = Array.from({ length: r.below(4) }, (_, position) =>
        r.chance(40) ? null : some(() => r.pick(all).topics[position] ?? keccak256('0x')),
      );
    }
    if (r.chance(30)) return { ...filter, blockHash: chain[Number(r.pick(all).blockNumber)].block.hash };
    const [from, to] = [r.below(head), r.below(head)].sort((a, b) => a - b);
    return { ...filter, fromBlock: hexOf(from), toBlock: r.chance(20) ? 'latest' : hexOf(to) };
  });
  // A node bounds the bytes of an answer, and a batch counts as one.
  const answers = await tandem.results('eth_getLogs', filters.map((filter) => [filter]), LOG_BATCH);
  return filters.flatMap((filter, index) => {
    // Blocks that came after the list was taken hold no logs: nobody sends any more.
    const wanted = JSON.stringify(all.filter((log) => matches(log, filter, head)));
    return JSON.stringify(answers[index]) === wanted
      ? []
      : [`eth_getLogs ${JSON.stringify(filter)}: ${answers[index].length} logs`];
  });
}

function matches(log, { address: addresses, topics = [], fromBlock, toBlock, blockHash }, head) {
  const isIn = (value, wanted) =>
    Array.isArray(wanted) ? wanted.length === 0 || wanted.includes(value) : wanted === value;
  const number = Number(log.blockNumber);
  const inRange = blockHash
    ? log.blockHash === blockHash
    : number >= Number(fromBlock) && number <= (toBlock === 'latest' ? head : Number(toBlock));
  return (
    inRange &&
    (addresses === undefined || isIn(log.address, addresses)) &&
    topics.length <= log.topics.length &&
    topics.every((wanted, position) => wanted === null || isIn(log.topics[position], wanted))
  );
}
