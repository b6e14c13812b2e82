//! Certificates against a set, and key material.

use crate::codec::{canonical, certificate};
use crate::reader::Reader;
use crypto::bls::{aggregate, verify_aggregate};
use crypto::{Domain, PublicKey, SecretKey, Signature, VerifyingKey};
use std::sync::LazyLock;
use types::evidence::Joint;
use types::vote::{Signed, Statement};
use types::{
    Address, B256, CommitQc, CommitVote, Epoch, Evidence, Height, PrepareVote, ProposalVote, Qc, QuorumRule,
    SignerSet, Stake, Tc, TimeoutGroup, TimeoutReason, TimeoutVote, Validator, ValidatorIndex, ValidatorSet,
    View, Witness,
};

/// Uneven on purpose: no count of heads says anything about stake.
const STAKES: [u128; 11] = [40, 1, 7, 7, 7, 7, 7, 7, 7, 7, 3];

pub static SET: LazyLock<ValidatorSet> = LazyLock::new(|| {
    let validators = STAKES.iter().enumerate().map(|(i, stake)| Validator {
        address: Address::repeat_byte(i as u8 + 1),
        public_key: SecretKey::simulated(i as u64).public_key(),
        stake: Stake::new(*stake),
    });
    ValidatorSet::simulated(Epoch::new(2), validators.collect(), QuorumRule::default()).unwrap()
});

pub fn domain() -> Domain {
    Domain { chain_id: 31337, genesis_hash: B256::repeat_byte(0x11), epoch: 2 }
}

/// Certificates of any bytes (an odd first byte), or well-signed ones with edits (an even one). What verifies has the
/// epoch, the quorum and the shape that the rules ask for; a certificate with an edit does not verify.
pub fn certificates(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if reader.byte() % 2 == 1 {
        let (qc, commit, tc) = certificate(reader.take(usize::MAX));
        let _ = (qc.map(|qc| judge(&qc)), commit.map(|qc| judge(&qc)), tc.map(|tc| judge(&tc)));
        return;
    }
    let signers = SignerSet::of(
        SET.len(),
        SET.indices().filter(|i| i.get() % 11 != 5 || reader.byte().is_multiple_of(2)),
    );
    match reader.below(3) {
        0 => edited(&mut reader, &qc(&signers)),
        1 => edited(&mut reader, &commit_qc(&signers)),
        _ => {
            let groups = 1 + reader.below(4);
            edited(&mut reader, &tc(&signers, groups));
        }
    }
}

trait Certificate: borsh::BorshSerialize + borsh::BorshDeserialize + PartialEq + std::fmt::Debug {
    fn is_valid(&self) -> bool;
    fn epoch(&self) -> Epoch;
    fn everyone(&self) -> SignerSet;
}

impl Certificate for Qc {
    fn is_valid(&self) -> bool {
        self.verify(&SET, &domain()).is_ok()
    }
    fn epoch(&self) -> Epoch {
        self.epoch
    }
    fn everyone(&self) -> SignerSet {
        self.signers.clone()
    }
}

impl Certificate for CommitQc {
    fn is_valid(&self) -> bool {
        self.verify(&SET, &domain()).is_ok()
    }
    fn epoch(&self) -> Epoch {
        self.epoch
    }
    fn everyone(&self) -> SignerSet {
        self.signers.clone()
    }
}

impl Certificate for Tc {
    fn is_valid(&self) -> bool {
        self.verify(&SET, &domain()).is_ok()
    }
    fn epoch(&self) -> Epoch {
        self.epoch
    }
    fn everyone(&self) -> SignerSet {
        self.signers(&SET)
    }
}

fn judge<C: Certificate>(certificate: &C) -> bool {
    if !certificate.is_valid() {
        return false;
    }
    assert_eq!(certificate.epoch(), SET.epoch());
    let signers = certificate.everyone();
    assert!(signers.fits(SET.len()));
    let stake: u128 = (0..STAKES.len()).filter(|i| signers.contains(index(*i))).map(|i| STAKES[i]).sum();
    assert!(stake * 3 >= STAKES.iter().sum::<u128>() * 2, "{stake} is no quorum");
    true
}

