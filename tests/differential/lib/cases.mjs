// Transactions chosen by hand: the edges of each rule, with names. All are sent by one account, in this order, so that
// many of them share a block. `gasUsed` is given where the oracle is known to be wrong; `status` where it must be so.
import { Account, address, asm, authorize, deployer, memory, Random, strip, word } from './evm.mjs';
import { PRECOMPILE_ADDRESSES, PRECOMPILE_COUNT, precompileInputs } from './precompiles.mjs';
import { intrinsicGas } from './world.mjs';

const CODE_MAX = 24_576;
const INITCODE_MAX = 49_152;
const GAS_CAP = 1 << 24;

/** CREATE2 with the salt in calldata's first word and the creation code behind it; leaves the address. */
const CREATE2 =
  '32 CALLDATASIZE SUB 32 PUSH0 CALLDATACOPY PUSH0 CALLDATALOAD 32 CALLDATASIZE SUB PUSH0 CALLVALUE CREATE2';
/** Creates, stores the address and returns it. */
const FACTORY = asm(CREATE2, 'DUP1 PUSH0 SSTORE PUSH0 MSTORE 32 PUSH0 RETURN');
/** Creates and calls what it created in the same transaction. */
const CREATE_AND_CALL = asm(CREATE2, '0 0 0 0 0 DUP6 GAS CALL STOP');

/** Does with its caller's storage what calldata says: word 0 is the slot, word 1 the value. */
const SETTER = asm('32 CALLDATALOAD PUSH0 CALLDATALOAD SSTORE STOP');
const call = (kind, to, { value = 0, gas = 'GAS', input = [0, 0], output = [0, 0] } = {}) => {
  const amount = ['CALL', 'CALLCODE'].includes(kind) ? [value] : [];
  return asm(output[1], output[0], input[1], input[0], ...amount, to, gas, kind);
};

class Builder {
  constructor(sender, nonce, chainId, seed) {
    Object.assign(this, { sender, nonce, chainId, list: [], random: new Random(`${seed}/cases`), seed });
  }

  /** Adds a transaction; returns the address it creates, if it does. */
  add(name, tx, expected = {}) {
    const nonce = this.nonce++;
    this.list.push({ name, expected, fields: { type: 2, gas: 2_000_000, ...tx, nonce } });
    return this.sender.create(nonce);
  }

  deploy(name, runtime, tx = {}) {
    return this.add(
      `deploy ${name}`,
      { to: null, data: `0x${deployer(runtime)}`, gas: 8_000_000, ...tx },
      { status: '0x1' },
    );
  }

  fresh(name) {
    return Account.derived(`${this.seed}/case ${name}`);
  }
}

export function cases(sender, nonce, chainId, seed) {
  const b = new Builder(sender, nonce, chainId, seed);
  transfers(b);
  creations(b);
  create2(b);
  selfdestructs(b);
  storage(b);
  calls(b);
  logs(b);
  calldataFloor(b);
  setCode(b);
  precompiles(b);
  return b.list;
}

function transfers(b) {
  const existing = b.fresh('existing').address;
  b.add('transfer to a new account', { to: existing, value: 5n, gas: 21_000 }, { status: '0x1' });
  b.add('transfer to an existing account', { to: existing, value: 5n, gas: 21_000 }, { status: '0x1' });
  b.add('transfer of nothing to nobody creates no account', { to: b.fresh('nobody').address, gas: 21_000 });
  b.add('transfer to itself', { to: b.sender.address, value: 10n ** 18n, gas: 21_000 });
  b.add('transfer to the zero address', { to: address(0), value: 3n, gas: 21_000 });
  for (const at of PRECOMPILE_ADDRESSES) {
    b.add(`transfer to precompile ${at}`, { to: address(at), value: 1n, gas: 400_000 });
    b.add(`transfer of nothing to precompile ${at}`, { to: address(at), gas: 400_000 });
  }
  for (const type of [1, 2]) {
    const list = [
      { address: existing, storageKeys: [0, 0, 1].map((key) => `0x${word(key)}`) },
      { address: existing, storageKeys: [] },
      { address: address(1), storageKeys: [] },
      { address: b.sender.address, storageKeys: [`0x${word(0)}`] },
    ];
    b.add(`type ${type} with an access list that names things twice`, { type, list, to: existing, gas: 100_000 });
  }
  b.add('legacy transaction', { type: 0, to: existing, value: 1n, gas: 21_000 });
  b.add('gas limit at the cap of a transaction', { to: existing, gas: GAS_CAP });
}

