// A world is one sender with its contracts, co-signers and plain accounts. Worlds share nothing that any of them reads,
// so their transactions may be mined in any order between each other; inside a world the sender's nonces fix the order.
import { Account, address, authorize, Random, sign, SECP_ORDER, strip, word } from './evm.mjs';
import { PRECOMPILE_ADDRESSES } from './precompiles.mjs';
import { calldata, initcode } from './programs.mjs';

/** All pay the same price whatever the base fee: tip and fee cap are equal, so balances are equal on both chains. */
export const PRICE = 20_000_000_000n;
const GAS_CAP = 1 << 24;
const COSIGNERS = 4;
const CONTRACTS_MAX = 40;

export class World {
  constructor(index, seed, sender, chainId) {
    this.index = index;
    this.random = new Random(`${seed}/world ${index}`);
    this.sender = sender;
    this.chainId = chainId;
    // Only one world does what touches accounts that others might touch: arbitrary bytes, value for precompiles.
    this.wild = index === 0;
    this.cosigners = Array.from({ length: COSIGNERS }, (_, i) => Account.derived(`${seed}/cosigner ${index}.${i}`));
    this.plain = Array.from({ length: 3 }, (_, i) =>
      address(BigInt(Account.derived(`${seed}/plain ${index}.${i}`).address)),
    );
    this.contracts = [];
    this.next = 'transactions';
  }

  /** Addresses that programs use, as numbers. */
  targets() {
    const known = [
      ...this.contracts,
      ...this.contracts.slice(-8),
      ...this.plain,
      ...this.cosigners.map((one) => one.address),
    ];
    return [...known, this.sender.address].map(BigInt);
  }

  /** The next transactions, signed. `nonceOf` gives nonces as they are now. */
  round(count, nonceOf) {
    const { random: r } = this;
    const kind = this.next;
    this.next = r.weighted([
      [8, () => 'transactions'],
      [2, () => 'cosigner'],
      [1, () => 'self'],
    ]);
    this.nonces = new Map(this.cosigners.map((one) => [one.address, nonceOf(one.address)]));
    const nonce = nonceOf(this.sender.address);
    if (kind === 'self') {
      // The sender's own code may now change its nonce: nothing else of it may be on the way, and it is undone next.
      this.next = 'undo';
      return [this.setCode(nonce, [this.authorization(this.sender, nonce + 1)])];
    }
    if (kind === 'undo') {
      const undo = authorize(this.sender, { chainId: 0, address: address(0), nonce: nonce + 1 });
      return [this.signed({ type: 4, nonce, to: this.sender.address, gas: 200_000, auths: [undo] })];
    }
    if (kind === 'cosigner') {
      const account = r.pick(this.cosigners);
      const fund = this.signed({ nonce, to: account.address, value: 10n ** 18n, gas: 1_000_000 });
      this.next = 'cosigner sends';
      this.chosen = account;
      return [fund];
    }
    if (kind === 'cosigner sends') {
      const account = this.chosen;
      const call = { ...this.call(), nonce: nonceOf(account.address), value: BigInt(r.below(1000)), gas: 1_000_000 };
      return [this.signed(call, account)];
    }
    return Array.from({ length: count }, (_, i) => this.transaction(nonce + i));
  }

  transaction(nonce) {
    const { random: r } = this;
    const make = r.weighted([
      [4, () => 'create'],
      [this.contracts.length ? 12 : 0, () => 'call'],
      [2, () => 'transfer'],
      [2, () => 'setCode'],
    ]);
    switch (make) {
      case 'create': {
        const tx = this.create();
        this.contracts = [...this.contracts, this.sender.create(nonce)].slice(-CONTRACTS_MAX);
        return this.signed({ nonce, ...tx });
      }
      case 'call':
        return this.signed({ nonce, ...this.call() });
      case 'setCode':
        return this.setCode(nonce, this.authorizations());
      default:
        return this.signed({ nonce, ...this.transfer() });
    }
  }

  create() {
    const data = `0x${initcode(this.random, this)}`;
    return {
      to: null,
      data,
      gas: this.gas({ to: null, data }, 3_000_000),
      value: BigInt(this.random.pick([0, 0, 0, 7])),
    };
  }

  call() {
    const { random: r } = this;
    const tx = { to: r.pick([...this.contracts, ...this.cosigners.map((one) => one.address)]), data: calldata(r) };
    return {
      ...tx,
      value: BigInt(r.pick([0, 0, 0, 1, 1000])),
      gas: this.gas(tx, r.pick([60_000, 300_000, 1_000_000, 5_000_000])),
    };
  }

