// Random programs. They do everything that must give the same result on both chains, and nothing that may not: heights,
// times, randomness, the fee recipient and the base fee are used only through what is equal everywhere.
import { asm, deployer, memory, strip, when, word } from './evm.mjs';
import { precompileInputs } from './precompiles.mjs';

const SLOTS = 6;
/** The condition bits a contract passes on when it calls: fewer each time, so that every recursion ends. */
const PASS_ON = ['PUSH0', 'CALLDATALOAD', 8, 'SHR'];

/** Expressions: code that leaves one word. */
const EXPRESSIONS = [
  (r) => asm(BigInt(`0x${r.bytes(r.pick([1, 2, 8, 20, 32]))}`)),
  (r) => asm(r.below(SLOTS), 'SLOAD'),
  (r) => asm(r.below(SLOTS), 'TLOAD'),
  (r) => asm(r.pick([0, 1, 31, 32, 64]), 'CALLDATALOAD'),
  (r) =>
    asm(
      r.pick([
        'ADDRESS',
        'CALLER',
        'ORIGIN',
        'CALLVALUE',
        'GASPRICE',
        'CALLDATASIZE',
        'CODESIZE',
        'SELFBALANCE',
        'RETURNDATASIZE',
        'MSIZE',
        'GAS',
        'CHAINID',
        'GASLIMIT',
        'BLOBBASEFEE',
        'PC',
      ]),
    ),
  (r, world) => asm(r.pick(world.targets()), r.pick(['BALANCE', 'EXTCODESIZE', 'EXTCODEHASH'])),
  // Equal everywhere: the parent has a hash, this block has none, nor has one long ago.
  () => asm('1 NUMBER SUB BLOCKHASH ISZERO'),
  () => asm('NUMBER BLOCKHASH'),
  () => asm('NUMBER 257 ADD BLOCKHASH'),
  (r) => asm(r.pick(['TIMESTAMP', 'PREVRANDAO', 'NUMBER']), 'ISZERO'),
  () => asm('COINBASE BALANCE POP GAS'),
  (r) => asm(r.below(3), 'BLOBHASH'),
  (r) => asm(r.below(96), r.below(64), 'KECCAK256'),
  (r) => asm(r.below(128), 'MLOAD'),
];
const BINARY = [
  'ADD',
  'MUL',
  'SUB',
  'DIV',
  'SDIV',
  'MOD',
  'SMOD',
  'SIGNEXTEND',
  'LT',
  'GT',
  'SLT',
  'SGT',
  'EQ',
  'AND',
  'OR',
  'XOR',
  'BYTE',
  'SHL',
  'SHR',
  'SAR',
];

export function expression(r, world, depth = 2) {
  if (depth > 0 && r.chance(45)) {
    const operand = () => expression(r, world, depth - 1);
    return r.weighted([
      [8, () => operand() + operand() + asm(r.pick(BINARY))],
      [2, () => operand() + asm(r.pick(['NOT', 'ISZERO', 'CLZ']))],
      [1, () => operand() + operand() + operand() + asm(r.pick(['ADDMOD', 'MULMOD']))],
      [1, () => operand() + asm(`0x61${r.bytes(2)}`, 'EXP')],
    ]);
  }
  return r.pick(EXPRESSIONS)(r, world);
}

/** Calldata for the next program: the condition bits first. */
const callArguments = (r) =>
  asm(PASS_ON, 'PUSH0', 'MSTORE') + (r.chance(50) ? asm(`0x7f${r.bytes(32)}`, 32, 'MSTORE') : '');

