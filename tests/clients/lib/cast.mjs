// cast: what a user types by hand.
import { HDNodeWallet } from 'ethers';
import {
  ACCOUNT, MNEMONIC, STRICT_MARKER, artifact, assert, equal, eventually, failure, fresh, isTandem, rpc, rpcUrl, suite, tool,
  validUntil, wsUrl,
} from './suite.mjs';

const { check, done } = suite('cast');
const owner = HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${ACCOUNT.cast}`);
const key = ['--private-key', owner.privateKey];
const receiver = fresh(100);
const state = {};

const cast = async (...args) => (await tool(process.env.CAST, args)).stdout;
const ask = (command, ...args) => cast(command, '--rpc-url', rpcUrl, ...args);
const send = async (...args) => JSON.parse(await ask('send', ...key, '--json', ...args));
const ether = 10n ** 18n;

await check('chain-id, client and block-number', async () => {
  assert(Number(await ask('chain-id')) > 0, 'chain id');
  assert((await ask('client')).includes('/'), 'client');
  assert(Number(await ask('block-number')) >= 0, 'block number');
});

await check('the mnemonic gives the usual first account, funded', async () => {
  const address = await cast('wallet', 'address', '--mnemonic', MNEMONIC, '--mnemonic-index', `${ACCOUNT.cast}`);
  equal(address, owner.address, 'address');
  assert(BigInt(await ask('balance', owner.address)) > 9_000n * ether, 'balance');
});

await check('send moves coins and the balance agrees to the wei', async () => {
  const before = BigInt(await ask('balance', receiver));
  const receipt = await send(receiver, '--value', '1.5ether');
  equal(receipt.status, '0x1', 'status');
  equal(BigInt(receipt.gasUsed), 21_000n, 'gasUsed');
  equal(BigInt(await ask('balance', receiver)) - before, (3n * ether) / 2n, 'received');
  state.transfer = receipt;
});

await check('send --legacy makes the oldest transaction type', async () => {
  const legacy = await send(receiver, '--value', '1', '--legacy');
  equal(legacy.type, '0x0', 'type of --legacy');
  const tx = JSON.parse(await ask('tx', legacy.transactionHash, '--json'));
  equal(BigInt(tx.value), 1n, 'value');
});

await check('send --create deploys the token', async () => {
  const { bytecode } = artifact();
  const receipt = await send('--create', bytecode, 'constructor(string,string,uint256)', 'Cast', 'CST', `${1000n * ether}`);
  equal(receipt.status, '0x1', 'status');
  state.address = receipt.contractAddress;
  assert((await ask('code', state.address)).length > 100, 'code');
  equal(await ask('call', state.address, 'name()(string)'), '"Cast"', 'name');
});

await check('send transfers tokens; call reads the balance', async () => {
  const receipt = await send(state.address, 'transfer(address,uint256)', receiver, `${5n * ether}`);
  equal(receipt.status, '0x1', 'status');
  const balance = await ask('call', state.address, 'balanceOf(address)(uint256)', receiver);
  equal(BigInt(balance.split(' ')[0]), 5n * ether, 'balance');
  state.tokens = receipt;
});

await check('receipt, tx and block tell the same story', async () => {
  const { transactionHash, blockNumber, blockHash } = state.tokens;
  const receipt = JSON.parse(await ask('receipt', transactionHash, '--json'));
  equal(receipt.blockHash, blockHash, 'blockHash');
  equal(receipt.logs.length, 1, 'logs');
  const block = JSON.parse(await ask('block', `${BigInt(blockNumber)}`, '--json'));
  equal(block.hash, blockHash, 'hash of the block');
  assert(block.transactions.includes(transactionHash), 'transaction in the block');
  equal(await ask('receipt', transactionHash, 'blockHash'), blockHash, 'one field');
});

await check('logs finds the transfer by its event signature and receiver', async () => {
  const from = ['--json', '--from-block', `${BigInt(state.tokens.blockNumber)}`, '--address', state.address];
  const found = JSON.parse(await ask('logs', ...from, 'Transfer(address indexed,address indexed,uint256)', '', receiver));
  equal(found.length, 1, 'logs');
  equal(found[0].transactionHash, state.tokens.transactionHash, 'transaction');
});

await check('call shows the reason string of a revert', async () => {
  const error = await failure('transferFrom', () => ask(
    'call', state.address, 'transferFrom(address,address,uint256)(bool)', owner.address, receiver, '1', '--from', fresh(101),
  ));
  assert(error.said.includes('Token: allowance exceeded'), error.said);
});

await check('estimate and call hand over the bytes of a custom error, which decode', async () => {
  for (const command of ['estimate', 'call']) {
    const error = await failure(command, () => ask(
      command, state.address, 'transfer(address,uint256)', receiver, `${5000n * ether}`, '--from', owner.address,
    ));
    const data = /data: "(0x[0-9a-f]+)"/.exec(error.said)?.[1];
    assert(data, `no revert bytes in: ${error.said}`);
    const decoded = await cast('decode-error', '--sig', 'InsufficientBalance(address,uint256,uint256)', data);
    assert(decoded.includes(owner.address), decoded);
  }
});

await check('fees: gas-price, base-fee and estimate', async () => {
  assert(BigInt(await ask('gas-price')) > 0n, 'gas price');
  assert(BigInt(await ask('base-fee')) >= 0n, 'base fee');
  equal(BigInt(await ask('estimate', fresh(102), '--value', '1', '--from', owner.address)), 21_000n, 'estimate');
});

await check('nonce counts the transactions; storage and past balances read', async () => {
  assert(Number(await ask('nonce', owner.address)) >= 4, 'nonce');
  equal(BigInt(await ask('storage', state.address, '2')), 1000n * ether, 'totalSupply');
  const earlier = BigInt(state.transfer.blockNumber) - 1n;
  const balance = BigInt(await ask('balance', receiver, '--block', `${earlier}`));
  assert(balance < BigInt(await ask('balance', receiver)), 'past balance');
});

await check('a reverting transaction sent with a gas limit is mined as failed', async () => {
  const hash = await ask(
    'send', ...key, '--async', '--gas-limit', '100000', state.address, 'transfer(address,uint256)', receiver, `${5000n * ether}`,
  );
  const receipt = await eventually(30_000, 'the receipt', () => rpc('eth_getTransactionReceipt', [hash]));
  equal(receipt.status, '0x0', 'status');
});

if (await isTandem()) {
  const transfer = ['transfer(address,uint256)', receiver, '1'];
  const listed = async (storageKeys) => JSON.parse(await ask('rpc', 'eth_createAccessList', JSON.stringify({
    from: owner.address, to: state.address, data: await cast('calldata', ...transfer),
    accessList: [{ address: STRICT_MARKER, storageKeys }],
  })));

  await check('strict: the list of eth_createAccessList makes a transfer succeed', async () => {
    const last = BigInt(await ask('block-number')) + 1000n;
    const { accessList, error } = await listed([validUntil(last)]);
    equal(error, undefined, 'error');
    const marker = accessList.find(({ address }) => BigInt(address) === BigInt(STRICT_MARKER));
    assert(marker?.storageKeys.includes(validUntil(last)), 'the last height is kept');
    equal(accessList.find(({ address }) => address === state.address.toLowerCase())?.storageKeys.length, 2, 'slots');
    const receipt = await send(state.address, ...transfer, '--access-list', JSON.stringify(accessList));
    equal(receipt.status, '0x1', 'status');
    state.strict = accessList;
  });

  await check('strict: without a slot the transfer is aborted, and the receipt says which', async () => {
    const without = state.strict.map((item) => ({ ...item, storageKeys: [...item.storageKeys] }));
    const missing = without.find(({ address }) => address === state.address.toLowerCase()).storageKeys.pop();
    const options = ['--access-list', JSON.stringify(without)];
    const refused = await failure('estimate', () => send(state.address, ...transfer, ...options));
    assert(refused.said.includes('access to undeclared slot'), refused.said);
    const hash = await ask('send', ...key, '--async', '--gas-limit', '100000', state.address, ...transfer, ...options);
    const receipt = await eventually(30_000, 'the receipt', () => rpc('eth_getTransactionReceipt', [hash]));
    equal(receipt.status, '0x0', 'status');
    equal(BigInt(receipt.gasUsed), 100_000n, 'gasUsed');
    equal(receipt.tandemAbort.fault, 'undeclared', 'fault');
    equal(receipt.tandemAbort.slot, missing, 'slot');
    const { accesses } = await rpc('tandem_accessSets', [hash]);
    assert(!accesses.some(({ slot }) => slot === missing), 'what was not declared was not read');
  });

  await check('strict: after its last height a transfer is refused', async () => {
    const marker = [{ address: STRICT_MARKER, storageKeys: [validUntil(await ask('block-number'))] }];
    const late = await failure('send', () => send(
      receiver, '--value', '1', '--gas-limit', '100000', '--access-list', JSON.stringify(marker),
    ));
    assert(late.said.includes('transaction expired: it is valid until height'), late.said);
  });
}

await check('speaks over the WebSocket too', async () => {
  equal(await cast('chain-id', '--rpc-url', wsUrl), await ask('chain-id'), 'chain id');
});

done();
