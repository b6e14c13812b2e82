// What the client suites know about the network under test: where it is, its accounts, and the compiled token.
import { readFileSync } from 'node:fs';
import { rpc as call } from '../../lib/checks.mjs';

export * from '../../lib/checks.mjs';

/** The mnemonic of the dev accounts, as the usual dev chains have it. */
export const MNEMONIC = 'test test test test test test test test test test test junk';

/** One funded dev account per suite, so that no suite disturbs another's nonces. */
export const ACCOUNT = { wire: 5, cast: 0, forge: 1, viem: 2, ethers: 3, web3py: 4 };

/** An address nobody owns: of this run and of one check, so that balances start at zero on any network. */
export const fresh = (salt) => `0xfee00000000000000000${process.env.RUN_ID}${salt.toString(16).padStart(8, '0')}`;

export const rpcUrl = process.env.RPC_URL;
export const wsUrl = rpcUrl.replace(/^http/, 'ws');
/** The endpoints of the network's other nodes; empty for a single node. */
export const otherUrls = (process.env.RPC_OTHERS ?? '').split(',').filter(Boolean);
export const workDir = process.env.SUITE_DIR;

export const artifact = () => {
  const json = JSON.parse(readFileSync(`${workDir}/contracts/out/Token.sol/Token.json`, 'utf8'));
  return { abi: json.abi, bytecode: json.bytecode.object };
};

/** A JSON-RPC call that must succeed, to the first node unless told otherwise. */
export const rpc = (method, params = [], url = rpcUrl) => call(method, params, url);

/** The address whose entry makes an access list strict (docs/lanes.md). */
export const STRICT_MARKER = '0x0000000000000000000000000000000000001001';
/** The marker's word that names a transaction's last height. */
export const validUntil = (height) => `0x02${BigInt(height).toString(16).padStart(62, '0')}`;
/** Whether the node is Tandem's: other chains have no strict transactions. */
export const isTandem = async () => /tandem/i.test(await rpc('web3_clientVersion'));
