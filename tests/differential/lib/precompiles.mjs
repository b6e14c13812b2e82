// Inputs for precompiled contracts: valid ones, and ones that are wrong in each way that matters.
import { bls, bn254, p256, ethers, hex, strip, word, SECP_ORDER } from './evm.mjs';

const { keccak256, sha256, SigningKey } = ethers;
const BLS_FIELD = 0x1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaabn;
const BN_FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583n;
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

// ---- pieces

/** Multiplying points is slow and only a few small factors are used. */
const remembered = (make) => {
  const known = new Map();
  return (scalar) => {
    if (!known.has(scalar)) known.set(scalar, make(scalar));
    return known.get(scalar);
  };
};

const g1 = remembered((scalar) => {
  if (scalar === 0n) return '00'.repeat(128);
  const { x, y } = bls.G1.ProjectivePoint.BASE.multiply(scalar).toAffine();
  return word(x, 64) + word(y, 64);
});
const g2 = remembered((scalar) => {
  if (scalar === 0n) return '00'.repeat(256);
  const { x, y } = bls.G2.ProjectivePoint.BASE.multiply(scalar).toAffine();
  return [x.c0, x.c1, y.c0, y.c1].map((part) => word(part, 64)).join('');
});
const bnG1 = remembered((scalar) => {
  if (scalar === 0n) return '00'.repeat(64);
  const { x, y } = bn254.ProjectivePoint.BASE.multiply(scalar).toAffine();
  return word(x) + word(y);
});
/** Generator of bn254's second group, imaginary parts first. */
const BN_G2 = [
  0x198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2n,
  0x1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6edn,
  0x090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975bn,
  0x12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daan,
]
  .map((part) => word(part))
  .join('');
/** On the curve but outside the subgroup. */
const G1_OUTSIDE = (() => {
  const { Fp } = bls.fields;
  for (let x = 4n; ; x++) {
    try {
      const y = Fp.sqrt(Fp.add(Fp.pow(x, 3n), 4n));
      if (!new bls.G1.ProjectivePoint(x, y, 1n).isTorsionFree()) return word(x, 64) + word(y, 64);
    } catch {
      // No square root: no point at this x.
    }
  }
})();

const small = (r) => BigInt(r.below(5));
const scalar = (r) => r.pick([0n, 1n, 2n, BigInt(`0x${r.bytes(32)}`), (1n << 256n) - 1n]);

/** One input in four is damaged. */
function damage(r, input) {
  const text = strip(input);
  if (r.chance(75)) return `0x${text}`;
  return r.weighted([
    [1, () => `0x${text.slice(0, 2 * r.below(text.length / 2 + 1))}`],
    [1, () => `0x${text}${r.bytes(1 + r.below(40))}`],
    [
      1,
      () => {
        const at = 2 * r.below(Math.max(1, text.length / 2));
        return `0x${text.slice(0, at)}${r.bytes(1)}${text.slice(at + 2)}`.slice(0, 2 + text.length);
      },
    ],
  ]);
}

// ---- one maker per precompile

function recover(r) {
  const hash = keccak256(`0x${r.bytes(4)}`);
  const signed = new SigningKey(`0x${'11'.repeat(32)}`).sign(hash);
  const s = r.chance(20) ? SECP_ORDER - BigInt(signed.s) : BigInt(signed.s);
  return strip(hash) + word(r.pick([signed.v, signed.v, 27, 28, 0, 1, 29])) + strip(signed.r) + word(s);
}

function modexp(r) {
  const length = () => r.pick([0, 1, 2, 32, 33, 64, 100]);
  const [base, exponent, modulus] = [length(), length(), length()];
  const lengths = r.weighted([
    [10, () => [base, exponent, modulus]],
    [1, () => [1025, 1, 1]],
    [1, () => [1, 1, 1024]],
    [1, () => [1n << 255n, 0, 0]],
    [1, () => [0, 1n << 64n, 0]],
  ]);
  return lengths.map((one) => word(one)).join('') + r.bytes(base) + r.bytes(exponent) + r.bytes(modulus);
}

