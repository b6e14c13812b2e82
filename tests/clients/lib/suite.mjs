// What every JavaScript suite shares: named checks with a deadline, the dev accounts, and the artifact.
//
// A suite prints one line per check, `ok   <suite>: <check>` or `FAIL <suite>: <check>: <why>`. The runner counts
// those lines; a suite that ends without its closing `done` line counts as one more failure.
import { readFileSync } from 'node:fs';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

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

const CHECK_TIMEOUT_MS = 60_000;

/** A promise that rejects after `timeoutMs` unless `promise` settles first. */
export function within(timeoutMs, what, promise) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${timeoutMs} ms`)), timeoutMs);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}

export function equal(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what}: expected ${show(expected)}, got ${show(actual)}`);
}

/** Asks `probe` until it answers something truthy; for answers that another node reaches a moment later. */
export async function eventually(timeoutMs, what, probe) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await probe();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Runs `action`, which must fail, and returns its error. */
export async function failure(what, action) {
  let value;
  try {
    value = await action();
  } catch (error) {
    return error;
  }
  throw new Error(`${what}: was accepted (${show(value)})`);
}

/** A plain JSON-RPC call over HTTP: the whole answer, with the HTTP status. */
export async function post(url, body, headers = {}) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(CHECK_TIMEOUT_MS),
  });
  const text = await response.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

export async function rpc(method, params = [], url = rpcUrl) {
  const { json, text } = await post(url, { jsonrpc: '2.0', id: 1, method, params });
  if (!json || json.error || !('result' in json)) throw new Error(`${method}: ${text.slice(0, 300)}`);
  return json.result;
}

export const show = (value) =>
  typeof value === 'string' ? value : JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v));

/** Runs a command line tool; its output is one string, a bad exit code an error with what it said. */
export async function tool(path, args, options = {}) {
  const run = promisify(execFile);
  try {
    const { stdout, stderr } = await run(path, args, { timeout: CHECK_TIMEOUT_MS, maxBuffer: 1 << 26, ...options });
    return { stdout: stdout.trim(), stderr };
  } catch (error) {
    const said = `${error.stderr ?? ''}${error.stdout ?? ''}`.trim() || error.message;
    throw Object.assign(new Error(said), { said });
  }
}

/** Collects the checks of one suite and runs them in order. */
export function suite(name) {
  const check = async (title, action) => {
    const started = Date.now();
    try {
      const note = await within(CHECK_TIMEOUT_MS, 'the check', action());
      const detail = typeof note === 'string' ? `; ${note}` : '';
      console.log(`ok   ${name}: ${title} (${Date.now() - started} ms${detail})`);
    } catch (error) {
      const why = (error?.shortMessage ?? error?.message ?? String(error)).replace(/\s+/g, ' ').slice(0, 400);
      console.log(`FAIL ${name}: ${title}: ${why}`);
    }
  };
  // Sockets of a client library may keep the process alive: the suite ends when its checks have.
  const done = () => {
    console.log(`done ${name}`);
    process.exit(0);
  };
  return { check, done };
}