/// Puts bytes of the input into a good certificate.
fn edited<C: Certificate>(reader: &mut Reader<'_>, good: &C) {
    assert!(judge(good), "a good certificate is refused: {good:?}");
    let mut bytes = types::encode(good);
    while !reader.is_empty() {
        let at = usize::from(reader.word()) % bytes.len();
        bytes[at] ^= reader.byte();
    }
    if let Some(other) = canonical::<C>(&bytes) {
        assert_eq!(judge(&other), other == *good, "an edited certificate verifies: {other:?}");
    }
}

fn index(i: usize) -> ValidatorIndex {
    ValidatorIndex::new(i as u32)
}

fn sign<S: Statement + Copy>(statement: S, signers: &SignerSet) -> Vec<Signature> {
    let sign = |i: ValidatorIndex| {
        Signed::new(statement, i, &SecretKey::simulated(i.get().into()), &domain()).signature
    };
    signers.iter().map(sign).collect()
}

pub fn qc(signers: &SignerSet) -> Qc {
    let vote = PrepareVote {
        source_view: View::new(4),
        source_hash: B256::repeat_byte(4),
        target_view: View::new(6),
        height: Height::new(70),
        block_hash: B256::repeat_byte(6),
    };
    let signature = aggregate(&sign(vote, signers)).unwrap();
    Qc { epoch: SET.epoch(), vote, signers: signers.clone(), signature }
}

pub fn commit_qc(signers: &SignerSet) -> CommitQc {
    let vote = CommitVote { view: View::new(6), height: Height::new(70), block_hash: B256::repeat_byte(6) };
    let signature = aggregate(&sign(vote, signers)).unwrap();
    CommitQc { epoch: SET.epoch(), vote, signers: signers.clone(), signature }
}

/// Signers in turns say they last prepared in another view.
pub fn tc(signers: &SignerSet, groups: usize) -> Tc {
    let high_qc = qc(&SignerSet::of(SET.len(), SET.indices()));
    let (mut built, mut signatures) = (Vec::new(), Vec::new());
    for group in 0..groups {
        let members =
            signers.iter().enumerate().filter(|(i, _)| i % groups == group).map(|(_, signer)| signer);
        let members = SignerSet::of(SET.len(), members);
        let vote = TimeoutVote {
            view: View::new(9),
            high_qc_view: high_qc.view(),
            last_prepared_view: View::new(6 + group as u64),
            reason: TimeoutReason::Expired,
        };
        signatures.extend(sign(vote, &members));
        let TimeoutVote { high_qc_view, last_prepared_view, reason, .. } = vote;
        built.push(TimeoutGroup { high_qc_view, last_prepared_view, reason, signers: members });
    }
    let signature = aggregate(&signatures).unwrap();
    Tc { epoch: SET.epoch(), view: View::new(9), groups: built, signature, high_qc: Some(high_qc) }
}

/// A key (48 bytes), a signature (96 bytes) and a message, as they come from outside. Curve points that are accepted
/// print as the bytes they came from, and nothing else verifies under an honest key.
pub fn bls(bytes: &[u8]) {
    static HONEST: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::from_seed(&[1; 32]));
    let mut reader = Reader::new(bytes);
    let (mut key, mut signature) = (PublicKey([0; 48]), Signature([0; 96]));
    let (raw_key, raw_signature) = (reader.take(48), reader.take(96));
    key.0[..raw_key.len()].copy_from_slice(raw_key);
    signature.0[..raw_signature.len()].copy_from_slice(raw_signature);
    let message = reader.take(usize::MAX);
    let honest = VerifyingKey::try_from(HONEST.public_key()).unwrap();
    assert_eq!(honest.verify(message, &signature), signature == HONEST.sign(message));
    let _ = aggregate(&[signature, HONEST.sign(message)]);
    if let Ok(point) = VerifyingKey::try_from(key) {
        assert_eq!(point.to_bytes(), key);
        assert_eq!(point.verify(message, &signature), verify_aggregate(&[&point], message, &signature));
        assert!(!verify_aggregate(&[&honest, &point], message, &HONEST.sign(message)));
    }
}

