// What the suites share: named checks with a deadline, and small helpers around processes and JSON-RPC.
//
// A suite prints one line per check, `ok   <suite>: <check>` or `FAIL <suite>: <check>: <why>`, and `done <suite>` at
// its end: a suite without that line ended too early.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

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

export async function rpc(method, params, url) {
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
  const counts = { passed: 0, failed: 0 };
  const check = async (title, action, timeoutMs = CHECK_TIMEOUT_MS) => {
    const started = Date.now();
    try {
      const note = await within(timeoutMs, 'the check', action());
      const detail = typeof note === 'string' ? `; ${note}` : '';
      console.log(`ok   ${name}: ${title} (${Date.now() - started} ms${detail})`);
      counts.passed++;
    } catch (error) {
      const why = (error?.shortMessage ?? error?.message ?? String(error)).replace(/\s+/g, ' ').slice(0, 400);
      console.log(`FAIL ${name}: ${title}: ${why}`);
      counts.failed++;
    }
  };
  // Sockets of a client library may keep the process alive: the suite ends when its checks have.
  const done = () => {
    console.log(`done ${name}`);
    process.exit(0);
  };
  return { check, done, counts };
}
