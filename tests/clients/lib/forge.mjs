// forge: compiling, creating a contract, and a broadcast script of several transactions.
import { HDNodeWallet } from 'ethers';
import { readFile } from 'node:fs/promises';
import { ACCOUNT, MNEMONIC, assert, equal, failure, fresh, rpc, rpcUrl, suite, tool, workDir } from './suite.mjs';

const { check, done } = suite('forge');
const owner = HDNodeWallet.fromPhrase(MNEMONIC, undefined, `m/44'/60'/0'/0/${ACCOUNT.forge}`);
const compiler = ['--use', process.env.SOLC, '--offline'];
const remote = ['--rpc-url', rpcUrl, '--private-key', owner.privateKey];
const receiver = fresh(200);
const forge = (...args) => tool(process.env.FORGE, args, { cwd: `${workDir}/contracts` });
const balanceOf = async (address) =>
  BigInt(await rpc('eth_call', [{ to: address, data: `0x70a08231${receiver.slice(2).padStart(64, '0')}` }, 'latest']));

await check('build compiles the token with the wrapped compiler', async () => {
  await forge('build', ...compiler);
});

await check('create deploys the token', async () => {
  const { stdout } = await forge(
    'create', 'src/Token.sol:Token', ...remote, ...compiler, '--broadcast', '--json',
    '--constructor-args', 'Forged', 'FRG', '1000',
  );
  const { deployedTo, transactionHash } = JSON.parse(stdout);
  const receipt = await rpc('eth_getTransactionReceipt', [transactionHash]);
  equal(receipt?.status, '0x1', 'status');
  equal(receipt.contractAddress.toLowerCase(), deployedTo.toLowerCase(), 'address');
});

await check('script --broadcast deploys and transfers: four receipts, all successful', async () => {
  await forge(
    'script', 'script/Deploy.s.sol:Deploy', '--sig', 'run(address)', receiver, ...remote, ...compiler,
    '--broadcast', '--non-interactive',
  );
  const chain = Number(await rpc('eth_chainId'));
  const file = `${workDir}/contracts/broadcast/Deploy.s.sol/${chain}/run-latest.json`;
  const { receipts, transactions } = JSON.parse(await readFile(file, 'utf8'));
  equal(receipts.length, 4, 'receipts');
  assert(receipts.every((receipt) => BigInt(receipt.status) === 1n), 'a receipt is not successful');
  equal(await balanceOf(transactions[0].contractAddress), 6n * 10n ** 18n, 'balance');
});

await check('script --slow waits for each receipt', async () => {
  await forge(
    'script', 'script/Deploy.s.sol:Deploy', '--sig', 'run(address)', receiver, ...remote, ...compiler,
    '--broadcast', '--slow', '--non-interactive',
  );
});

await check('create shows the reason when the account cannot pay', async () => {
  const error = await failure('create', () => forge(
    'create', 'src/Token.sol:Token', '--rpc-url', rpcUrl, '--private-key', `0x${'42'.repeat(32)}`, ...compiler,
    '--broadcast', '--constructor-args', 'Poor', 'POR', '1',
  ));
  assert(/insufficient funds|gas required exceeds|lack of funds|out of fund/i.test(error.said), error.said);
});

done();