function creations(b) {
  const create = (name, code, tx = {}) => {
    const data = `0x${code}`;
    const gas = Math.max(1_000_000, intrinsicGas({ to: null, data }) + 6_000_000);
    return b.add(`create: ${name}`, { to: null, data, gas, ...tx });
  };
  create('no code at all', '');
  create('no code at all, with value', '', { value: 9n });
  create('returns nothing', asm('STOP'));
  create('reverts without data', asm('PUSH0 PUSH0 REVERT'));
  create('reverts with data', asm('7 PUSH0 MSTORE 32 PUSH0 REVERT'), { value: 1n });
  create('stores, then reverts', asm('1 1 SSTORE PUSH0 PUSH0 REVERT'));
  create('invalid instruction', asm('INVALID'));
  create('runs out of gas', `5b${asm('PUSH0 JUMP')}`, { gas: 200_000 });
  create('code as long as allowed', asm(CODE_MAX, 'PUSH0', 'RETURN'));
  create('code one byte too long', asm(CODE_MAX + 1, 'PUSH0', 'RETURN'));
  create('cannot pay for its code', asm('5000 PUSH0 RETURN'), { gas: 200_000 });
  create('code begins with 0xef', memory('ef') + asm('1 0 RETURN'));
  create('code begins with 0xfe', memory('fe') + asm('1 0 RETURN'));
  create('creation code as long as allowed', '00'.repeat(INITCODE_MAX));
  create('just the gas it costs before it runs', '00', { gas: intrinsicGas({ to: null, data: '0x00' }) });
  create('destroys itself', asm('ADDRESS SELFDESTRUCT'), { value: 77n });
  create('destroys itself in favour of the sender', asm('CALLER SELFDESTRUCT'), { value: 77n });
  create('destroys itself after it stored', asm('1 1 SSTORE CALLER SELFDESTRUCT'));
  create('creates itself an heir', asm('0 0 0 CREATE PUSH0 SSTORE 1 PUSH0 RETURN'));
  create(
    'CREATE with creation code too long',
    asm(INITCODE_MAX + 1, 0, 0, 'CREATE', 'PUSH0', 'SSTORE', 1, 'PUSH0', 'RETURN'),
  );
  create('CREATE with more value than there is', asm('0 0 5 CREATE 1 ADD PUSH0 SSTORE'));
}

function create2(b) {
  const factory = b.deploy('factory', FACTORY);
  const make = (name, salt, init, tx = {}) =>
    b.add(`create2: ${name}`, { to: factory, data: `0x${word(salt)}${init}`, ...tx });
  make('first', 1, deployer(SETTER));
  make('same salt and code again', 1, deployer(SETTER));
  make('same again with little gas', 1, deployer(SETTER), { gas: 80_000 });
  make('other salt', 2, deployer(SETTER));
  make('child that reverts', 3, asm('PUSH0 PUSH0 REVERT'));
  make('same salt after a revert', 3, asm('PUSH0 PUSH0 REVERT'));
  make('child that destroys itself', 4, asm('CALLER SELFDESTRUCT'), { value: 5n });
  make('same salt after a destruction in the same transaction', 4, asm('CALLER SELFDESTRUCT'), { value: 6n });
  // A child that stores and dies when called: created, destroyed, created again, in transactions of one block.
  const phoenix = deployer(asm('PUSH0 SLOAD 1 ADD PUSH0 SSTORE CALLER SELFDESTRUCT'));
  const both = b.add('deploy a factory that calls its child', { to: null, data: `0x${deployer(CREATE_AND_CALL)}` });
  for (let turn = 1; turn <= 3; turn++) {
    b.add(`create2: created and destroyed in one transaction, turn ${turn}`, {
      to: both,
      data: `0x${word(9)}${phoenix}`,
      value: BigInt(turn),
    });
  }
  make('the phoenix by another factory stays', 9, phoenix, { value: 3n });
  make('and collides', 9, phoenix, { value: 3n });
}

function selfdestructs(b) {
  const heir = b.fresh('heir').address;
  const bomb = b.deploy('bomb', asm(5, 5, 'SSTORE', BigInt(heir), 'SELFDESTRUCT'), { value: 0n });
  b.add('fund the bomb', { to: bomb, value: 50n });
  b.add('destroyed in a later transaction: balance goes, code and storage stay', { to: bomb });
  b.add('and still runs', { to: bomb, value: 4n });
  const own = b.deploy('bomb for itself', asm('ADDRESS SELFDESTRUCT'));
  b.add('destroyed in favour of itself in a later transaction: nothing burns', { to: own, value: 8n });
  const reader = b.deploy(
    'size of its child after the child is destroyed',
    memory(asm('CALLER SELFDESTRUCT')) +
      asm('2 0 CALLVALUE CREATE DUP1 EXTCODESIZE PUSH0 SSTORE DUP1 EXTCODEHASH 1 SSTORE BALANCE 2 SSTORE'),
  );
  b.add('codes and balances after a destruction inside the transaction', { to: reader, value: 12n });
  b.add('again', { to: reader, value: 13n });
}

