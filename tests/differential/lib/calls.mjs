// Calls and estimates on the same state.
import { dump } from './compare.mjs';
import { Random, word } from './evm.mjs';
import { calldata, initcode } from './programs.mjs';

const CALL_GAS = 2_000_000;
/** What anvil names its own way, as geth names it. */
const HALTS = [
  [/OutOfGas|OOG|Out of gas/, 'out of gas'],
  [/InvalidFEOpcode/, 'invalid opcode: INVALID'],
  [/OpcodeNotFound|NotActivated/, 'invalid opcode'],
  [/StackUnderflow/, 'stack underflow'],
  [/StackOverflow/, 'stack limit reached'],
  [/InvalidJump/, 'invalid jump destination'],
  [/OutOfOffset/, 'return data out of bounds'],
  [/StartingWithEF/, 'must not begin with 0xef'],
  [/CreateContractSizeLimit/, 'max code size exceeded'],
  [/InitCodeSizeLimit/, 'max initcode size exceeded'],
  [/Collision/, 'contract address collision'],
  [/StateChangeDuringStaticCall/, 'write protection'],
  [/Insufficient funds/i, 'insufficient funds'],
];

/** The kind of an answer: success, revert with its data, or the words for a failure. */
function kind({ result, error }) {
  if (!error) return 'success';
  if (error.code === 3) return `revert ${error.data ?? '0x'}`;
  return HALTS.find(([pattern]) => pattern.test(error.message))?.[1] ?? error.message;
}

const alike = (mine, other) =>
  mine === other || (!mine.startsWith('revert') && other !== 'success' && mine.includes(other));

export async function callDifferences(tandem, anvil, accounts, seed, count) {
  const requests = await makeRequests(anvil, accounts, seed, count);
  const ask = (chain, method, change) =>
    chain.many(
      method,
      requests.map((request) => [{ ...request, ...change }, 'latest']),
    );
  const differences = [];
  const gas = `0x${CALL_GAS.toString(16)}`;
  const [mine, other] = await Promise.all([ask(tandem, 'eth_call', { gas }), ask(anvil, 'eth_call', { gas })]);
  requests.forEach((request, index) => {
    const [a, b] = [mine[index], other[index]];
    const wrongCode = a.error && ![3, -32000].includes(a.error.code);
    if (wrongCode || !alike(kind(a), kind(b)) || a.result !== b.result) {
      differences.push(
        `eth_call ${JSON.stringify(request).slice(0, 200)}: tandem ${JSON.stringify(a)}, anvil ${JSON.stringify(b)}`,
      );
    }
  });
  const estimates = await ask(tandem, 'eth_estimateGas', {});
  const found = requests
    .map((request, index) => ({ request, answer: estimates[index] }))
    .filter(({ answer }) => !answer.error);
  const tries = await tandem.many(
    'eth_call',
    found.map(({ request, answer }) => [{ ...request, gas: answer.result }, 'latest']),
  );
  tries.forEach((answer, index) => {
    if (answer.error) differences.push(`an estimate is too low: ${JSON.stringify(found[index]).slice(0, 300)}`);
  });
  return { differences, note: `${count} calls, ${found.length} estimates` };
}

async function makeRequests(anvil, accounts, seed, count) {
  const r = new Random(`${seed}/calls`);
  const state = await dump(anvil);
  const contracts = Object.keys(state).filter((one) => state[one].code !== '0x');
  // People with money, and a contract, which only in a call may be a sender.
  const callers = [...accounts.slice(0, 5).map((one) => one.address), contracts[0]];
  const world = { targets: () => contracts.map(BigInt) };
  return Array.from({ length: count }, () => {
    const request = { from: r.pick(callers) };
    if (r.chance(80)) Object.assign(request, { to: r.pick(contracts), input: calldata(r) });
    else request.input = `0x${initcode(r, world)}`;
    if (r.chance(20)) request.value = `0x${r.pick([0, 1, 1000]).toString(16)}`;
    if (r.chance(10)) request.accessList = [{ address: r.pick(contracts), storageKeys: [`0x${word(1)}`] }];
    return request;
  });
}