function call(r, world) {
  const kind = r.pick(['CALL', 'CALL', 'CALL', 'STATICCALL', 'DELEGATECALL', 'CALLCODE']);
  const value = r.weighted([
    [5, () => asm('PUSH0')],
    [3, () => asm(r.below(5))],
    [1, () => asm(`0x6f${r.bytes(16)}`)],
    [1, () => asm('SELFBALANCE')],
  ]);
  const gas = r.weighted([
    [6, () => asm('GAS')],
    [2, () => asm('2 GAS DIV')],
    [1, () => asm(r.below(3000))],
    [1, () => asm(r.below(100_000))],
  ]);
  const [output, input] = [r.below(70), r.pick([0, 32, 64, r.below(100)])];
  const target = asm(r.chance(80) ? r.pick(world.targets()) : 'ADDRESS');
  return (
    callArguments(r) +
    asm(output, 64, input, 0) +
    (['CALL', 'CALLCODE'].includes(kind) ? value : '') +
    target +
    gas +
    asm(kind) +
    keep(r) +
    (r.chance(30) ? copyReturned(r) : '')
  );
}

/** Stores the word on the stack, or drops it. */
const keep = (r) => (r.chance(60) ? asm(r.below(SLOTS), r.pick(['SSTORE', 'SSTORE', 'TSTORE'])) : asm('POP'));

/** What was returned, hashed; sometimes more than there is, which fails. */
const copyReturned = (r) => {
  const size = r.chance(95) ? asm('RETURNDATASIZE') : asm(r.below(64));
  return size + asm('PUSH0 96 RETURNDATACOPY RETURNDATASIZE 96 KECCAK256') + keep(r);
};

function precompile(r) {
  const { at, input, gas } = precompileInputs(r);
  const bytes = strip(input);
  const size = bytes.length / 2;
  // Long inputs would not fit a program: their tail stays zero.
  const stipend = gas === undefined || r.chance(85) ? asm('GAS') : asm(Math.max(0, gas + r.pick([-1, 0, 1])));
  return (
    memory(bytes.slice(0, 2 * 1024)) +
    asm(64, 0, size, 0) +
    asm(r.chance(90) ? 'PUSH0' : 1) +
    asm(at) +
    stipend +
    asm('CALL') +
    keep(r) +
    copyReturned(r)
  );
}

function create(r, world) {
  const inner = initcode(r, world, 0);
  const bytes = inner.length / 2;
  const kind = r.pick(['CREATE', 'CREATE2']);
  const value = r.chance(80) ? asm('PUSH0') : asm(r.below(3));
  // Few salts: collisions are wanted.
  return (
    memory(inner) +
    (kind === 'CREATE2' ? asm(r.below(2)) : '') +
    asm(bytes, 0) +
    value +
    asm(kind) +
    keep(r) +
    (r.chance(20) ? copyReturned(r) : '')
  );
}

const STATEMENTS = [
  [10, (r, w) => expression(r, w) + asm(r.below(SLOTS), 'SSTORE')],
  [5, (r) => asm(r.pick([0, 0, 1, 2]), r.below(SLOTS), 'SSTORE')],
  [3, (r, w) => expression(r, w, 1) + asm(r.below(SLOTS), 'TSTORE')],
  [4, (r, w) => expression(r, w) + asm(r.below(200), r.pick(['MSTORE', 'MSTORE8']))],
  [2, (r) => asm(r.below(100), r.below(200), r.below(200), 'MCOPY')],
  [2, (r) => asm(r.below(100), r.below(100), r.below(100), r.pick(['CALLDATACOPY', 'CODECOPY']))],
  [2, (r, w) => asm(r.below(80), r.below(40), r.below(100), r.pick(w.targets()), 'EXTCODECOPY')],
  [4, (r, w) => log(r, w)],
  [12, (r, w) => call(r, w)],
  [4, (r) => precompile(r)],
  [4, (r, w, depth) => (depth > 0 ? create(r, w) : log(r, w))],
  [1, (r, w) => asm(r.pick(w.targets()), 'SELFDESTRUCT')],
  [1, () => asm('ADDRESS SELFDESTRUCT')],
  [1, (r) => asm(r.below(80), r.below(80), r.pick(['RETURN', 'REVERT']))],
  [1, (r) => r.pick([asm('INVALID'), asm('POP'), asm('STOP'), '0c', asm('7 JUMP'), asm(1n << 40n, 'MLOAD', 'POP')])],
];

