// Transactions that must be refused, with the code and the words that geth answers and that clients look for.
import { Account, address, authorize, SECP_ORDER, sign } from './evm.mjs';
import { PRICE } from './world.mjs';

/** `[name, raw bytes, wording]`; the last ones need those before them to be pooled. */
export function refusals(sender, nonce, chainId, gasLimit) {
  const nobody = Account.derived('nobody');
  const base = { type: 2, chainId, nonce, to: address(0xabcdef), gas: 21_000, price: PRICE, fee: PRICE, tip: PRICE };
  const make = (fields, faults, account = sender) => sign(account, { ...base, ...fields }, faults);
  const auth = [authorize(nobody, { chainId, address: address(1), nonce: 0 })];
  const good = make({});
  const pooled = { nonce: nonce + 5 };
  return [
    ['no bytes', '0x', /typed transaction too short/],
    ['an unknown type', '0x1234', /transaction type not supported/],
    ['a blob transaction', make({ type: 3 }), /transaction type not supported/],
    ['an empty list', '0xc0', /^rlp: /],
    ['a truncated transaction', good.slice(0, -10), /^rlp: /],
    ['bytes after a transaction', `${good}00`, /^rlp: /],
    ['a truncated legacy transaction', make({ type: 0 }).slice(0, -10), /^rlp: /],
    ['a recipient of 19 bytes', make({ to: `0x${'11'.repeat(19)}` }), /^rlp: /],
    ['a value of 257 bits', make({ value: 1n << 256n }), /^rlp: /],
    ['a set-code transaction that creates', make({ type: 4, to: null, auths: auth, gas: 200_000 }), /^rlp: /],
    ['another chain', make({ chainId: 1n }), /invalid chain id for signer: have 1 want \d+/],
    ['another chain, legacy', make({ type: 0, chainId: 1n }), /invalid chain id for signer/],
    ['chain 0 in a typed transaction', make({ chainId: 0n }), /invalid chain id for signer/],
    [
      'no chain id',
      make({ type: 0, chainId: null }),
      /only replay-protected \(EIP-155\) transactions allowed over RPC/,
    ],
    ['high s', make({}, { highS: true }), /invalid sender/],
    ['high s, legacy', make({ type: 0 }, { highS: true }), /invalid sender/],
    ['r = 0', make({}, { r: 0n }), /invalid sender/],
    ['s = 0', make({}, { s: 0n }), /invalid sender/],
    ['r = order of the curve', make({}, { r: SECP_ORDER }), /invalid sender/],
    ['a sender without money', make({}, {}, nobody), /insufficient funds for gas \* price \+ value/],
    ['more value than money', make({ value: 10n ** 30n }), /insufficient funds for gas \* price \+ value/],
    ['the highest value', make({ value: (1n << 256n) - 1n }), /insufficient funds for gas \* price \+ value/],
    ['the highest price', make({ fee: (1n << 128n) - 1n, tip: 0n }), /insufficient funds for gas \* price \+ value/],
    ['one gas too little', make({ gas: 20_999 }), /intrinsic gas too low/],
    ['no gas', make({ gas: 0 }), /intrinsic gas too low/],
    ['too little gas to create', make({ to: null, data: '0x00', gas: 53_000 }), /intrinsic gas too low/],
    ['too little gas for its authorizations', make({ type: 4, gas: 30_000, auths: auth }), /intrinsic gas too low/],
    [
      'gas below the calldata floor',
      make({ data: `0x${'01'.repeat(1000)}`, gas: 37_000 }),
      /insufficient gas for floor data gas cost/,
    ],
    ['gas above the cap of a transaction', make({ gas: (1 << 24) + 1 }), /transaction gas limit too high/],
    ['gas above the limit of a block', make({ gas: gasLimit + 1n }), /exceeds block gas limit/],
    ['tip above fee', make({ tip: PRICE + 1n }), /max priority fee per gas higher than max fee per gas/],
    [
      'creation code too long',
      make({ to: null, data: `0x${'00'.repeat(49_153)}`, gas: 10_000_000 }),
      /max initcode size exceeded/,
    ],
    ['more than 128 KiB', make({ data: `0x${'00'.repeat(131_072)}`, gas: 5_000_000 }), /oversized data/],
    ['no authorizations', make({ type: 4, auths: [], gas: 100_000 }), /EIP-7702 transaction with empty auth list/],
    ['the last nonce', make({ nonce: (1n << 64n) - 1n }), /nonce has max value/],
    ['nothing: a gap waits', make(pooled), null],
    ['the same again', make(pooled), /already known/],
    ['a replacement at the same price', make({ ...pooled, value: 1n }), /replacement transaction underpriced/],
    [
      'a replacement with 9 % more',
      make({ ...pooled, value: 1n, fee: (PRICE * 109n) / 100n, tip: (PRICE * 109n) / 100n }),
      /replacement transaction underpriced/,
    ],
    [
      'a replacement with more fee and the same tip',
      make({ ...pooled, value: 1n, fee: PRICE * 2n }),
      /replacement transaction underpriced/,
    ],
    [
      'nothing: a replacement with 10 % more',
      make({ ...pooled, value: 1n, fee: (PRICE * 110n) / 100n, tip: (PRICE * 110n) / 100n }),
      null,
    ],
    ['nothing: the first nonce', good, null],
  ];
}

/** What must be refused once the first nonce is mined. */
export const afterwards = (sender, nonce, chainId) => [
  [
    'a used nonce',
    sign(sender, { type: 2, chainId, nonce, to: address(1), gas: 21_000, value: 9n, fee: PRICE, tip: PRICE }),
    new RegExp(`nonce too low: next nonce ${nonce + 1}, tx nonce ${nonce}`),
  ],
];
