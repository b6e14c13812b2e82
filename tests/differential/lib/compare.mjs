// What must be equal on both chains.
import { gunzipSync } from 'node:zlib';
import { ethers, strip, word } from './evm.mjs';

const { keccak256, getCreateAddress } = ethers;

/** The differences between two receipts of one transaction. */
export function receiptDifferences(mine, other) {
  const differences = [];
  const compare = (what, a, b) => {
    const [left, right] = [JSON.stringify(a), JSON.stringify(b)];
    if (left !== right) differences.push(`${what}: tandem ${left?.slice(0, 300)}, anvil ${right?.slice(0, 300)}`);
  };
  for (const field of ['status', 'gasUsed', 'type', 'from', 'to', 'effectiveGasPrice', 'logsBloom']) {
    compare(field, mine[field], other[field]);
  }
  const part = ({ address, topics, data }) => ({ address, topics, data });
  compare('logs', mine.logs.map(part), other.logs.map(part));
  return differences;
}

/** What a receipt must fulfil by itself, given its transaction's sender and nonce. */
export function receiptFaults(receipt, { nonce }) {
  const faults = [];
  const first = receipt.logs.length ? Number(receipt.logs[0].logIndex) : 0;
  receipt.logs.forEach((log, index) => {
    if (Number(log.logIndex) !== first + index) faults.push(`log ${index} has logIndex ${log.logIndex} after ${first}`);
    for (const field of ['blockHash', 'blockNumber', 'transactionHash', 'transactionIndex']) {
      if (log[field] !== receipt[field]) faults.push(`log ${index}: ${field} ${log[field]} is not ${receipt[field]}`);
    }
  });
  if (receipt.logsBloom !== bloomOf(receipt.logs)) faults.push('logsBloom is not that of the logs');
  // As geth has it: a creation has an address also when it failed.
  const created = receipt.to === null ? getCreateAddress({ from: receipt.from, nonce }).toLowerCase() : null;
  if (receipt.contractAddress !== created) faults.push(`contractAddress ${receipt.contractAddress} is not ${created}`);
  return faults;
}

export function bloomOf(logs) {
  const bloom = Buffer.alloc(256);
  for (const item of logs.flatMap((log) => [log.address, ...log.topics])) {
    const hash = Buffer.from(strip(keccak256(item)), 'hex');
    for (const at of [0, 2, 4]) {
      const bit = hash.readUInt16BE(at) & 0x7ff;
      bloom[255 - (bit >> 3)] |= 1 << (bit & 7);
    }
  }
  return `0x${bloom.toString('hex')}`;
}

/** Everything the oracle's state holds: accounts with their storage. */
export async function dump(anvil) {
  const packed = Buffer.from(strip(await anvil.rpc('anvil_dumpState')), 'hex');
  return JSON.parse(gunzipSync(packed).toString()).accounts;
}

/** Differences of state over all accounts the oracle knows, but for those that legitimately differ. */
export async function stateDifferences(tandem, accounts, ignored) {
  const addresses = Object.keys(accounts).filter((one) => !ignored.has(one.toLowerCase()));
  const latest = (method) =>
    tandem.results(
      method,
      addresses.map((one) => [one, 'latest']),
    );
  const [balances, nonces, codes] = await Promise.all(
    ['eth_getBalance', 'eth_getTransactionCount', 'eth_getCode'].map(latest),
  );
  const differences = [];
  const compare = (what, mine, other) => {
    if (mine !== other)
      differences.push(`${what}: tandem ${String(mine).slice(0, 200)}, anvil ${String(other).slice(0, 200)}`);
  };
  const slots = [];
  addresses.forEach((one, index) => {
    const account = accounts[one];
    compare(`balance of ${one}`, BigInt(balances[index]), BigInt(account.balance));
    compare(`nonce of ${one}`, Number(nonces[index]), Number(account.nonce));
    compare(`code of ${one}`, codes[index], account.code);
    for (const slot of new Set([...Object.keys(account.storage), ...[0, 1, 2, 3, 4, 5].map((n) => `0x${word(n)}`)])) {
      slots.push([one, slot, account.storage[slot] ?? '0x0']);
    }
  });
  const values = await tandem.results(
    'eth_getStorageAt',
    slots.map(([one, slot]) => [one, slot, 'latest']),
  );
  slots.forEach(([one, slot, expected], index) => {
    compare(`slot ${slot} of ${one}`, BigInt(values[index]), BigInt(expected));
  });
  return { differences, accounts: addresses.length, slots: slots.length };
}
