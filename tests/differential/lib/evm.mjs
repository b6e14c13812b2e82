// An assembler, an RLP signer that can also sign wrongly, and a seeded random generator. The packages are those of the
// client suite.
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../clients/package.json', import.meta.url));
export const ethers = require('ethers');
export const { bls12_381: bls } = require('@noble/curves/bls12-381');
export const { p256 } = require('@noble/curves/p256');
export const { bn254 } = require('@noble/curves/bn254');

const { keccak256, encodeRlp, SigningKey, computeAddress, toBeHex, getCreateAddress } = ethers;

// ---- bytes

export const hex = (bytes) => Buffer.from(bytes).toString('hex');
export const strip = (text) => (text.startsWith('0x') ? text.slice(2) : text);
/** A number as `bytes` bytes, without 0x. */
export const word = (value, bytes = 32) =>
  BigInt.asUintN(bytes * 8, BigInt(value))
    .toString(16)
    .padStart(bytes * 2, '0');
export const address = (value) => `0x${word(value, 20)}`;
/** RLP's form of a number. */
const number = (value) => (BigInt(value) === 0n ? '0x' : toBeHex(BigInt(value)));

// ---- assembler

/** Instructions by the code of the first of each line. */
const TABLE = `
  00 STOP ADD MUL SUB DIV SDIV MOD SMOD ADDMOD MULMOD EXP SIGNEXTEND
  10 LT GT SLT SGT EQ ISZERO AND OR XOR NOT BYTE SHL SHR SAR CLZ
  20 KECCAK256
  30 ADDRESS BALANCE ORIGIN CALLER CALLVALUE CALLDATALOAD CALLDATASIZE CALLDATACOPY CODESIZE CODECOPY GASPRICE
  3b EXTCODESIZE EXTCODECOPY RETURNDATASIZE RETURNDATACOPY EXTCODEHASH
  40 BLOCKHASH COINBASE TIMESTAMP NUMBER PREVRANDAO GASLIMIT CHAINID SELFBALANCE BASEFEE BLOBHASH BLOBBASEFEE
  50 POP MLOAD MSTORE MSTORE8 SLOAD SSTORE JUMP JUMPI PC MSIZE GAS JUMPDEST TLOAD TSTORE MCOPY PUSH0
  80 DUP1 DUP2 DUP3 DUP4 DUP5 DUP6
  90 SWAP1 SWAP2
  a0 LOG0 LOG1 LOG2 LOG3 LOG4
  f0 CREATE CALL CALLCODE RETURN DELEGATECALL CREATE2
  fa STATICCALL
  fd REVERT INVALID SELFDESTRUCT`;
const CODES = new Map(
  TABLE.trim()
    .split('\n')
    .flatMap((line) => {
      const [first, ...names] = line.trim().split(' ');
      return names.map((name, index) => [name, (parseInt(first, 16) + index).toString(16).padStart(2, '0')]);
    }),
);

export const push = (value) => {
  const number = BigInt.asUintN(256, BigInt(value));
  if (number === 0n) return '5f';
  const digits = number.toString(16);
  const even = digits.length % 2 ? `0${digits}` : digits;
  return (0x5f + even.length / 2).toString(16).padStart(2, '0') + even;
};

/** Code without 0x, of numbers (pushed) and of text: names of instructions, numbers, `0x..` raw bytes. */
export const asm = (...parts) =>
  parts
    .flat(Infinity)
    .flatMap((part) => (typeof part === 'string' ? part.split(' ').filter(Boolean) : [part]))
    .map((part) => {
      if (typeof part !== 'string' || /^\d+$/.test(part)) return push(part);
      if (part.startsWith('0x')) return part.slice(2);
      if (!CODES.has(part)) throw new Error(`no instruction ${part}`);
      return CODES.get(part);
    })
    .join('');

/** Runs `body` only when the condition on the stack is not zero. `at` is the position of this piece in the code. */
export const when = (at, condition, body) => {
  const head = asm(condition, 'ISZERO');
  const end = at + head.length / 2 + 4 + body.length / 2;
  return `${head}61${word(end, 2)}57${body}5b`;
};

/** Copies bytes to memory at `offset`, 32 at a time. */
export const memory = (bytes, offset = 0) => {
  const text = strip(bytes);
  let code = '';
  for (let at = 0; at < text.length; at += 64) {
    code += `7f${text.slice(at, at + 64).padEnd(64, '0')}${push(offset + at / 2)}52`;
  }
  return code;
};

