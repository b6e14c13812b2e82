//! Every precompile with inputs it accepts, inputs it refuses, and too little gas.

use crate::{asm::*, spec::*};
use alloy_primitives::{B256, keccak256};
use execution::Fork;
use revm::bytecode::opcode::*;

pub(super) fn specs() -> Vec<Spec> {
    let at =
        |name: &str, number: u64, since: Fork, inputs: Vec<Vec<u8>>| precompile(name, number, since, inputs);
    let cancun = Fork::Cancun;
    let mut specs = vec![
        at("ecrecover", 1, cancun, ecrecover()),
        at("sha256", 2, cancun, lengths()),
        at("ripemd160", 3, cancun, lengths()),
        at("identity", 4, cancun, lengths()),
        at("modexp", 5, cancun, modexp()),
        at("bn254_add", 6, cancun, bn254_add()),
        at("bn254_mul", 7, cancun, bn254_mul()),
        at("bn254_pairing", 8, cancun, bn254_pairing()),
        at("blake2f", 9, cancun, blake2f()),
        at("kzg_point_evaluation", 10, cancun, kzg()),
        at("bls12_g1_add", 0x0b, Fork::Prague, pairs(g1(), 2)),
        at("bls12_g1_msm", 0x0c, Fork::Prague, scaled(g1())),
        at("bls12_g2_add", 0x0d, Fork::Prague, pairs(g2(), 2)),
        at("bls12_g2_msm", 0x0e, Fork::Prague, scaled(g2())),
        at("bls12_pairing", 0x0f, Fork::Prague, bls_pairing()),
        at("bls12_map_fp_to_g1", 0x10, Fork::Prague, field_elements(1)),
        at("bls12_map_fp2_to_g2", 0x11, Fork::Prague, field_elements(2)),
        at("p256_verify", 0x100, Fork::Osaka, p256()),
        spec("precompiles", "before_their_fork", "Addresses that are no precompiles yet are empty accounts.")
            .contract(TARGET, 0, {
                let calls = [0x0b, 0x11, 0x12, 0x100, 0x101].map(|number| call(number, 500_000));
                calls.iter().enumerate().fold(asm(), |asm, (index, code)| {
                    asm.ops(&code.clone().build()).record(10 * index as u64)
                })
            })
            .data([vec![1; 32]])
            .succeeds(),
    ];
    specs.extend(proofs());
    specs
}

/// Calls a precompile with all of the call data.
fn call(number: u64, gas: u64) -> Asm {
    let copied = asm().op(CALLDATASIZE).ops(&[PUSH0, PUSH0, CALLDATACOPY]);
    let pushed = copied.ops(&[PUSH0, PUSH0, CALLDATASIZE, PUSH0, PUSH0]).push(number);
    pushed.push(gas).op(CALL)
}

/// Slots 0 to 2: success, length and hash of the result; 3: gas left; 4: the same with 10 gas; 5: by DELEGATECALL.
fn precompile(name: &str, number: u64, since: Fork, inputs: Vec<Vec<u8>>) -> Spec {
    let by_delegatecall =
        asm().ops(&[PUSH0, PUSH0, CALLDATASIZE, PUSH0]).push(number).push(500_000).op(DELEGATECALL).mark(5);
    let code = call(number, 1_500_000)
        .record(0)
        .op(GAS)
        .sstore(3)
        .ops(&call(number, 10).mark(4).build())
        .ops(&by_delegatecall.build());
    spec("precompiles", name, "Valid and invalid inputs, and one with too little gas.")
        .contract(TARGET, 0, code)
        .data(inputs)
        .gas([3_000_000])
        .since(since)
        .succeeds()
}

