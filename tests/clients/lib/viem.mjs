// viem: public, wallet and WebSocket clients.
import {
  BaseError, ContractFunctionRevertedError, InsufficientFundsError, NonceTooLowError, createPublicClient, createWalletClient,
  defineChain, encodeFunctionData, http, parseEther, toHex, webSocket,
} from 'viem';
import { mnemonicToAccount } from 'viem/accounts';
import {
  ACCOUNT, MNEMONIC, STRICT_MARKER, artifact, assert, equal, failure, fresh, isTandem, rpc, rpcUrl, suite, validUntil, within, wsUrl,
} from './suite.mjs';

const { check, done } = suite('viem');
const { abi, bytecode } = artifact();
const account = mnemonicToAccount(MNEMONIC, { addressIndex: ACCOUNT.viem });
const chain = defineChain({
  id: Number(await rpc('eth_chainId')), name: 'local', nativeCurrency: { name: 'Coin', symbol: 'COIN', decimals: 18 },
  rpcUrls: { default: { http: [rpcUrl], webSocket: [wsUrl] } },
});
const reader = createPublicClient({ chain, transport: http(), pollingInterval: 100 });
const wallet = createWalletClient({ account, chain, transport: http() });
const receiver = fresh(300);
const state = {};

const readOnly = (address) => `0x01${address.slice(2).toLowerCase().padStart(62, '0')}`;

const mined = async (hash) => {
  const receipt = await reader.waitForTransactionReceipt({ hash, timeout: 30_000 });
  equal(receipt.status, 'success', 'status');
  return receipt;
};
const write = (functionName, args, extra = {}) =>
  wallet.writeContract({ address: state.address, abi, functionName, args, ...extra });
const read = (functionName, args = []) => reader.readContract({ address: state.address, abi, functionName, args });
const revertOf = (error) => {
  const revert = error instanceof BaseError && error.walk((cause) => cause instanceof ContractFunctionRevertedError);
  assert(revert, `no revert inside: ${error.message}`);
  return revert;
};

await check('deployContract and its receipt', async () => {
  const started = Date.now();
  const receipt = await mined(await wallet.deployContract({ abi, bytecode, args: ['Viem', 'VIM', parseEther('1000')] }));
  state.address = receipt.contractAddress;
  state.deployed = receipt;
  equal(await read('symbol'), 'VIM', 'symbol');
  return `sent to receipt ${Date.now() - started} ms`;
});

await check('simulateContract, writeContract, readContract', async () => {
  const args = [receiver, parseEther('2')];
  const { request, result } = await reader.simulateContract({ account, address: state.address, abi, functionName: 'transfer', args });
  equal(result, true, 'simulated result');
  const receipt = await mined(await wallet.writeContract(request));
  equal(await read('balanceOf', [receiver]), parseEther('2'), 'balance');
  state.transfer = receipt;
});

await check('getContractEvents reads the logs, decoded and filtered', async () => {
  const fromBlock = state.deployed.blockNumber;
  const all = await reader.getContractEvents({ address: state.address, abi, eventName: 'Transfer', fromBlock });
  equal(all.length, 2, 'events');
  const events = await reader.getContractEvents({
    address: state.address, abi, eventName: 'Transfer', args: { to: receiver }, fromBlock,
  });
  equal(events.length, 1, 'events to the receiver');
  equal(events[0].args.value, parseEther('2'), 'value');
  equal(events[0].transactionHash, state.transfer.transactionHash, 'transaction');
});

await check('a custom error arrives decoded with its numbers', async () => {
  const error = await failure('transfer', () => reader.simulateContract({
    account, address: state.address, abi, functionName: 'transfer', args: [receiver, parseEther('5000')],
  }));
  const { data } = revertOf(error);
  equal(data?.errorName, 'InsufficientBalance', 'error');
  equal(data.args[2], parseEther('5000'), 'needed');
});

await check('a reason string and a panic arrive decoded', async () => {
  const refused = await failure('transferFrom', () => reader.simulateContract({
    account, address: state.address, abi, functionName: 'transferFrom', args: [fresh(301), receiver, 1n],
  }));
  equal(revertOf(refused).reason, 'Token: allowance exceeded', 'reason');
  const panicked = await failure('share', () => read('share', [0n]));
  equal(revertOf(panicked).data?.args[0], 0x12n, 'panic code');
});