function storage(b) {
  const setter = b.deploy('setter', SETTER);
  const set = (slot, value, tx = {}) =>
    b.add(`store ${value} in slot ${slot}`, { to: setter, data: `0x${word(slot)}${word(value)}`, gas: 100_000, ...tx });
  for (const value of [1, 1, 2, 0, 0, 3, 0]) set(7, value);
  set(8, 1, { type: 1, list: [{ address: setter, storageKeys: [`0x${word(8)}`] }] });
  // All of EIP-2200's and EIP-3529's transitions, original value 0 and 1, in one transaction each.
  const sequences = [
    [0, 1],
    [0, 0],
    [0, 1, 0],
    [0, 1, 2],
    [0, 1, 0, 1],
    [1, 0],
    [1, 2],
    [1, 2, 0],
    [1, 2, 1],
    [1, 0, 1],
    [1, 0, 2, 1],
  ];
  sequences.forEach(([original, ...values], index) => {
    const init = asm(original, 'PUSH0 SSTORE');
    const runtime = asm(...values.flatMap((value) => [value, 'PUSH0 SSTORE']), 'STOP');
    const code = deployer(runtime, init);
    const at = b.add(`slot that is ${original}`, { to: null, data: `0x${code}` }, { status: '0x1' });
    b.add(`storage transitions ${index}: ${[original, ...values].join(' to ')}`, { to: at, gas: 200_000 });
  });
  const clearer = asm(...Array.from({ length: 30 }, (_, slot) => ['CALLVALUE', slot, 'SSTORE']).flat(), 'STOP');
  const many = b.deploy('thirty slots', clearer);
  b.add('set thirty slots', { to: many, value: 1n });
  b.add('clear thirty slots: the refund is capped', { to: many });
  b.add('a store with the stipend left fails', {
    to: setter,
    data: `0x${word(9)}${word(1)}`,
    gas: 21_000 + 700 + 2300,
  });
  const transient = b.deploy('transient', asm('PUSH0 TLOAD DUP1 PUSH0 SSTORE 1 ADD PUSH0 TSTORE STOP'));
  for (let i = 0; i < 2; i++) b.add('transient storage starts empty in each transaction', { to: transient });
}

function calls(b) {
  const setter = BigInt(b.deploy('library', SETTER));
  const prepare = memory(word(3) + word(42));
  for (const kind of ['CALL', 'CALLCODE', 'DELEGATECALL', 'STATICCALL']) {
    const at = b.deploy(
      `${kind} of a library`,
      prepare + call(kind, setter, { input: [0, 64] }) + asm('PUSH0 SSTORE STOP'),
    );
    b.add(`${kind}: whose storage it writes`, { to: at });
    b.add(`${kind}: the same with value`, { to: at, value: 1n });
  }
  const deep = b.deploy('calls itself', asm('PUSH0 SLOAD 1 ADD PUSH0 SSTORE') + call('CALL', 'ADDRESS') + asm('STOP'));
  b.add('calls itself until gas or depth end', { to: deep, gas: GAS_CAP });
  const echo = b.deploy('echo', asm('CALLDATASIZE PUSH0 PUSH0 CALLDATACOPY CALLDATASIZE PUSH0 REVERT'));
  b.add('revert with data', { to: echo, data: `0x${b.random.bytes(100)}` });
  b.add('revert with much data', { to: echo, data: `0x${b.random.bytes(5000)}` });
  const bounds = b.deploy(
    'return data out of bounds',
    call('CALL', BigInt(echo), { input: [0, 4] }) + asm('POP 5 0 0 RETURNDATACOPY STOP'),
  );
  b.add('reads beyond the return data', { to: bounds });
  const poor = b.deploy(
    'sends what it has not',
    call('CALL', BigInt(echo), { value: 10n ** 30n }) + asm('PUSH0 SSTORE STOP'),
  );
  b.add('a call with more value than there is', { to: poor });
  const newborn = BigInt(b.fresh('newborn').address);
  const giver = b.deploy(
    'gives to a new account',
    call('CALL', newborn, { value: 1, gas: 0 }) + asm('PUSH0 SSTORE STOP'),
  );
  b.add('a call that creates an account', { to: giver, value: 1n });
  b.add('the same call when the account exists', { to: giver, value: 1n });
  const jumps = asm('7 JUMP');
  b.add('deploy and jump nowhere', { to: b.deploy('bad jump', jumps) });
  b.add('stack underflow', { to: b.deploy('underflow', asm('POP')) });
  b.add('stack overflow', { to: b.deploy('overflow', `5b${asm('PUSH0 PUSH0 JUMP')}`) });
  b.add('undefined instruction', { to: b.deploy('undefined', '0c') });
  b.add('memory nobody can pay for', { to: b.deploy('memory', asm(1n << 60n, 'MLOAD')) });
  b.add('counts leading zeros (EIP-7939)', {
    to: b.deploy('clz', asm(0, 'CLZ', 0, 'SSTORE', 1, 'CLZ', 1, 'SSTORE', 1n << 200n, 'CLZ', 2, 'SSTORE')),
  });
}