/** Creation code that runs `before` and deploys `runtime` as it is. */
export const deployer = (runtime, before = '') => {
  const text = strip(runtime);
  const length = word(text.length / 2, 2);
  const copy = (offset) => asm(`0x61${length} DUP1 0x61${word(offset, 2)} PUSH0 CODECOPY PUSH0 RETURN`);
  return `${before}${copy((before.length + copy(0).length) / 2)}${text}`;
};

// ---- keys and transactions

export class Account {
  constructor(privateKey) {
    this.key = new SigningKey(privateKey);
    this.address = computeAddress(this.key.publicKey).toLowerCase();
  }

  static derived(text) {
    return new Account(keccak256(ethers.toUtf8Bytes(text)));
  }

  create(nonce) {
    return getCreateAddress({ from: this.address, nonce }).toLowerCase();
  }
}

export const SECP_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const accessList = (list) => list.map(({ address, storageKeys }) => [address, storageKeys]);

/** Signs a hash; `faults` change the signature afterwards. */
function signature(account, hash, { highS = false, r, s, parity } = {}) {
  const signed = account.key.sign(hash);
  let [y, sValue] = [signed.yParity, BigInt(signed.s)];
  if (highS) [y, sValue] = [1 - y, SECP_ORDER - sValue];
  return { y: parity ?? y, r: r ?? BigInt(signed.r), s: s ?? sValue };
}

/** An EIP-7702 authorization. */
export function authorize(account, { chainId, address, nonce }, faults = {}) {
  const hash = keccak256(`0x05${strip(encodeRlp([number(chainId), address, number(nonce)]))}`);
  const { y, r, s } = signature(account, hash, faults);
  return [number(chainId), address, number(nonce), number(y), number(r), number(s)];
}

/** Signed bytes of a transaction; `type` 0, 1, 2 or 4. Every field is taken as given. */
export function sign(account, tx, faults = {}) {
  const { type, chainId, nonce, gas, to, value = 0n, data = '0x', price, fee, tip, list = [], auths = [] } = tx;
  const common = [number(gas), to ?? '0x', number(value), data];
  if (type === 0) {
    const fields = [number(nonce), number(price), ...common];
    const tail = chainId === null ? [] : [number(chainId), '0x', '0x'];
    const { y, r, s } = signature(account, keccak256(encodeRlp([...fields, ...tail])), faults);
    const v = faults.v ?? (chainId === null ? 27n + BigInt(y) : BigInt(chainId) * 2n + 35n + BigInt(y));
    return encodeRlp([...fields, number(v), number(r), number(s)]);
  }
  const fields = [number(chainId), number(nonce)];
  fields.push(...(type === 1 ? [number(price)] : [number(tip), number(fee)]), ...common, accessList(list));
  if (type === 4) fields.push(auths);
  if (type === 3) fields.push(number(1), [`0x01${'00'.repeat(31)}`]);
  const prefix = `0x${word(type, 1)}`;
  const { y, r, s } = signature(account, keccak256(prefix + strip(encodeRlp(fields))), faults);
  return prefix + strip(encodeRlp([...fields, number(y), number(r), number(s)]));
}

// ---- randomness

/** A seeded generator (splitmix64); equal seeds give equal sequences everywhere. */
export class Random {
  constructor(seed) {
    this.state = BigInt(keccak256(ethers.toUtf8Bytes(String(seed)))) & 0xffffffffffffffffn;
  }

  next() {
    this.state = BigInt.asUintN(64, this.state + 0x9e3779b97f4a7c15n);
    let z = this.state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  }

  below(limit) {
    return Number(this.next() % BigInt(limit));
  }

  chance(percent) {
    return this.below(100) < percent;
  }

  pick(items) {
    return items[this.below(items.length)];
  }

  bytes(length) {
    let text = '';
    while (text.length < length * 2) text += word(this.next(), 8);
    return text.slice(0, length * 2);
  }

  /** One of `[weight, make]`, made. */
  weighted(entries) {
    let at = this.below(entries.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, make] of entries) {
      at -= weight;
      if (at < 0) return make();
    }
    throw new Error('weights do not add up');
  }
}