await check('writeContract of a reverting call is refused while gas is estimated', async () => {
  const error = await failure('transfer', () => write('transfer', [receiver, parseEther('5000')]));
  equal(revertOf(error).data?.errorName, 'InsufficientBalance', 'error');
});

await check('legacy, EIP-2930 and EIP-1559 transactions', async () => {
  for (const fields of [
    { type: 'legacy' }, { type: 'eip1559' },
    { type: 'eip2930', accessList: [{ address: state.address, storageKeys: [`0x${'00'.repeat(32)}`] }] },
  ]) {
    const hash = await wallet.sendTransaction({ to: receiver, value: 1n, ...fields });
    const receipt = await mined(hash);
    equal(receipt.type, fields.type, 'receipt type');
    const transaction = await reader.getTransaction({ hash });
    equal(transaction.type, fields.type, 'transaction type');
    equal(transaction.from.toLowerCase(), account.address.toLowerCase(), 'from');
  }
});

if (await isTandem()) {
  await check('strict: createAccessList, then a transaction that touches that and nothing else', async () => {
    const data = encodeFunctionData({ abi, functionName: 'transfer', args: [fresh(303), 1n] });
    const call = { from: account.address, to: state.address, data };
    const { accessList } = await reader.request({
      method: 'eth_createAccessList',
      params: [{ ...call, accessList: [{ address: STRICT_MARKER, storageKeys: [] }] }],
    });
    const { gasUsed } = await mined(await wallet.sendTransaction({ ...call, accessList }));
    const ordinary = await reader.createAccessList({ account, to: state.address, data });
    assert(ordinary.accessList.every(({ address }) => address !== STRICT_MARKER), 'a list without the marker stays ordinary');
    const token = accessList.filter(({ address }) => address === state.address.toLowerCase());
    const hash = await wallet.sendTransaction({
      ...call, gas: gasUsed + 10_000n, accessList: [...token, { address: STRICT_MARKER, storageKeys: [readOnly(state.address)] }],
    });
    const receipt = await reader.waitForTransactionReceipt({ hash, timeout: 30_000 });
    equal(receipt.status, 'reverted', 'status');
    const { tandemAbort } = await reader.request({ method: 'eth_getTransactionReceipt', params: [hash] });
    equal(tandemAbort.fault, 'readOnly', 'fault');
    assert(tandemAbort.reason.startsWith('strict access list: write to read-only slot'), tandemAbort.reason);
    const lanes = await reader.request({ method: 'tandem_lanes', params: [toHex(receipt.blockNumber)] });
    const hashes = lanes.lanes.flatMap(({ segments }) => segments.flatMap(({ transactions }) => transactions));
    assert(hashes.includes(hash), 'the transaction is in a lane');
  });

  await check('strict: a transaction past its last height is refused in words', async () => {
    const accessList = [{ address: STRICT_MARKER, storageKeys: [validUntil(await reader.getBlockNumber({ cacheTime: 0 }))] }];
    const late = await failure('send', () => wallet.sendTransaction({ to: receiver, value: 1n, gas: 100_000n, accessList }));
    assert(late.message.includes('transaction expired'), late.message);
  });
}

await check('EIP-7702: an account delegates to the token code', async () => {
  const delegating = mnemonicToAccount(MNEMONIC, { addressIndex: 8 });
  const authorization = await createWalletClient({ account: delegating, chain, transport: http() })
    .signAuthorization({ contractAddress: state.address });
  const receipt = await mined(await wallet.sendTransaction({ authorizationList: [authorization], to: receiver, value: 0n }));
  equal(receipt.type, 'eip7702', 'type');
  const code = await reader.getCode({ address: delegating.address });
  equal(code?.toLowerCase(), `0xef0100${state.address.slice(2)}`.toLowerCase(), 'code');
});

await check('several transactions in flight get following nonces', async () => {
  const nonce = await reader.getTransactionCount({ address: account.address, blockTag: 'pending' });
  const hashes = [];
  for (let i = 0; i < 5; i++) {
    hashes.push(await write('transfer', [fresh(310 + i), 1n], { nonce: nonce + i, gas: 100_000n }));
  }
  const receipts = await Promise.all(hashes.map(mined));
  assert(receipts.every((receipt) => receipt.logs.length === 1), 'logs');
});

