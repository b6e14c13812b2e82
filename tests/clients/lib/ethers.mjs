// ethers 6: JSON-RPC over HTTP with its batches, and the WebSocket provider.
import { Contract, ContractFactory, HDNodeWallet, JsonRpcProvider, WebSocketProvider, isError, parseEther } from 'ethers';
import { ACCOUNT, MNEMONIC, artifact, assert, equal, failure, fresh, rpcUrl, suite, within, wsUrl } from './suite.mjs';

const { check, done } = suite('ethers');
const { abi, bytecode } = artifact();
const provider = new JsonRpcProvider(rpcUrl, undefined, { polling: true, pollingInterval: 100, cacheTimeout: -1 });
const wallet = HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${ACCOUNT.ethers}`).connect(provider);
const receiver = fresh(400);
const state = {};
const mined = async (sent) => {
  const receipt = await sent.wait(1, 30_000);
  equal(receipt.status, 1, 'status');
  return receipt;
};

await check('ContractFactory deploys', async () => {
  const token = await new ContractFactory(abi, bytecode, wallet).deploy('Ethers', 'ETH6', parseEther('1000'));
  state.deployed = await mined(token.deploymentTransaction());
  state.token = new Contract(await token.getAddress(), abi, wallet);
  equal(await state.token.name(), 'Ethers', 'name');
});

await check('transfer, receipt and its decoded log', async () => {
  const receipt = await mined(await state.token.transfer(receiver, 77n));
  equal(receipt.logs.length, 1, 'logs');
  equal(receipt.logs[0].args?.value, 77n, 'value in the log');
  equal(await state.token.balanceOf(receiver), 77n, 'balance');
  state.transfer = receipt;
});

await check('queryFilter reads the logs', async () => {
  const events = await state.token.queryFilter(state.token.filters.Transfer(null, receiver), state.deployed.blockNumber);
  equal(events.length, 1, 'events');
  equal(events[0].args.value, 77n, 'value');
  equal(events[0].blockHash, state.transfer.blockHash, 'blockHash');
});

await check('a custom error arrives decoded with its numbers', async () => {
  const error = await failure('transfer', () => state.token.transfer.staticCall(receiver, parseEther('5000')));
  assert(isError(error, 'CALL_EXCEPTION'), error.message);
  equal(error.revert?.name, 'InsufficientBalance', 'error');
  equal(error.revert.args[2], parseEther('5000'), 'needed');
});

await check('a reason string arrives, from a call and from estimating', async () => {
  const call = await failure('transferFrom', () => state.token.transferFrom.staticCall(fresh(401), receiver, 1n));
  equal(call.reason, 'Token: allowance exceeded', 'reason of the call');
  const sent = await failure('transferFrom', () => state.token.transferFrom(fresh(401), receiver, 1n));
  assert(isError(sent, 'CALL_EXCEPTION'), sent.message);
  equal(sent.reason, 'Token: allowance exceeded', 'reason of the estimate');
});

await check('a mined revert makes wait() fail with its receipt', async () => {
  const sent = await state.token.transfer(receiver, parseEther('5000'), { gasLimit: 100_000n });
  const error = await failure('wait', () => sent.wait(1, 30_000));
  assert(isError(error, 'CALL_EXCEPTION'), error.message);
  equal(error.receipt?.status, 0, 'status');
});

await check('refusals carry the codes of ethers', async () => {
  const poor = await failure('a transfer of too much', () => wallet.sendTransaction({ to: receiver, value: 10n ** 30n, gasLimit: 21_000n }));
  assert(isError(poor, 'INSUFFICIENT_FUNDS'), `${poor.code}: ${poor.message}`);
  const old = await failure('a used nonce', () => wallet.sendTransaction({ to: receiver, nonce: 0, gasLimit: 21_000n }));
  assert(isError(old, 'NONCE_EXPIRED'), `${old.code}: ${old.message}`);
});

await check('getFeeData and getBlock with transactions', async () => {
  const fees = await provider.getFeeData();
  assert(fees.gasPrice > 0n && fees.maxFeePerGas >= fees.maxPriorityFeePerGas, 'fee data');
  const block = await provider.getBlock(state.transfer.blockNumber, true);
  equal(block.hash, state.transfer.blockHash, 'hash');
  assert(block.prefetchedTransactions.some((tx) => tx.hash === state.transfer.hash), 'transaction');
});

await check('HTTP batches: calls of one tick travel in one request', async () => {
  let largest = 0;
  const watch = (event) => {
    if (event.action === 'sendRpcPayload' && Array.isArray(event.payload)) largest = Math.max(largest, event.payload.length);
  };
  await provider.on('debug', watch);
  const [balance, supply, , nonce] = await Promise.all([
    state.token.balanceOf(receiver), state.token.totalSupply(), provider.getBlockNumber(), wallet.getNonce(), provider.getBalance(receiver),
  ]);
  await provider.off('debug', watch);
  equal(balance, 77n, 'balance');
  equal(supply, parseEther('1000'), 'supply');
  assert(nonce > 0, 'nonce');
  assert(largest >= 3, `the largest batch had ${largest} calls`);
});

await check('contract.on over HTTP sees an event', async () => {
  const seen = new Promise((resolve) => state.token.on('Approval', (owner, spender, value) => resolve({ spender, value })));
  await provider.getBlockNumber();
  await mined(await state.token.approve(fresh(402), 12n));
  const { value } = await within(20_000, 'the event', seen).finally(() => state.token.removeAllListeners());
  equal(value, 12n, 'value');
});

await check('WebSocketProvider: block and log subscriptions, and sending', async () => {
  const live = new WebSocketProvider(wsUrl);
  await live.ready;
  const token = new Contract(state.token.target, abi, wallet.connect(live));
  const heads = new Promise((resolve) => {
    const numbers = [];
    live.on('block', (number) => { numbers.push(number); if (numbers.length === 2) resolve(numbers); });
  });
  const logs = new Promise((resolve) => {
    token.on(token.filters.Transfer(null, fresh(403)), (event) => resolve(event));
  });
  // Requests on one socket are answered in order: afterwards both subscriptions stand.
  await live.send('eth_blockNumber', []);
  await live.send('eth_blockNumber', []);
  const sent = await token.transfer(fresh(403), 5n);
  const receipt = await sent.wait(1, 30_000);
  await mined(await state.token.transfer(fresh(404), 5n));
  const event = await within(20_000, 'the log', logs);
  equal(event.args.value, 5n, 'value');
  equal(event.log.blockHash, receipt.blockHash, 'blockHash');
  const numbers = await within(20_000, 'two heads', heads);
  equal(numbers[1], numbers[0] + 1, 'the second head');
  await live.destroy();
});

done();