function logs(b) {
  for (let topics = 0; topics <= 4; topics++) {
    const sizes = [0, 1, 32, 1000];
    const runtime =
      memory('ab'.repeat(64)) +
      sizes
        .map((size) => asm(...Array.from({ length: topics }, (_, i) => BigInt(i + 1)), size, 0, `LOG${topics}`))
        .join('');
    b.add(`logs with ${topics} topics`, { to: b.deploy(`logger ${topics}`, runtime) });
  }
  const big = b.deploy('big logger', asm(200_000, 0, 'LOG0', 'STOP'));
  b.add('a log of 200,000 bytes', { to: big, gas: 5_000_000 });
  const lost = b.deploy('logs, then reverts', asm('1 0 0 LOG1 PUSH0 PUSH0 REVERT'));
  b.add('logs of a reverted transaction are gone', { to: lost });
  const outer = b.deploy(
    'logs around a reverted call',
    asm('1 0 0 LOG1') + call('CALL', BigInt(lost)) + asm('2 0 0 LOG1 STOP'),
  );
  b.add('logs of a reverted call are gone, the others stay', { to: outer });
}

function calldataFloor(b) {
  const to = b.fresh('calldata').address;
  for (const [what, data] of [
    ['zeros', '00'.repeat(20_000)],
    ['ones', '01'.repeat(20_000)],
    ['mixed', b.random.bytes(3000)],
  ]) {
    const gas = intrinsicGas({ to, data });
    b.add(`calldata of ${what} at the floor (EIP-7623)`, { to, data: `0x${data}`, gas });
    b.add(`calldata of ${what} with more gas`, { to, data: `0x${data}`, gas: gas + 1000 });
  }
  const spender = b.deploy('spends gas', asm('GAS PUSH0 SSTORE GAS 1 SSTORE STOP'));
  for (const length of [10, 1000, 1500, 2000, 4000, 20_000]) {
    b.add(`calldata of ${length} bytes and some execution`, {
      to: spender,
      data: `0x${'01'.repeat(length)}`,
      gas: 2_000_000,
    });
  }
  b.add('the largest calldata that fits 128 KiB', { to, data: `0x${'00'.repeat(130_800)}`, gas: 4_000_000 });
}