/// Evidence of any bytes (an odd first byte), or of two statements that the bytes choose and several validators signed
/// (an even one). It has one encoding, accuses members who signed both statements, verifies when they did, and does not
/// with an edit.
pub fn evidence(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    if reader.byte() % 2 == 1 {
        let body = reader.take(usize::MAX);
        if let Ok(evidence) = Evidence::decode(body) {
            assert_eq!(types::encode(&evidence), body);
            accused(&evidence);
        }
        return;
    }
    let (first, second) = (witness(&mut reader), witness(&mut reader));
    let mut good = match Evidence::new(SET.epoch(), first.clone(), second.clone()) {
        Ok(evidence) => evidence,
        Err(_) => return,
    };
    assert_eq!(
        Evidence::new(SET.epoch(), second, first),
        Ok(good.clone()),
        "the order given does not matter"
    );
    assert!(accused(&good), "good evidence is refused: {good:?}");
    let mut bytes = types::encode(&good);
    while !reader.is_empty() {
        let at = usize::from(reader.word()) % bytes.len();
        bytes[at] ^= reader.byte();
    }
    if let Ok(other) = Evidence::decode(&bytes) {
        assert_eq!(accused(&other), other == good, "edited evidence verifies: {other:?}");
        good = other;
    }
    let _ = good.offenders();
}

/// Whether evidence verifies.
fn accused(evidence: &Evidence) -> bool {
    let accusation = evidence.accusation().unwrap();
    assert!(!accusation.offenders.is_empty());
    assert!(accusation.offenders.windows(2).all(|pair| pair[0] < pair[1]));
    match evidence.verify(&SET, &domain()) {
        Ok(guilty) => {
            assert!(guilty.iter().all(|index| SET.get(*index).is_some()));
            assert_eq!(guilty, accusation.offenders);
            guilty.iter().for_each(|index| assert!(evidence.id(*index).is_ok()));
            true
        }
        Err(_) => false,
    }
}

/// A statement of small numbers, by one validator or by several.
fn witness(reader: &mut Reader<'_>) -> Witness {
    let signers = SignerSet::of(SET.len(), SET.indices().filter(|_| reader.byte().is_multiple_of(4)));
    let signer = index(reader.below(SET.len()));
    let mut number = || View::new(u64::from(reader.byte() % 8));
    let (a, b) = (number(), number());
    let block_hash = B256::repeat_byte(reader.byte() % 4);
    let link = PrepareVote {
        source_view: a,
        source_hash: B256::ZERO,
        target_view: b,
        height: Height::new(1),
        block_hash,
    };
    let commit = CommitVote { view: a, height: Height::new(1), block_hash };
    let timeout =
        TimeoutVote { view: a, high_qc_view: b, last_prepared_view: b, reason: TimeoutReason::Expired };
    let proposal = ProposalVote { view: a, block_hash };
    let alone = signers.count() == 0;
    match reader.byte() % 4 {
        0 if alone => Witness::Commit(signed(signer, commit)),
        0 => Witness::Commits(joint(commit, signers)),
        1 if alone => Witness::Prepare(signed(signer, link)),
        1 => Witness::Prepares(joint(link, signers)),
        2 => Witness::Timeout(signed(signer, timeout)),
        _ => Witness::Proposal(signed(signer, proposal)),
    }
}

fn signed<S: Statement>(signer: ValidatorIndex, statement: S) -> Signed<S> {
    Signed::new(statement, signer, &SecretKey::simulated(signer.get().into()), &domain())
}

fn joint<S: Statement + Copy>(statement: S, signers: SignerSet) -> Joint<S> {
    let signature = aggregate(&sign(statement, &signers)).unwrap();
    Joint { statement, signers, signature }
}

/// Two commits of one view, and what is left of it as bytes.
pub fn evidence_seeds() -> Vec<Vec<u8>> {
    let everyone = SignerSet::of(SET.len(), SET.indices());
    let commit =
        |hash| CommitVote { view: View::new(3), height: Height::new(1), block_hash: B256::repeat_byte(hash) };
    let double = [1, 2].map(|hash| Witness::Commits(joint(commit(hash), everyone.clone())));
    let [first, second] = double;
    let bytes = types::encode(&Evidence::new(SET.epoch(), first, second).unwrap());
    let chosen = |kinds: [u8; 2], hashes: [u8; 2]| {
        let one = |kind: u8, hash: u8| [&[0; 11][..], &[0, 3, 5, hash, kind]].concat();
        [vec![0], one(kinds[0], hashes[0]), one(kinds[1], hashes[1])].concat()
    };
    vec![[vec![1], bytes].concat(), chosen([0, 0], [1, 2]), chosen([1, 1], [1, 2]), chosen([3, 3], [1, 2])]
}