await check('fees: estimateFeesPerGas, getFeeHistory, estimateGas', async () => {
  const fees = await reader.estimateFeesPerGas();
  assert(fees.maxFeePerGas >= fees.maxPriorityFeePerGas, 'fees');
  const history = await reader.getFeeHistory({ blockCount: 2, rewardPercentiles: [50] });
  equal(history.baseFeePerGas.length, history.gasUsedRatio.length + 1, 'base fees');
  equal(await reader.estimateGas({ account, to: fresh(302), value: 1n }), 21_000n, 'estimateGas');
});

await check('errors of the account: insufficient funds and a used nonce have their classes', async () => {
  const poor = await failure('a transfer of too much', () => wallet.sendTransaction({ to: receiver, value: 10n ** 30n }));
  assert(poor.walk((cause) => cause instanceof InsufficientFundsError), poor.message);
  const old = await failure('a used nonce', () => wallet.sendTransaction({ to: receiver, value: 1n, nonce: 0, gas: 21_000n }));
  assert(old.walk((cause) => cause instanceof NonceTooLowError), old.message);
});

await check('HTTP batches: calls of one tick travel in one request', async () => {
  let largest = 0;
  const transport = http(rpcUrl, {
    batch: { wait: 20 },
    onFetchRequest: async (request) => {
      const body = await request.clone().json();
      if (Array.isArray(body)) largest = Math.max(largest, body.length);
    },
  });
  const batched = createPublicClient({ chain, transport });
  const answers = await Promise.all([
    batched.getBlockNumber({ cacheTime: 0 }), batched.getBalance({ address: receiver }),
    batched.getTransactionCount({ address: account.address }), batched.getChainId(),
  ]);
  equal(answers[1], 3n, 'balance');
  assert(largest >= 3, `the largest batch had ${largest} calls`);
});

await check('past state: a token balance before the transfer', async () => {
  const at = (blockNumber) =>
    reader.readContract({ address: state.address, abi, functionName: 'balanceOf', args: [receiver], blockNumber });
  equal(await at(state.transfer.blockNumber - 1n), 0n, 'before');
  equal(await at(state.transfer.blockNumber), parseEther('2'), 'after');
});

await check('watchContractEvent over HTTP polls a filter', async () => {
  const seen = new Promise((resolve, reject) => {
    state.unwatch = reader.watchContractEvent({
      address: state.address, abi, eventName: 'Approval', onLogs: ([log]) => resolve(log), onError: reject,
    });
  });
  // The filter must stand before the event: viem makes it on its first poll.
  await new Promise((resolve) => setTimeout(resolve, 500));
  await mined(await write('approve', [fresh(320), 9n]));
  const log = await within(20_000, 'the event', seen).finally(() => state.unwatch());
  equal(log.args.value, 9n, 'value');
});

await check('WebSocket: watchBlocks brings heads and watchContractEvent logs', async () => {
  const live = createPublicClient({ chain, transport: webSocket(wsUrl) });
  const stop = [];
  const heads = new Promise((resolve, reject) => {
    const numbers = [];
    stop.push(live.watchBlocks({
      onBlock: (block) => { numbers.push(block.number); if (numbers.length === 2) resolve(numbers); }, onError: reject,
    }));
  });
  const logs = new Promise((resolve, reject) => {
    stop.push(live.watchContractEvent({
      address: state.address, abi, eventName: 'Transfer', args: { to: fresh(330) }, onLogs: ([log]) => resolve(log), onError: reject,
    }));
  });
  // A request on the same socket is answered after the subscriptions in front of it.
  await live.getChainId();
  await live.request({ method: 'eth_blockNumber' });
  const receipt = await mined(await write('transfer', [fresh(330), 4n]));
  await mined(await write('transfer', [fresh(331), 4n]));
  const log = await within(20_000, 'the log', logs);
  equal(log.blockHash, receipt.blockHash, 'blockHash');
  const numbers = await within(20_000, 'two heads', heads);
  assert(numbers[1] > numbers[0], `heads ${numbers}`);
  stop.forEach((end) => end());
});

await check('WebSocket: a wallet sends and waits on one socket', async () => {
  const transport = webSocket(wsUrl);
  const sender = createWalletClient({ account, chain, transport });
  const live = createPublicClient({ chain, transport, pollingInterval: 100 });
  const hash = await sender.sendTransaction({ to: receiver, value: 1n });
  equal((await live.waitForTransactionReceipt({ hash, timeout: 30_000 })).status, 'success', 'status');
});

done();