function setCode(b) {
  const { chainId } = b;
  const setter = b.deploy('delegate', SETTER);
  const write = `0x${word(1)}${word(5)}`;
  const auth = (account, nonce, target = setter, chain = chainId, faults = {}) =>
    authorize(account, { chainId: chain, address: target, nonce }, faults);
  const send = (name, auths, tx = {}, expected = {}) =>
    b.add(`set code: ${name}`, { type: 4, to: setter, gas: 500_000, auths, ...tx }, expected);
  const [one, two, three] = ['one', 'two', 'three'].map((name) => b.fresh(`authority ${name}`));
  // The oracle refunds as if the authority existed: EIP-7702 does not.
  send(
    'an authority that did not exist: no refund',
    [auth(one, 0)],
    { to: b.fresh('sink').address },
    { status: '0x1', gasUsed: 46_000 },
  );
  b.add('give it something', { to: one.address, value: 10n ** 15n, gas: 200_000 });
  for (const account of [two, three])
    b.add('an authority is funded', { to: account.address, value: 10n ** 15n, gas: 21_000 });
  b.add('call the delegated account', { to: one.address, data: write, gas: 200_000 });
  send('an authority that exists: refund', [auth(two, 0)], { to: b.fresh('sink').address });
  send('twice in one transaction', [auth(two, 1), auth(two, 2)]);
  send('a wrong nonce', [auth(two, 1)]);
  send('another chain', [auth(two, 3, setter, chainId + 1n)]);
  send('a chain id beyond 64 bits', [auth(two, 3, setter, 1n << 100n)]);
  send('the highest nonce', [auth(two, (1n << 64n) - 1n)]);
  send('high s', [auth(two, 3, setter, 0n, { highS: true })]);
  send('parity 2', [auth(two, 3, setter, 0n, { parity: 2 })]);
  send('r = 0', [auth(two, 3, setter, 0n, { r: 0n })]);
  send('one bad, one good', [auth(two, 9), auth(three, 0)]);
  send('to the authority itself, calling it', [auth(two, 3, two.address)], { to: two.address });
  send('a delegation to a delegated account is not followed', [auth(three, 1, one.address)], {
    to: three.address,
    data: write,
  });
  send('a delegation to a precompile runs nothing', [auth(three, 2, address(4))], { to: three.address, data: write });
  send('a delegation to an account without code', [auth(three, 3, b.fresh('empty').address)], {
    to: three.address,
    value: 1n,
  });
  send('removed', [auth(three, 4, address(0))], { to: three.address });
  send('removed again', [auth(three, 5, address(0))], { to: three.address });
  const reverter = b.deploy('reverting delegate', asm('PUSH0 PUSH0 REVERT'));
  send('stays although the call reverts', [auth(three, 6, reverter)], { to: three.address });
  send('stays although it runs out of gas', [auth(three, 7)], {
    to: three.address,
    data: write,
    gas: 21_000 + 25_000 + 1500,
  });
  const bomb = b.deploy('destroying delegate', asm('CALLER SELFDESTRUCT'));
  send('a delegate that destroys: only the balance goes', [auth(three, 8, bomb)], { to: three.address, value: 5n });
  const creator = b.deploy('creating delegate', asm('0 0 0 CREATE PUSH0 SSTORE STOP'));
  send('a delegate that creates uses up the nonce of the authority', [auth(three, 9, creator)], { to: three.address });
  const looker = b.deploy(
    'looks at a delegated account',
    asm(
      BigInt(three.address),
      'EXTCODESIZE',
      'PUSH0',
      'SSTORE',
      BigInt(three.address),
      'EXTCODEHASH',
      1,
      'SSTORE',
      32,
      0,
      0,
      BigInt(three.address),
      'EXTCODECOPY',
      0,
      'MLOAD',
      2,
      'SSTORE',
    ) +
      call('CALL', BigInt(three.address)) +
      asm('3 SSTORE STOP'),
  );
  b.add('code, hash and call of a delegated account', { to: looker });
  send(
    'fifty at once',
    Array.from({ length: 50 }, (_, i) => auth(b.fresh(`crowd ${i % 10}`), Math.floor(i / 10), setter, 0n)),
    { gas: 3_000_000, to: b.fresh('sink').address },
    {
      gasUsed:
        21_000 + 50 * 25_000 - 40 * 12_500 > ((21_000 + 50 * 25_000) * 4) / 5
          ? 21_000 + 50 * 25_000 - 40 * 12_500
          : ((21_000 + 50 * 25_000) * 4) / 5,
    },
  );
  // The sender delegates itself: its nonce rises by two, which the oracle's pool only learns from the block.
  send(
    'the sender itself',
    [auth(b.sender, b.nonce + 1, setter)],
    { to: b.sender.address, data: write },
    { last: true },
  );
  b.nonce++;
  send('and undoes it', [auth(b.sender, b.nonce + 1, address(0))], { to: setter }, { last: true });
  b.nonce++;
}

function precompiles(b) {
  const caller = (at, input) =>
    memory(input) +
    call('CALL', BigInt(at), { input: [0, strip(input).length / 2] }) +
    asm('PUSH0 SSTORE RETURNDATASIZE PUSH0 PUSH0 RETURNDATACOPY RETURNDATASIZE PUSH0 LOG0 STOP');
  for (let index = 0; index < PRECOMPILE_COUNT; index++) {
    for (let turn = 0; turn < 6; turn++) {
      const { at, input, gas } = precompileInputs(b.random, index);
      const least = intrinsicGas({ to: address(at), data: input });
      b.add(`precompile ${at} by a transaction, ${turn}`, { to: address(at), data: input, gas: least + 500_000 });
      if (gas !== undefined && turn < 3) {
        b.add(`precompile ${at} with ${turn - 1} gas too much`, {
          to: address(at),
          data: input,
          gas: Math.max(least, 21_000 + gas + turn - 1),
        });
      }
      if (strip(input).length / 2 < 3000) {
        b.add(`precompile ${at} by a call, ${turn}`, { to: null, data: `0x${caller(at, input)}`, gas: 3_000_000 });
      }
    }
  }
}