function pairing(r) {
  // e(aP, Q) e(-aP, Q) = 1.
  const a = small(r) + 1n;
  const { x, y } = bn254.ProjectivePoint.BASE.multiply(a).toAffine();
  const negative = word(x) + word(BN_FIELD - y);
  return r.pick(['', bnG1(a) + BN_G2, bnG1(a) + BN_G2 + negative + BN_G2, bnG1(0n) + BN_G2]);
}

function blake2f(r) {
  const rounds = word(r.pick([0, 1, 12]), 4);
  return rounds + r.bytes(64) + r.bytes(128) + r.bytes(16) + r.pick(['00', '01', '01', '02']);
}

/** The commitment to the polynomial 0 opens to 0 everywhere. */
function pointEvaluation(r) {
  const infinity = `c0${'00'.repeat(47)}`;
  const versioned = `01${strip(sha256(`0x${infinity}`)).slice(2)}`;
  const y = word(r.pick([0, 0, 0, 1]));
  return versioned + word(r.below(1000)) + y + infinity + infinity;
}

function blsPairing(r) {
  const a = small(r) + 1n;
  const { x, y } = bls.G1.ProjectivePoint.BASE.multiply(a).toAffine();
  const negative = word(x, 64) + word(BLS_FIELD - y, 64);
  return r.pick([g1(a) + g2(1n), g1(a) + g2(1n) + negative + g2(1n), g1(0n) + g2(2n), G1_OUTSIDE + g2(1n), '']);
}

function p256Verify(r) {
  const key = (1n + small(r)).toString(16).padStart(64, '0');
  const hash = r.bytes(32);
  const signed = p256.sign(hash, key, { lowS: false });
  const publicKey = hex(p256.getPublicKey(key, false)).slice(2);
  const s = r.chance(20) ? P256_ORDER - signed.s : signed.s;
  return hash + word(signed.r) + word(s) + (r.chance(10) ? '00'.repeat(64) : publicKey);
}

const many = (r, make) => Array.from({ length: r.below(4) }, () => make()).join('');

const PRECOMPILES = [
  [0x01, recover, 3000],
  [0x02, (r) => r.bytes(r.below(80))],
  [0x03, (r) => r.bytes(r.below(80))],
  [0x04, (r) => r.bytes(r.below(80))],
  [0x05, modexp],
  [0x06, (r) => bnG1(small(r)) + bnG1(small(r)), 150],
  [0x07, (r) => bnG1(small(r)) + word(scalar(r)), 6000],
  [0x08, pairing],
  [0x09, blake2f],
  [0x0a, pointEvaluation, 50_000],
  [0x0b, (r) => g1(small(r)) + r.pick([g1(small(r)), G1_OUTSIDE]), 375],
  [0x0c, (r) => many(r, () => r.pick([g1(small(r)), g1(1n), G1_OUTSIDE]) + word(scalar(r)))],
  [0x0d, (r) => g2(small(r)) + g2(small(r)), 600],
  [0x0e, (r) => many(r, () => g2(small(r)) + word(scalar(r)))],
  [0x0f, blsPairing],
  [0x10, (r) => word(r.pick([BigInt(`0x${r.bytes(40)}`), BLS_FIELD, BLS_FIELD - 1n, 0n]), 64), 5500],
  [0x11, (r) => word(BigInt(`0x${r.bytes(40)}`), 64) + word(r.pick([0n, 5n, BLS_FIELD]), 64), 23_800],
  [0x100, p256Verify, 6900],
  [0x12, (r) => r.bytes(r.below(40))],
];

/** Which precompile, with what, and what it costs where that is a constant. */
export function precompileInputs(r, index = r.below(PRECOMPILES.length)) {
  const [at, make, gas] = PRECOMPILES[index];
  return { at, input: damage(r, make(r)), gas };
}

export const PRECOMPILE_COUNT = PRECOMPILES.length;
export const PRECOMPILE_ADDRESSES = PRECOMPILES.map(([at]) => at);