function log(r, world) {
  const topics = r.below(5);
  const size = r.pick([0, 0, 1, 31, 32, 33, 100, 1000]);
  return (
    Array.from({ length: topics }, () => expression(r, world, 0)).join('') + asm(size, r.below(64), `LOG${topics}`)
  );
}

/** A loop that runs its body a few times. */
function loop(r, world, at, depth) {
  const start = asm(1 + r.below(4));
  const body = statement(r, world, depth);
  const begin = at + start.length / 2;
  return `${start}5b${body}${asm('1 SWAP1 SUB DUP1')}61${word(begin, 2)}57${asm('POP')}`;
}

function statement(r, world, depth) {
  return r.weighted(STATEMENTS.map(([weight, make]) => [weight, () => make(r, world, depth)]));
}

/** A contract's code: statements, most of which run only when a bit of the calldata's first word is set. */
export function program(r, world, depth = 1) {
  let code = '';
  for (let left = 2 + r.below(10); left > 0; left--) {
    if (r.chance(75)) {
      const condition = asm(r.below(40), 'PUSH0', 'CALLDATALOAD', r.below(24), 'SHR', 'ADD', 1, 'AND');
      const head = code.length / 2 + condition.length / 2 + 5;
      const body = r.chance(15) ? loop(r, world, head, depth) : statement(r, world, depth);
      code += when(code.length / 2, `0x${condition}`, body);
    } else {
      code += statement(r, world, depth);
    }
  }
  return (
    code +
    asm(
      r.below(70),
      r.below(70),
      r.weighted([
        [8, () => 'RETURN'],
        [1, () => 'REVERT'],
        [1, () => 'STOP'],
      ]),
    )
  );
}

const BANNED = new Set([0x40, 0x41, 0x42, 0x43, 0x44, 0x48]);

/** Bytes without a plan: instructions at random, with enough pushes to get somewhere. */
export function soup(r, world, length = 20 + r.below(300)) {
  let code = '';
  while (code.length / 2 < length) {
    code += r.weighted([
      [10, () => asm(r.below(64))],
      [3, () => asm(r.pick(world.targets()))],
      [2, () => asm(BigInt(`0x${r.bytes(32)}`))],
      [
        20,
        () => {
          const byte = r.below(256);
          const isPush = byte >= 0x60 && byte <= 0x7f;
          return BANNED.has(byte) || isPush ? asm('JUMPDEST') : word(byte, 1);
        },
      ],
    ]);
  }
  return code;
}

/** Creation code: mostly a deployment, sometimes with work before it, sometimes one that fails. */
export function initcode(r, world, depth = 1) {
  const runtime = () => (r.chance(85) ? program(r, world, depth) : soup(r, world));
  return r.weighted([
    [12, () => deployer(runtime())],
    [3, () => deployer(runtime(), statement(r, world, 0))],
    [1, () => asm(r.below(40), 'PUSH0', 'REVERT')],
    [1, () => asm('PUSH0 PUSH0 RETURN')],
    [1, () => ''],
    [1, () => asm('INVALID')],
    [1, () => asm(r.pick(world.targets()), 'SELFDESTRUCT')],
    [1, () => memory('ef00') + asm('2 0 RETURN')],
    [1, () => asm('GAS PUSH0 SSTORE 1 PUSH0 RETURN')],
    [1, () => soup(r, world)],
  ]);
}

/** Calldata: condition bits, then anything. */
export function calldata(r) {
  return r.weighted([
    [1, () => '0x'],
    [8, () => `0x${word(BigInt(`0x${r.bytes(8)}`))}`],
    [3, () => `0x${r.bytes(32 + r.below(100))}`],
    [1, () => `0x${'00'.repeat(r.below(300))}`],
  ]);
}
