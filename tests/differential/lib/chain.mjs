// Two chains side by side: sending, waiting, asking.

const BATCH_CALLS = 200;
const REQUEST_MS_MAX = 30_000;
const NUDGE_AFTER_MS = 1500;

/** One chain behind a JSON-RPC address. */
export class Chain {
  /** `nudge` is a method to call when receipts do not come: anvil at times forgets to mine what it has. */
  constructor(name, url, nudge) {
    Object.assign(this, { name, url, nudge });
  }

  async post(body) {
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_MS_MAX),
    });
    return JSON.parse(await response.text());
  }

  /** The whole answer, result or error. */
  ask(method, params = []) {
    return this.post({ jsonrpc: '2.0', id: 1, method, params });
  }

  async rpc(method, params = []) {
    const { result, error } = await this.ask(method, params);
    if (error) throw new Error(`${this.name} ${method}: ${error.code} ${error.message}`);
    return result;
  }

  /** Answers to many calls of one method, in order. */
  async many(method, paramLists, size = BATCH_CALLS) {
    const answers = [];
    for (let from = 0; from < paramLists.length; from += size) {
      const part = paramLists.slice(from, from + size);
      const batch = part.map((params, id) => ({ jsonrpc: '2.0', id, method, params }));
      const answer = await this.post(batch);
      if (!Array.isArray(answer)) throw new Error(`${this.name} ${method}: ${JSON.stringify(answer).slice(0, 300)}`);
      const byId = new Map(answer.map((one) => [one.id, one]));
      answers.push(...part.map((_, id) => byId.get(id)));
    }
    return answers;
  }

  async results(method, paramLists, size = BATCH_CALLS) {
    const answers = await this.many(method, paramLists, size);
    const failed = answers.find((answer) => !answer || answer.error);
    if (failed) throw new Error(`${this.name} ${method}: ${JSON.stringify(failed)}`);
    return answers.map((answer) => answer.result);
  }

  /** Receipts, as soon as all are there. */
  async receipts(hashes, timeoutMs = 50_000) {
    const deadline = Date.now() + timeoutMs;
    let nudgeAt = Date.now() + NUDGE_AFTER_MS;
    const found = new Map();
    for (;;) {
      const open = hashes.filter((hash) => !found.has(hash));
      if (open.length === 0) return hashes.map((hash) => found.get(hash));
      // The last ones first: where they are missing there is no need to ask for the others.
      const probe = await this.results('eth_getTransactionReceipt', [[open[open.length - 1]]]);
      if (probe[0]) {
        const receipts = await this.results(
          'eth_getTransactionReceipt',
          open.map((hash) => [hash]),
        );
        receipts.forEach((receipt, index) => receipt && found.set(open[index], receipt));
        if (receipts.every(Boolean)) continue;
      }
      if (Date.now() > deadline)
        throw new Error(`${this.name}: no receipt of ${open.length} transactions, as ${open[0]}`);
      if (this.nudge && Date.now() > nudgeAt) {
        await this.rpc(this.nudge);
        nudgeAt = Date.now() + NUDGE_AFTER_MS;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