/// Inputs whose answer is known.
fn proofs() -> Vec<Spec> {
    let known = |name: &str, number: u64, since, input: Vec<u8>, answer: Vec<u8>| {
        let spec = precompile(name, number, since, vec![input]);
        spec.sees(TARGET, 0, 2).sees(TARGET, 1, answer.len() as u64).sees(
            TARGET,
            2,
            alloy_primitives::U256::from_be_bytes(keccak256(&answer).0),
        )
    };
    let one = || B256::with_last_byte(1).to_vec();
    let recovered = B256::left_padding_from(key(3).address().as_slice()).to_vec();
    vec![
        known("ecrecover_of_a_signature", 1, Fork::Cancun, ecrecover().remove(0), recovered),
        known("modexp_of_small_numbers", 5, Fork::Cancun, modexp_input(&[3], &[5], &[100]), vec![43]),
        known("bn254_pairing_of_a_valid_pair", 8, Fork::Cancun, bn254_pairing().remove(1), one()),
        known("bls12_pairing_of_a_valid_pair", 0x0f, Fork::Prague, bls_pairing().remove(0), one()),
        known("p256_verify_of_a_signature", 0x100, Fork::Osaka, p256().remove(0), one()),
        known("kzg_point_evaluation_of_zero", 10, Fork::Cancun, kzg().remove(0), kzg_answer()),
        known(
            "blake2f_of_the_standard",
            9,
            Fork::Cancun,
            blake2f().remove(0),
            hex("ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
             7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"),
        ),
    ]
}

fn hex(text: &str) -> Vec<u8> {
    alloy_primitives::hex::decode(text).unwrap()
}

fn number(value: u64) -> Vec<u8> {
    alloy_primitives::U256::from(value).to_be_bytes_vec()
}

fn lengths() -> Vec<Vec<u8>> {
    [0, 1, 31, 32, 33, 64, 1_000].map(|length| vec![0xa5; length]).to_vec()
}

fn ecrecover() -> Vec<Vec<u8>> {
    let hash = keccak256("a message");
    let signature = key(3).sign_hash(hash);
    let (r, s) = (signature.r().to_be_bytes_vec(), signature.s().to_be_bytes_vec());
    let v = number(27 + u64::from(signature.v()));
    let good = [hash.to_vec(), v.clone(), r.clone(), s.clone()].concat();
    let with = |v: Vec<u8>, r: &[u8], s: &[u8]| [hash.to_vec(), v, r.to_vec(), s.to_vec()].concat();
    vec![
        good.clone(),
        good[..127].to_vec(),
        [good.clone(), vec![9; 40]].concat(),
        Vec::new(),
        with(number(26), &r, &s),
        with([vec![1], vec![0; 30], vec![27]].concat(), &r, &s),
        with(v.clone(), &[0; 32], &s),
        with(v.clone(), &r, &[0; 32]),
        with(v, &[0xff; 32], &s),
    ]
}

fn modexp_input(base: &[u8], exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let lengths = [base, exponent, modulus].map(|part| number(part.len() as u64)).concat();
    [lengths, base.to_vec(), exponent.to_vec(), modulus.to_vec()].concat()
}

fn modexp() -> Vec<Vec<u8>> {
    let lengths = |base: u64, exponent: u64, modulus: u64| [base, exponent, modulus].map(number).concat();
    vec![
        modexp_input(&[3], &[5], &[100]),
        modexp_input(&[], &[], &[]),
        modexp_input(&[], &[], &[7]),
        modexp_input(&[2], &[0], &[1]),
        modexp_input(&[2], &[9], &[0]),
        modexp_input(&[0xff; 64], &[0xfe; 32], &[0xfd; 64]),
        modexp_input(&[0xff; 64], &[0xfe; 40], &[0xfd; 64]),
        modexp_input(&[0x81; 256], &[1, 0, 1], &[0x83; 256]),
        modexp_input(&[1; 1024], &[2], &[3; 1024]),
        // EIP-7823 refuses these from Osaka on.
        modexp_input(&[1; 1025], &[2], &[3]),
        lengths(0, 1 << 40, 1),
        lengths(u64::MAX, 0, 0),
        vec![0xff; 96],
    ]
}

fn bn254_add() -> Vec<Vec<u8>> {
    let (one, two) = (number(1), number(2));
    let generator = [one.clone(), two.clone()].concat();
    vec![
        [generator.clone(), generator.clone()].concat(),
        [generator.clone(), vec![0; 64]].concat(),
        Vec::new(),
        generator.clone(),
        [one.clone(), one].concat(),
        [vec![0xff; 64], generator].concat(),
    ]
}

fn bn254_mul() -> Vec<Vec<u8>> {
    let generator = [number(1), number(2)].concat();
    vec![
        [generator.clone(), number(9)].concat(),
        [generator.clone(), vec![0xff; 32]].concat(),
        [generator.clone(), number(0)].concat(),
        [vec![0; 64], number(3)].concat(),
        [number(2), number(2), number(3)].concat(),
        generator,
    ]
}

fn bn254_pairing() -> Vec<Vec<u8>> {
    let g2 = hex("198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2\
         1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed\
         090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b\
         12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa");
    let g1 = [number(1), number(2)].concat();
    let negative_y = hex("30644e72e131a029b85045b68181585d97816a916871ca8d3c208c16d87cfd45");
    let opposite = [number(1), negative_y].concat();
    vec![
        Vec::new(),
        [g1.clone(), g2.clone(), opposite, g2.clone()].concat(),
        [g1.clone(), g2.clone()].concat(),
        [g1.clone(), g2.clone(), vec![0]].concat(),
        [vec![0; 64], g2.clone()].concat(),
        [g1.clone(), vec![0; 128]].concat(),
        [g1, vec![1; 128]].concat(),
    ]
}

fn blake2f() -> Vec<Vec<u8>> {
    let state = hex("48c9bdf267e6096a3ba7ca8485ae67bb2bf894fe72f36e3cf1361d5f3af54fa5\
         d182e6ad7f520e511f6c3e2b8c68059b6bbd41fbabd9831f79217e1319cde05b");
    let message = [b"abc".to_vec(), vec![0; 125]].concat();
    let input = |rounds: u32, last: u8| {
        let head = [rounds.to_be_bytes().to_vec(), state.clone(), message.clone()].concat();
        [head, vec![3, 0, 0, 0, 0, 0, 0, 0], vec![0; 8], vec![last]].concat()
    };
    vec![
        input(12, 1),
        input(12, 0),
        input(0, 1),
        input(1, 2),
        input(12, 1)[..212].to_vec(),
        input(u32::MAX, 1),
        Vec::new(),
    ]
}

/// The constant polynomial zero: commitment and proof are the point at infinity.
fn kzg() -> Vec<Vec<u8>> {
    let infinity = [vec![0xc0], vec![0; 47]].concat();
    // SHA-256 of the commitment, its first byte replaced by the version.
    let versioned = hex("010657f37554c781402a22917dee2f75def7ab966d7b770905398eba3c444014");
    let input = |versioned: &[u8], y: u64| {
        [versioned.to_vec(), number(5), number(y), infinity.clone(), infinity.clone()].concat()
    };
    vec![
        input(&versioned, 0),
        input(&versioned, 1),
        input(&[1; 32], 0),
        input(&versioned, 0)[..191].to_vec(),
        Vec::new(),
    ]
}

fn kzg_answer() -> Vec<u8> {
    let modulus = hex("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001");
    [number(4096), modulus].concat()
}

fn padded(field: &str) -> Vec<u8> {
    [vec![0; 16], hex(field)].concat()
}

fn g1() -> Vec<u8> {
    [
        padded("17f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"),
        padded("08b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1"),
    ]
    .concat()
}

fn g2() -> Vec<u8> {
    [
        padded("024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"),
        padded("13e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"),
        padded("0ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801"),
        padded("0606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be"),
    ]
    .concat()
}

fn negative_g1() -> Vec<u8> {
    let y = padded(
        "114d1d6855d545a8aa7d76c8cf2e21f267816aef1db507c96655b9d5caac42364e6f38ba0ecb751bad54dcd6b939c2ca",
    );
    [g1()[..64].to_vec(), y].concat()
}

fn pairs(point: Vec<u8>, count: usize) -> Vec<Vec<u8>> {
    let infinity = vec![0; point.len()];
    let mut bad = point.clone();
    bad[0] = 1;
    let mut off_curve = point.clone();
    off_curve[point.len() - 1] ^= 1;
    vec![
        point.repeat(count),
        [point.clone(), infinity.clone()].concat(),
        infinity.repeat(count),
        [bad, point.clone()].concat(),
        [off_curve, point.clone()].concat(),
        point,
        Vec::new(),
    ]
}

fn scaled(point: Vec<u8>) -> Vec<Vec<u8>> {
    let one = [point.clone(), number(7)].concat();
    let two = [one.clone(), point.clone(), vec![0xff; 32]].concat();
    let zero = [point.clone(), number(0)].concat();
    let infinity = [vec![0; point.len()], number(3)].concat();
    vec![one.clone(), two, zero, infinity, one.repeat(5), one[..one.len() - 1].to_vec(), Vec::new()]
}

fn bls_pairing() -> Vec<Vec<u8>> {
    vec![
        [g1(), g2(), negative_g1(), g2()].concat(),
        [g1(), g2()].concat(),
        [vec![0; 128], g2()].concat(),
        [g1(), vec![0; 256]].concat(),
        vec![0; 384],
        [g1(), g2()][..1].concat(),
        Vec::new(),
    ]
}

fn field_elements(count: usize) -> Vec<Vec<u8>> {
    let element = |byte: u8| [vec![0; 16], vec![byte; 48]].concat();
    let modulus = padded(
        "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
    );
    vec![
        element(1).repeat(count),
        element(0).repeat(count),
        [element(0x11), element(0x12)][..count].concat(),
        modulus.repeat(count),
        vec![1; 64 * count],
        element(1).repeat(count)[1..].to_vec(),
        Vec::new(),
    ]
}

fn p256() -> Vec<Vec<u8>> {
    let good = hex("4cee90eb86eaa050036147a12d49004b6b9c72bd725d39d4785011fe190f0b4d\
         a73bd4903f0ce3b639bbbf6e8e80d16931ff4bcf5993d58468e8fb19086e8cac\
         36dbcd03009df8c59286b162af3bd7fcc0450c9aa81be5d10d312af6c66b1d60\
         4aebd3099c618202fcfe16ae7770b0c49ab5eadf74b754204a3bb6060e44eff3\
         7618b065f9832de4ca6ca971a7a1adc826d0f7c00181a5fb2ddf79ae00b4e10e");
    let mut wrong = good.clone();
    wrong[5] ^= 1;
    vec![good.clone(), wrong, good[..159].to_vec(), Vec::new()]
}