  transfer() {
    const { random: r } = this;
    const own = [
      ...this.plain,
      this.sender.address,
      ...this.contracts.slice(-3),
      ...this.cosigners.map((one) => one.address),
    ];
    const to = r.pick(this.wild ? [...own, ...PRECOMPILE_ADDRESSES.map(address), address(0)] : own);
    const data = r.chance(70) ? '0x' : calldata(r);
    return { to, data, value: BigInt(r.pick([0, 1, 1_000_000])), gas: this.gas({ to, data }, 100_000) };
  }

  setCode(nonce, auths) {
    const tx = { type: 4, ...this.call(), auths };
    return this.signed({ nonce, ...tx, gas: this.gas(tx, 1_000_000) });
  }

  /** A few authorizations, some of them not valid. */
  authorizations() {
    const { random: r } = this;
    return Array.from({ length: 1 + r.below(3) }, () => {
      const account = r.pick(this.cosigners);
      const nonce = this.nonces.get(account.address);
      const made = this.authorization(account, nonce);
      if (made.valid) this.nonces.set(account.address, nonce + 1);
      return made;
    });
  }

  authorization(account, nonce) {
    const { random: r } = this;
    const delegate = r.weighted([
      [8, () => (this.contracts.length ? r.pick(this.contracts) : address(0))],
      [2, () => address(0)],
      [1, () => address(r.pick(PRECOMPILE_ADDRESSES))],
      [1, () => account.address],
      [1, () => r.pick(this.cosigners).address],
      [1, () => r.pick(this.plain)],
    ]);
    const right = { chainId: r.pick([0n, this.chainId]), address: delegate, nonce };
    const [fields, faults] = r.weighted([
      [12, () => [right, {}]],
      [1, () => [{ ...right, chainId: r.pick([1n, this.chainId + 1n, 1n << 64n, (1n << 256n) - 1n]) }, {}]],
      [1, () => [{ ...right, nonce: r.pick([nonce + 1, nonce + 1000, (1n << 64n) - 1n, 0]) }, {}]],
      [1, () => [right, { highS: true }]],
      [1, () => [right, { parity: r.pick([2, 27, 255]) }]],
      [1, () => [right, { r: r.pick([0n, SECP_ORDER]) }]],
      [1, () => [right, { s: r.pick([0n, SECP_ORDER]) }]],
    ]);
    const made = authorize(account, fields, faults);
    made.valid = fields === right && Object.keys(faults).length === 0;
    return made;
  }

  /** A gas limit: enough, too little, exactly what it costs before it runs, or the most there may be. */
  gas(tx, usual) {
    const { random: r } = this;
    const least = intrinsicGas(tx);
    return r.weighted([
      [10, () => Math.max(usual, least)],
      [2, () => least + r.below(50_000)],
      [1, () => least],
      [1, () => least + r.below(500)],
      [1, () => GAS_CAP],
    ]);
  }

  signed(fields, account = this.sender) {
    const { random: r } = this;
    const type = fields.type ?? r.pick([0, 1, 2, 2]);
    const list = type === 0 || r.chance(60) ? [] : this.accessList();
    const extra = list.reduce((sum, { storageKeys }) => sum + 2400 + 1900 * storageKeys.length, 0);
    const gas = Math.min(GAS_CAP, fields.gas + extra);
    const prices = { price: PRICE, fee: PRICE, tip: PRICE };
    return {
      raw: sign(account, { chainId: this.chainId, ...prices, ...fields, type, list, gas }),
      fields: { type, ...fields, gas },
    };
  }

  accessList() {
    const { random: r } = this;
    return Array.from({ length: r.below(4) }, () => ({
      address: address(r.pick([...this.targets(), 1n, 0x100n])),
      storageKeys: Array.from({ length: r.below(3) }, () => `0x${word(r.below(8))}`),
    }));
  }
}

/** What a transaction costs before its first instruction (EIP-2028, 3860, 7623, 7702), access list apart. */
export function intrinsicGas({ to, data = '0x', auths = [] }) {
  const bytes = Buffer.from(strip(data), 'hex');
  const zeros = bytes.filter((byte) => byte === 0).length;
  const tokens = zeros + 4 * (bytes.length - zeros);
  const creation = to === null ? 32_000 + 2 * Math.ceil(bytes.length / 32) : 0;
  return Math.max(21_000 + 4 * tokens + creation + 25_000 * auths.length, 21_000 + 10 * tokens);
}
