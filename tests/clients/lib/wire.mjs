// The wire itself, without a client library: shapes, error codes and limits that every tool relies on.
import { Wallet, HDNodeWallet, Interface, AbiCoder } from 'ethers';
import {
  ACCOUNT, MNEMONIC, artifact, assert, equal, eventually, fresh, otherUrls, post, rpc, rpcUrl, suite,
} from './suite.mjs';

const { check, done } = suite('wire');
const { abi, bytecode } = artifact();
const token = new Interface(abi);
const wallet = new Wallet(HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${ACCOUNT.wire}`).privateKey);
const request = (method, params = [], id = 1) => ({ jsonrpc: '2.0', id, method, params });
const isQuantity = (value) => /^0x(0|[1-9a-f][0-9a-f]*)$/.test(value);
const state = {};

async function sign(fields) {
  const [nonce, chainId, price] = await Promise.all([
    rpc('eth_getTransactionCount', [wallet.address, 'pending']), rpc('eth_chainId'), rpc('eth_gasPrice'),
  ]);
  return wallet.signTransaction({
    type: 2, chainId: BigInt(chainId), nonce: Number(nonce), gasLimit: 2_000_000n,
    maxFeePerGas: BigInt(price) * 2n + 10n ** 9n, maxPriorityFeePerGas: 10n ** 9n, ...fields,
  });
}

const receiptOf = (hash, url = rpcUrl) =>
  eventually(30_000, `receipt of ${hash}`, () => rpc('eth_getTransactionReceipt', [hash], url));

await check('answers with the id of the request, also when it is a string or null', async () => {
  for (const id of [7, 'seven', null]) {
    const { json, status } = await post(rpcUrl, request('eth_chainId', [], id));
    equal(status, 200, 'HTTP status');
    equal(json.id, id, 'id');
    assert(isQuantity(json.result), `not a quantity: ${json.result}`);
  }
});

await check('net_version, web3_clientVersion, eth_syncing and eth_accounts answer in the usual shapes', async () => {
  equal(await rpc('net_version'), BigInt(await rpc('eth_chainId')).toString(), 'net_version');
  assert((await rpc('web3_clientVersion')).includes('/'), 'clientVersion has no name/version');
  equal(await rpc('eth_syncing'), false, 'eth_syncing');
  assert(Array.isArray(await rpc('eth_accounts')), 'eth_accounts is no array');
});

await check('an unknown method answers -32601 with HTTP status 200', async () => {
  for (const method of ['eth_fillTransaction2', 'hardhat_metadata2', 'nonsense']) {
    const { json, status } = await post(rpcUrl, request(method));
    equal(status, 200, 'HTTP status');
    equal(json.error?.code, -32601, `code for ${method}`);
  }
});

await check('wrong parameters answer -32602', async () => {
  for (const [method, params] of [
    ['eth_getBalance', ['0x12', 'latest']], ['eth_getBalance', []], ['eth_getTransactionReceipt', ['0x00']],
    ['eth_getBlockByNumber', ['newest', false]],
  ]) {
    const { json } = await post(rpcUrl, request(method, params));
    equal(json.error?.code, -32602, `code for ${method}(${JSON.stringify(params)})`);
  }
});

await check('an oversized body is refused and the next request is answered', async () => {
  const big = request('eth_call', [{ to: fresh(1), data: `0x${'00'.repeat(20 << 20)}` }, 'latest']);
  const answer = await post(rpcUrl, big).catch((error) => ({ closed: error.message }));
  assert(answer.closed || answer.status === 413 || answer.json?.error, `was accepted: ${answer.text?.slice(0, 100)}`);
  assert(isQuantity(await rpc('eth_blockNumber')), 'no answer afterwards');
  return answer.closed ? 'connection closed' : `HTTP ${answer.status}`;
});

await check('a batch is answered entry by entry, errors beside results', async () => {
  const { json } = await post(rpcUrl, [
    request('eth_chainId', [], 1), request('nonsense', [], 2), request('eth_getBalance', ['0x12', 'latest'], 3),
    request('eth_blockNumber', [], 4),
  ]);
  assert(Array.isArray(json), 'the answer is no array');
  const byId = new Map(json.map((entry) => [entry.id, entry]));
  equal(byId.size, 4, 'entries');
  assert(byId.get(1).result && byId.get(4).result, 'results are missing');
  equal(byId.get(2).error?.code, -32601, 'unknown method');
  equal(byId.get(3).error?.code, -32602, 'wrong parameters');
});

await check('browsers may call: CORS preflight and header', async () => {
  const origin = { origin: 'http://localhost:3000' };
  const preflight = await fetch(rpcUrl, {
    method: 'OPTIONS',
    headers: { ...origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type' },
  });
  assert(preflight.ok, `preflight answered ${preflight.status}`);
  assert(preflight.headers.get('access-control-allow-origin'), 'preflight allows no origin');
  assert(/content-type|\*/i.test(preflight.headers.get('access-control-allow-headers') ?? ''), 'no content-type');
  const { headers } = await post(rpcUrl, request('eth_chainId'), origin);
  assert(headers.get('access-control-allow-origin'), 'the answer allows no origin');
});

await check('deploy: the receipt is null while unknown, then complete', async () => {
  equal(await rpc('eth_getTransactionReceipt', [`0x${'11'.repeat(32)}`]), null, 'receipt of nothing');
  equal(await rpc('eth_getTransactionByHash', [`0x${'11'.repeat(32)}`]), null, 'transaction of nothing');
  const init = bytecode + AbiCoder.defaultAbiCoder().encode(['string', 'string', 'uint256'], ['Wire', 'WIR', 1000n]).slice(2);
  const hash = await rpc('eth_sendRawTransaction', [await sign({ data: init })]);
  const receipt = await receiptOf(hash);
  for (const field of ['blockNumber', 'gasUsed', 'cumulativeGasUsed', 'effectiveGasPrice', 'transactionIndex', 'type', 'status']) {
    assert(isQuantity(receipt[field]), `${field} is no quantity: ${receipt[field]}`);
  }
  equal(receipt.status, '0x1', 'status');
  equal(receipt.type, '0x2', 'type');
  equal(receipt.to, null, 'to');
  equal(receipt.from.toLowerCase(), wallet.address.toLowerCase(), 'from');
  equal(receipt.transactionHash, hash, 'transactionHash');
  equal(receipt.logsBloom.length, 514, 'logsBloom length');
  equal(receipt.logs.length, 1, 'logs');
  equal(receipt.logs[0].blockHash, receipt.blockHash, 'log blockHash');
  equal(receipt.logs[0].removed, false, 'log removed');
  state.receipt = receipt;
  state.address = receipt.contractAddress;
});

await check('the block lists the transaction, by number and by hash, with and without its body', async () => {
  const { receipt } = state;
  const [byNumber, byHash, bodies, receipts] = await Promise.all([
    rpc('eth_getBlockByNumber', [receipt.blockNumber, false]), rpc('eth_getBlockByHash', [receipt.blockHash, false]),
    rpc('eth_getBlockByNumber', [receipt.blockNumber, true]), rpc('eth_getBlockReceipts', [receipt.blockNumber]),
  ]);
  equal(byNumber.hash, receipt.blockHash, 'hash');
  equal(JSON.stringify(byHash), JSON.stringify(byNumber), 'block by hash');
  assert(byNumber.transactions.includes(receipt.transactionHash), 'not in the block');
  const body = bodies.transactions.find((tx) => tx.hash === receipt.transactionHash);
  equal(body.blockHash, receipt.blockHash, 'transaction blockHash');
  equal(body.type, '0x2', 'transaction type');
  for (const field of ['r', 's', 'v', 'nonce', 'gas', 'gasPrice', 'maxFeePerGas', 'maxPriorityFeePerGas', 'value', 'chainId']) {
    assert(isQuantity(body[field]), `transaction ${field} is no quantity: ${body[field]}`);
  }
  const mine = receipts.find((entry) => entry.transactionHash === receipt.transactionHash);
  equal(JSON.stringify(mine), JSON.stringify(receipt), 'receipt among the block receipts');
  for (const field of ['number', 'gasLimit', 'gasUsed', 'timestamp', 'baseFeePerGas', 'size', 'difficulty']) {
    assert(isQuantity(byNumber[field]), `block ${field} is no quantity: ${byNumber[field]}`);
  }
  const parent = await rpc('eth_getBlockByHash', [byNumber.parentHash, false]);
  equal(BigInt(parent.number) + 1n, BigInt(byNumber.number), 'number after the parent');
  equal(await rpc('eth_getBlockByNumber', ['0xffffffffff', false]), null, 'a block of the future');
});

await check('a revert answers code 3 with the revert bytes as data', async () => {
  const data = token.encodeFunctionData('transfer', [fresh(2), 5000n]);
  for (const method of ['eth_call', 'eth_estimateGas']) {
    const { json } = await post(rpcUrl, request(method, [{ from: wallet.address, to: state.address, data }, 'latest']));
    equal(json.error?.code, 3, `${method}: code`);
    assert(json.error.message.includes('revert'), `${method}: message "${json.error.message}"`);
    const error = token.parseError(json.error.data);
    equal(error?.name, 'InsufficientBalance', `${method}: error`);
    equal(error.args.needed, 5000n, `${method}: needed`);
  }
});

await check('a reason string stands in the message', async () => {
  const data = token.encodeFunctionData('transferFrom', [wallet.address, fresh(2), 1n]);
  const { json } = await post(rpcUrl, request('eth_call', [{ from: fresh(3), to: state.address, data }, 'latest']));
  equal(json.error?.code, 3, 'code');
  assert(json.error.message.includes('Token: allowance exceeded'), `message "${json.error.message}"`);
});

await check('a mined revert has status 0x0, no logs, and still costs gas', async () => {
  const data = token.encodeFunctionData('transfer', [fresh(2), 5000n]);
  const hash = await rpc('eth_sendRawTransaction', [await sign({ to: state.address, data, gasLimit: 100_000n })]);
  const receipt = await receiptOf(hash);
  equal(receipt.status, '0x0', 'status');
  equal(receipt.logs.length, 0, 'logs');
  assert(BigInt(receipt.gasUsed) > 21_000n, `gasUsed ${receipt.gasUsed}`);
});

await check('one transaction with several transfers: log indices count up and getLogs agrees', async () => {
  const receivers = [fresh(10), fresh(11), fresh(12)];
  const data = token.encodeFunctionData('transferMany', [receivers, 7n]);
  const hash = await rpc('eth_sendRawTransaction', [await sign({ to: state.address, data })]);
  const receipt = await receiptOf(hash);
  equal(receipt.status, '0x1', 'status');
  equal(receipt.logs.length, 3, 'logs');
  const indices = receipt.logs.map((log) => Number(log.logIndex));
  assert(indices[1] === indices[0] + 1 && indices[2] === indices[1] + 1, `log indices ${indices}`);
  const transfer = token.getEvent('Transfer').topicHash;
  const to = `0x${fresh(11).slice(2).padStart(64, '0')}`;
  const range = { fromBlock: receipt.blockNumber, toBlock: 'latest' };
  const all = await rpc('eth_getLogs', [{ address: state.address, ...range, topics: [transfer] }]);
  equal(JSON.stringify(all), JSON.stringify(receipt.logs), 'getLogs by range');
  const one = await rpc('eth_getLogs', [{ ...range, topics: [[transfer], null, [to, transfer]] }]);
  equal(one.length, 1, 'getLogs by receiver');
  const byHash = await rpc('eth_getLogs', [{ blockHash: receipt.blockHash, address: [state.address] }]);
  equal(byHash.length, 3, 'getLogs by block hash');
});

await check('state reads: code, storage, and a balance at an explicit past height', async () => {
  const before = BigInt(state.receipt.blockNumber) - 1n;
  const height = `0x${before.toString(16)}`;
  equal(await rpc('eth_getCode', [state.address, height]), '0x', 'code before the deployment');
  assert((await rpc('eth_getCode', [state.address, 'latest'])).length > 100, 'code');
  const slot = await rpc('eth_getStorageAt', [state.address, '0x2', 'latest']);
  equal(slot.length, 66, 'storage word length');
  equal(BigInt(slot), 1000n, 'totalSupply in slot 2');
  const [past, now] = await Promise.all([
    rpc('eth_getBalance', [wallet.address, height]), rpc('eth_getBalance', [wallet.address, 'latest']),
  ]);
  assert(BigInt(past) > BigInt(now), `balance before ${past}, after ${now}`);
  const byHash = await rpc('eth_getBalance', [wallet.address, { blockHash: state.receipt.blockHash }]);
  assert(BigInt(byHash) < BigInt(past), 'EIP-1898 object by block hash');
});

await check('refused transactions are told in the wording wallets know', async () => {
  const refused = async (raw, wording) => {
    const { json } = await post(rpcUrl, request('eth_sendRawTransaction', [raw]));
    assert(json.error, `accepted, but expected "${wording}"`);
    assert(json.error.message.toLowerCase().includes(wording), `"${json.error.message}" has no "${wording}"`);
  };
  await refused(await sign({ to: fresh(1), nonce: 0 }), 'nonce too low');
  await refused(await sign({ to: fresh(1), value: 10n ** 30n }), 'insufficient funds');
  await refused(await sign({ to: fresh(1), gasLimit: 20_000n }), 'intrinsic gas too low');
  const { json } = await post(rpcUrl, request('eth_sendRawTransaction', ['0x02c0']));
  assert(json.error, 'garbage was accepted');
});

await check('pool: a nonce gap waits, shows in txpool_status, and is mined once it is filled', async () => {
  const nonce = Number(await rpc('eth_getTransactionCount', [wallet.address, 'latest']));
  const later = await sign({ to: fresh(20), value: 1n, nonce: nonce + 1 });
  const laterHash = await rpc('eth_sendRawTransaction', [later]);
  const { json: again } = await post(rpcUrl, request('eth_sendRawTransaction', [later]));
  // Nodes differ here: "already known", or the hash again.
  assert(again.result === laterHash || /already/.test(again.error?.message), `a second time: ${JSON.stringify(again)}`);
  const status = await rpc('txpool_status');
  assert(BigInt(status.queued) >= 1n, `txpool_status ${JSON.stringify(status)}`);
  equal(await rpc('eth_getTransactionReceipt', [laterHash]), null, 'receipt of a waiting transaction');
  const waiting = await rpc('eth_getTransactionByHash', [laterHash]);
  equal(waiting?.blockHash, null, 'blockHash of a waiting transaction');
  const firstHash = await rpc('eth_sendRawTransaction', [await sign({ to: fresh(20), value: 2n, nonce })]);
  await receiptOf(firstHash);
  await receiptOf(laterHash);
  equal(BigInt(await rpc('eth_getBalance', [fresh(20), 'latest'])), 3n, 'balance');
});

await check('pool: a replacement needs a higher price and then wins', async () => {
  const nonce = Number(await rpc('eth_getTransactionCount', [wallet.address, 'latest'])) + 1;
  const price = BigInt(await rpc('eth_gasPrice')) * 2n + 2n * 10n ** 9n;
  const offer = (value, bump) => sign({
    to: fresh(21), value, nonce, maxFeePerGas: (price * bump) / 100n, maxPriorityFeePerGas: (10n ** 9n * bump) / 100n,
  });
  const first = await rpc('eth_sendRawTransaction', [await offer(1n, 100n)]);
  const { json } = await post(rpcUrl, request('eth_sendRawTransaction', [await offer(2n, 100n)]));
  assert(/underpriced/.test(json.error?.message), `at the same price: ${JSON.stringify(json)}`);
  const second = await rpc('eth_sendRawTransaction', [await offer(3n, 150n)]);
  await receiptOf(await rpc('eth_sendRawTransaction', [await sign({ to: fresh(22), nonce: nonce - 1 })]));
  await receiptOf(second);
  equal(await rpc('eth_getTransactionReceipt', [first]), null, 'receipt of the replaced transaction');
  equal(BigInt(await rpc('eth_getBalance', [fresh(21), 'latest'])), 3n, 'balance');
});

await check('filters: a block filter and a log filter report what is new, once; a removed one is unknown', async () => {
  const blocks = await rpc('eth_newBlockFilter');
  const logs = await rpc('eth_newFilter', [{ address: state.address, fromBlock: 'latest' }]);
  const data = token.encodeFunctionData('transfer', [fresh(30), 1n]);
  const receipt = await receiptOf(await rpc('eth_sendRawTransaction', [await sign({ to: state.address, data })]));
  const found = await eventually(10_000, 'the log', async () => {
    const changes = await rpc('eth_getFilterChanges', [logs]);
    return changes.find((log) => log.transactionHash === receipt.transactionHash);
  });
  equal(found.blockHash, receipt.blockHash, 'blockHash of the log');
  const hashes = await rpc('eth_getFilterChanges', [blocks]);
  assert(hashes.includes(receipt.blockHash), 'the block is missing');
  const again = await rpc('eth_getFilterChanges', [blocks]);
  assert(!again.includes(receipt.blockHash), 'the block came twice');
  equal(await rpc('eth_uninstallFilter', [blocks]), true, 'uninstall');
  equal(await rpc('eth_uninstallFilter', [blocks]), false, 'uninstall again');
  const { json } = await post(rpcUrl, request('eth_getFilterChanges', [blocks]));
  assert(json.error || json.result?.length === 0, 'a removed filter still reports');
  await rpc('eth_uninstallFilter', [logs]);
});

await check('fees: feeHistory has one base fee more than blocks, and rewards per percentile', async () => {
  const history = await rpc('eth_feeHistory', ['0x2', 'latest', [10, 90]]);
  equal(history.baseFeePerGas.length, history.gasUsedRatio.length + 1, 'base fees');
  equal(history.reward.length, history.gasUsedRatio.length, 'rewards');
  assert(history.reward.every((row) => row.length === 2 && row.every(isQuantity)), 'percentiles');
  assert(history.gasUsedRatio.every((ratio) => ratio >= 0 && ratio <= 1), 'gasUsedRatio');
  assert(isQuantity(await rpc('eth_gasPrice')) && isQuantity(await rpc('eth_maxPriorityFeePerGas')), 'prices');
});

// What Tandem promises beyond what every node does.
if ((await rpc('web3_clientVersion')).toLowerCase().startsWith('tandem')) {
  await check('a body that is not JSON answers -32700, a body that is no request -32600', async () => {
    equal((await post(rpcUrl, '{"jsonrpc":"2.0",')).json?.error?.code, -32700, 'half a body');
    equal((await post(rpcUrl, '{"jsonrpc":"2.0","id":1}')).json?.error?.code, -32600, 'no method');
  });

  await check('latest, safe and finalized are the same block: what has a receipt is final', async () => {
    const { json } = await post(rpcUrl, ['latest', 'safe', 'finalized'].map((tag, id) => request('eth_getBlockByNumber', [tag, false], id)));
    const heights = json.map((entry) => Number(entry.result.number));
    assert(Math.max(...heights) - Math.min(...heights) <= 1, `heights ${heights}`);
    const data = token.encodeFunctionData('transfer', [fresh(40), 1n]);
    const raw = await sign({ to: state.address, data });
    const sent = Date.now();
    const receipt = await receiptOf(await rpc('eth_sendRawTransaction', [raw]));
    const took = Date.now() - sent;
    const finalized = await rpc('eth_getBlockByNumber', ['finalized', false]);
    assert(BigInt(finalized.number) >= BigInt(receipt.blockNumber), `finalized ${finalized.number}`);
    return `final ${took} ms after it was sent`;
  });
}

for (const [index, url] of otherUrls.entries()) {
  await check(`node ${index + 1} tells the same block, receipt and balance`, async () => {
    const { receipt, address } = state;
    const theirs = await receiptOf(receipt.transactionHash, url);
    equal(JSON.stringify(theirs), JSON.stringify(receipt), 'receipt');
    const block = (from) => rpc('eth_getBlockByNumber', [receipt.blockNumber, true], from);
    equal(JSON.stringify(await block(url)), JSON.stringify(await block(rpcUrl)), 'block');
    const call = [{ to: address, data: token.encodeFunctionData('balanceOf', [fresh(11)]) }, 'latest'];
    await eventually(10_000, 'the balance', async () => BigInt(await rpc('eth_call', call, url)) === 7n);
  });
}

if (otherUrls.length > 0) {
  await check('a transaction sent to the last node is final on the first', async () => {
    const hash = await rpc('eth_sendRawTransaction', [await sign({ to: fresh(50), value: 5n })], otherUrls.at(-1));
    const receipt = await receiptOf(hash);
    equal(receipt.status, '0x1', 'status');
  });
}

done();
