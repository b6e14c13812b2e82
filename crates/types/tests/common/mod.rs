//! Fixtures shared by the tests: fixed keys, sets and objects, and [`Layout`], a second writer of the canonical
//! encoding that knows nothing of borsh's derive.
#![allow(dead_code, clippy::unwrap_used)]

use crypto::bls::aggregate;
use crypto::{SecretKey, SignatureKind};
use types::block::{Block, Checkpoint, Header, Justify, SystemInputs, randao_mix};
use types::vote::{Signed, Statement, randao_bytes};
use types::{
    Address, B256, CommitQc, CommitVote, Domain, Epoch, Height, PrepareVote, PublicKey, Qc, QuorumRule,
    RejectionCode, Signature, SignerSet, Stake, Tc, TimeoutGroup, TimeoutReason, TimeoutVote, Validator,
    ValidatorIndex, ValidatorSet, View,
};

pub const CHAIN_ID: u64 = 31337;

/// Key `n` is derived from 32 bytes of value `n`; validator `i` of every set holds key `i + 1`.
pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number; 32])
}

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

pub fn derive(context: &str, input: &[u8]) -> B256 {
    B256::from(*blake3::Hasher::new_derive_key(context).update(input).finalize().as_bytes())
}

pub fn domain() -> Domain {
    Domain { chain_id: CHAIN_ID, genesis_hash: B256::repeat_byte(0x11), epoch: 0 }
}

pub fn set_of(epoch: u64, stakes: &[u128]) -> ValidatorSet {
    let validators = stakes.iter().enumerate().map(|(i, stake)| Validator {
        address: Address::repeat_byte(0xa0 + i as u8),
        public_key: key(i as u8 + 1).public_key(),
        stake: Stake::new(*stake),
    });
    ValidatorSet::new(Epoch::new(epoch), validators.collect(), QuorumRule::default()).unwrap()
}

/// Four equal validators of epoch 0: the set of every certificate unless said otherwise. Quorum 3.
pub fn four() -> ValidatorSet {
    set_of(0, &[1, 1, 1, 1])
}

pub fn signers(n: usize, indices: &[u32]) -> SignerSet {
    SignerSet::of(n, indices.iter().copied().map(ValidatorIndex::new))
}

pub fn sign(statement: &impl Statement, domain: &Domain, indices: &[u32]) -> Signature {
    let bytes = statement.signing_bytes(domain);
    let signatures: Vec<_> = indices.iter().map(|i| key(*i as u8 + 1).sign(&bytes)).collect();
    aggregate(&signatures).unwrap()
}

pub fn signed<S: Statement>(statement: S, index: u32) -> Signed<S> {
    Signed::new(statement, ValidatorIndex::new(index), &key(index as u8 + 1), &domain())
}

// Statements.

pub fn prepare_vote(source: u64, target: u64) -> PrepareVote {
    PrepareVote {
        source_view: View::new(source),
        source_hash: B256::repeat_byte(source as u8),
        target_view: View::new(target),
        height: Height::new(target),
        block_hash: B256::repeat_byte(target as u8),
    }
}

pub fn commit_vote(view: u64) -> CommitVote {
    CommitVote { view: View::new(view), height: Height::new(view), block_hash: B256::repeat_byte(view as u8) }
}

pub fn timeout_vote(view: u64, high_qc: u64, prepared: u64, reason: TimeoutReason) -> TimeoutVote {
    TimeoutVote {
        view: View::new(view),
        high_qc_view: View::new(high_qc),
        last_prepared_view: View::new(prepared),
        reason,
    }
}

pub fn rejected() -> TimeoutReason {
    TimeoutReason::Rejected { block_hash: B256::repeat_byte(0xbb), code: RejectionCode::StateHashMismatch }
}

// Certificates.

pub fn qc_by(set: &ValidatorSet, domain: &Domain, vote: PrepareVote, indices: &[u32]) -> Qc {
    let signature = sign(&vote, domain, indices);
    Qc { epoch: set.epoch(), vote, signers: signers(set.len(), indices), signature }
}

pub fn qc(source: u64, target: u64) -> Qc {
    qc_by(&four(), &domain(), prepare_vote(source, target), &[0, 1, 3])
}

pub fn commit_qc_by(set: &ValidatorSet, domain: &Domain, vote: CommitVote, indices: &[u32]) -> CommitQc {
    let signature = sign(&vote, domain, indices);
    CommitQc { epoch: set.epoch(), vote, signers: signers(set.len(), indices), signature }
}

pub fn commit_qc(view: u64) -> CommitQc {
    commit_qc_by(&four(), &domain(), commit_vote(view), &[0, 2, 3])
}

pub fn tc_by(
    set: &ValidatorSet,
    domain: &Domain,
    votes: &[(TimeoutVote, &[u32])],
    high_qc: Option<Qc>,
) -> Tc {
    let parts: Vec<_> = votes.iter().map(|(vote, indices)| sign(vote, domain, indices)).collect();
    let groups = votes.iter().map(|(vote, indices)| TimeoutGroup {
        high_qc_view: vote.high_qc_view,
        last_prepared_view: vote.last_prepared_view,
        reason: vote.reason,
        signers: signers(set.len(), indices),
    });
    let signature = aggregate(&parts).unwrap();
    Tc { epoch: set.epoch(), view: votes[0].0.view, groups: groups.collect(), signature, high_qc }
}

/// View 7 given up by three groups, the highest of which knows the certificate of view 5.
pub fn tc() -> Tc {
    let votes: [(TimeoutVote, &[u32]); 3] = [
        (timeout_vote(7, 0, 0, TimeoutReason::Expired), &[2]),
        (timeout_vote(7, 5, 7, TimeoutReason::Expired), &[0, 3]),
        (timeout_vote(7, 5, 7, rejected()), &[1]),
    ];
    tc_by(&four(), &domain(), &votes, Some(qc(4, 5)))
}

/// View 1 given up by everybody who signed, with nothing certified yet.
pub fn tc_without_certificate() -> Tc {
    let vote = timeout_vote(1, 0, 0, TimeoutReason::Expired);
    tc_by(&four(), &domain(), &[(vote, &[0, 1, 2])], None)
}

// Blocks.

pub fn system_inputs() -> SystemInputs {
    SystemInputs { randao_mix: B256::repeat_byte(0x77), ..SystemInputs::default() }
}

pub fn full_system_inputs() -> SystemInputs {
    SystemInputs {
        randao_mix: B256::repeat_byte(0x77),
        evidence: vec![b"evidence".to_vec(), Vec::new()],
        liveness: vec![vec![1, 2, 3]],
        penalties: Some(b"report".to_vec()),
    }
}

pub fn header(view: u64, justify: Justify, timeout: Option<Tc>, last_commit: Option<CommitQc>) -> Header {
    let (height, parent_hash) = match &justify {
        Justify::Prepare(qc) => (qc.vote.height.next(), qc.vote.block_hash),
        Justify::EpochBoundary(qc) => (qc.vote.height.next(), qc.vote.block_hash),
        Justify::Genesis => (Height::new(1), domain().genesis_hash),
    };
    Header {
        chain_id: CHAIN_ID,
        epoch: Epoch::ZERO,
        epoch_start_height: Height::new(1),
        height,
        view: View::new(view),
        parent_hash,
        timestamp_ms: 1_700_000_000_000 + view,
        proposer: ValidatorIndex::new(2),
        fee_recipient: Address::repeat_byte(0xfe),
        validator_set_id: four().id(),
        next_validator_set_id: B256::repeat_byte(0x4e),
        payload_commitment: crypto::merkle::payload_root(b"payload"),
        state_hash: B256::repeat_byte(0x51),
        receipts_hash: B256::repeat_byte(0x52),
        checkpoint: Checkpoint { height: Height::new(0), root: B256::ZERO },
        randao_reveal: key(3).sign(&randao_bytes(&domain(), View::new(view))),
        justify,
        timeout,
        last_commit,
        system_inputs_hash: system_inputs().hash(),
    }
}

pub fn headers() -> Vec<(&'static str, Header)> {
    let mut boundary = header(1, Justify::EpochBoundary(commit_qc(32)), None, None);
    boundary.checkpoint = Checkpoint { height: Height::new(32), root: B256::repeat_byte(0xcc) };
    vec![
        ("first block", header(1, Justify::Genesis, None, None)),
        ("consecutive views", header(6, Justify::Prepare(qc(4, 5)), None, Some(commit_qc(4)))),
        ("after skipped views", header(8, Justify::Prepare(qc(4, 5)), Some(tc()), Some(commit_qc(5)))),
        (
            "first block after a failed view 1",
            header(2, Justify::Genesis, Some(tc_without_certificate()), None),
        ),
        ("first block of a later epoch", boundary),
    ]
}

pub fn block() -> Block {
    let header = header(6, Justify::Prepare(qc(4, 5)), None, Some(commit_qc(4)));
    Block { header, system_inputs: system_inputs(), payload: b"payload".to_vec() }
}

// The second writer.

/// Named fields in order, each with its bytes: specs/block.md, B-0, spelled out.
#[derive(Clone, Default)]
pub struct Layout(Vec<(String, Vec<u8>)>);

impl Layout {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.0.push((name.to_owned(), bytes.as_ref().to_vec()));
        self
    }

    pub fn u8(self, name: &str, value: u8) -> Self {
        self.raw(name, [value])
    }

    pub fn u32(self, name: &str, value: u32) -> Self {
        self.raw(name, value.to_le_bytes())
    }

    pub fn u64(self, name: &str, value: u64) -> Self {
        self.raw(name, value.to_le_bytes())
    }

    pub fn u128(self, name: &str, value: u128) -> Self {
        self.raw(name, value.to_le_bytes())
    }

    /// A byte string of variable length: its length, then the bytes.
    pub fn string(self, name: &str, bytes: &[u8]) -> Self {
        self.u32(&format!("{name}.length"), bytes.len() as u32).raw(name, bytes)
    }

    pub fn list<T>(self, name: &str, items: &[T], each: impl Fn(&T) -> Self) -> Self {
        let start = self.u32(&format!("{name}.count"), items.len() as u32);
        items.iter().enumerate().fold(start, |l, (i, item)| l.nested(&format!("{name}[{i}]"), each(item)))
    }

    pub fn option<T>(self, name: &str, value: &Option<T>, inner: impl Fn(&T) -> Self) -> Self {
        match value {
            None => self.u8(&format!("{name}.present"), 0),
            Some(value) => self.u8(&format!("{name}.present"), 1).nested(name, inner(value)),
        }
    }

    pub fn nested(mut self, name: &str, inner: Self) -> Self {
        self.0.extend(inner.0.into_iter().map(|(field, bytes)| (format!("{name}.{field}"), bytes)));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// One line per field: `name = hex`.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(name, bytes)| format!("{name} = {}", hex::encode(bytes))).collect()
    }
}

pub fn prepare_layout(vote: &PrepareVote) -> Layout {
    Layout::new()
        .u64("source_view", vote.source_view.get())
        .raw("source_hash", vote.source_hash)
        .u64("target_view", vote.target_view.get())
        .u64("height", vote.height.get())
        .raw("block_hash", vote.block_hash)
}

pub fn commit_layout(vote: &CommitVote) -> Layout {
    Layout::new()
        .u64("view", vote.view.get())
        .u64("height", vote.height.get())
        .raw("block_hash", vote.block_hash)
}

pub fn reason_layout(reason: &TimeoutReason) -> Layout {
    match reason {
        TimeoutReason::Expired => Layout::new().u8("tag", 0),
        TimeoutReason::Rejected { block_hash, code } => {
            Layout::new().u8("tag", 1).raw("block_hash", block_hash).u8("code", *code as u8)
        }
    }
}

pub fn timeout_layout(vote: &TimeoutVote) -> Layout {
    Layout::new()
        .u64("view", vote.view.get())
        .u64("high_qc_view", vote.high_qc_view.get())
        .u64("last_prepared_view", vote.last_prepared_view.get())
        .nested("reason", reason_layout(&vote.reason))
}

/// The bitmap of a set of `n`: bit `i mod 8` of byte `i / 8`.
pub fn bitmap(n: usize, signers: &SignerSet) -> Vec<u8> {
    let mut bytes = vec![0u8; n.div_ceil(8)];
    signers.iter().for_each(|i| bytes[i.get() as usize / 8] |= 1 << (i.get() % 8));
    bytes
}

pub fn qc_layout(qc: &Qc) -> Layout {
    Layout::new()
        .u64("epoch", qc.epoch.get())
        .nested("vote", prepare_layout(&qc.vote))
        .string("signers", &bitmap(4, &qc.signers))
        .raw("signature", qc.signature.0)
}

pub fn commit_qc_layout(qc: &CommitQc) -> Layout {
    Layout::new()
        .u64("epoch", qc.epoch.get())
        .nested("vote", commit_layout(&qc.vote))
        .string("signers", &bitmap(4, &qc.signers))
        .raw("signature", qc.signature.0)
}

pub fn tc_layout(tc: &Tc) -> Layout {
    let group = |group: &TimeoutGroup| {
        Layout::new()
            .u64("high_qc_view", group.high_qc_view.get())
            .u64("last_prepared_view", group.last_prepared_view.get())
            .nested("reason", reason_layout(&group.reason))
            .string("signers", &bitmap(4, &group.signers))
    };
    Layout::new()
        .u64("epoch", tc.epoch.get())
        .u64("view", tc.view.get())
        .list("groups", &tc.groups, group)
        .raw("signature", tc.signature.0)
        .option("high_qc", &tc.high_qc, qc_layout)
}

pub fn header_layout(header: &Header) -> Layout {
    let justify = match &header.justify {
        Justify::Genesis => Layout::new().u8("tag", 0),
        Justify::EpochBoundary(qc) => Layout::new().u8("tag", 1).nested("commit_qc", commit_qc_layout(qc)),
        Justify::Prepare(qc) => Layout::new().u8("tag", 2).nested("qc", qc_layout(qc)),
    };
    Layout::new()
        .u64("chain_id", header.chain_id)
        .u64("epoch", header.epoch.get())
        .u64("epoch_start_height", header.epoch_start_height.get())
        .u64("height", header.height.get())
        .u64("view", header.view.get())
        .raw("parent_hash", header.parent_hash)
        .u64("timestamp_ms", header.timestamp_ms)
        .u32("proposer", header.proposer.get())
        .raw("fee_recipient", header.fee_recipient)
        .raw("validator_set_id", header.validator_set_id)
        .raw("next_validator_set_id", header.next_validator_set_id)
        .raw("payload_commitment", header.payload_commitment)
        .raw("state_hash", header.state_hash)
        .raw("receipts_hash", header.receipts_hash)
        .u64("checkpoint.height", header.checkpoint.height.get())
        .raw("checkpoint.root", header.checkpoint.root)
        .raw("randao_reveal", header.randao_reveal.0)
        .nested("justify", justify)
        .option("timeout", &header.timeout, tc_layout)
        .option("last_commit", &header.last_commit, commit_qc_layout)
        .raw("system_inputs_hash", header.system_inputs_hash)
}

pub fn inputs_layout(inputs: &SystemInputs) -> Layout {
    let item = |bytes: &Vec<u8>| Layout::new().string("bytes", bytes);
    Layout::new()
        .raw("randao_mix", inputs.randao_mix)
        .list("evidence", &inputs.evidence, item)
        .list("liveness", &inputs.liveness, item)
        .option("penalties", &inputs.penalties, item)
}

pub fn block_layout(block: &Block) -> Layout {
    Layout::new()
        .nested("header", header_layout(&block.header))
        .nested("system_inputs", inputs_layout(&block.system_inputs))
        .string("payload", &block.payload)
}

/// The set's identifier: epoch, members, quorum rule (B-8).
pub fn set_layout(set: &ValidatorSet, rule: QuorumRule) -> Layout {
    let member = |v: &Validator| {
        Layout::new().raw("address", v.address).raw("public_key", v.public_key.0).u128("stake", v.stake.get())
    };
    Layout::new()
        .u64("epoch", set.epoch().get())
        .list("validators", set.validators(), member)
        .u8("quorum.numerator", rule.numerator)
        .u8("quorum.denominator", rule.denominator)
}

/// C-1.5, spelled out.
pub fn signing_bytes(domain: &Domain, kind: SignatureKind, body: &[u8]) -> Vec<u8> {
    let number = match kind {
        SignatureKind::Prepare => 1,
        SignatureKind::Commit => 2,
        SignatureKind::Timeout => 3,
        SignatureKind::Proposal => 4,
        SignatureKind::Randao => 5,
        SignatureKind::PeerBinding => 6,
    };
    Layout::new()
        .raw("tandem", b"tandem")
        .u64("chain_id", domain.chain_id)
        .raw("genesis_hash", domain.genesis_hash)
        .u64("epoch", domain.epoch)
        .u8("kind", number)
        .u8("version", 1)
        .raw("body", body)
        .bytes()
}

/// The RANDAO mix after a block on `parent`.
pub fn mix_after(parent: B256, reveal: &Signature) -> B256 {
    let mix = derive("tandem v1 randao mix", &[parent.as_slice(), &reveal.0].concat());
    assert_eq!(mix, randao_mix(parent, reveal));
    mix
}

pub fn public(number: u8) -> PublicKey {
    key(number).public_key()
}

// What must be refused.

/// A certificate of any kind.
#[derive(Clone, Debug)]
pub enum Certificate {
    Qc(Qc),
    Tc(Tc),
    Commit(CommitQc),
}

impl Certificate {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Qc(_) => "qc",
            Self::Tc(_) => "tc",
            Self::Commit(_) => "commit_qc",
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Qc(qc) => types::encode(qc),
            Self::Tc(tc) => types::encode(tc),
            Self::Commit(qc) => types::encode(qc),
        }
    }

    pub fn verify(&self, set: &ValidatorSet, domain: &Domain) -> Result<(), types::CertificateError> {
        match self {
            Self::Qc(qc) => qc.verify(set, domain),
            Self::Tc(tc) => tc.verify(set, domain),
            Self::Commit(qc) => qc.verify(set, domain),
        }
    }
}

/// A bitmap made of raw bytes, also of ones that no set could have made.
pub fn raw_bitmap(bytes: &[u8]) -> SignerSet {
    types::decode(&types::encode(&bytes.to_vec())).unwrap()
}

/// Name, certificate and the [`types::CertificateError`] that [`four`] must answer under [`domain`].
pub fn refused_certificates() -> Vec<(&'static str, Certificate, &'static str)> {
    let mut all = refused_qcs();
    all.extend(refused_commits());
    all.extend(refused_tcs());
    all
}

fn refused_qcs() -> Vec<(&'static str, Certificate, &'static str)> {
    let (good, set, vote) = (qc(4, 5), four(), prepare_vote(4, 5));
    let with = |change: &dyn Fn(&mut Qc)| {
        let mut qc = good.clone();
        change(&mut qc);
        Certificate::Qc(qc)
    };
    let in_domain = |domain: Domain| Certificate::Qc(qc_by(&set, &domain, vote, &[0, 1, 3]));
    let commit_bytes = sign(&commit_vote(5), &domain(), &[0, 1, 3]);
    let twice = aggregate(&[0, 1, 1].map(|i| key(i + 1).sign(&vote.signing_bytes(&domain())))).unwrap();
    vec![
        ("two of four signed", Certificate::Qc(qc_by(&set, &domain(), vote, &[0, 1])), "NoQuorum"),
        ("nobody signed", with(&|qc| qc.signers = signers(4, &[])), "NoQuorum"),
        ("claims a fourth signer", with(&|qc| qc.signers = signers(4, &[0, 1, 2, 3])), "BadSignature"),
        ("names another signer", with(&|qc| qc.signers = signers(4, &[0, 1, 2])), "BadSignature"),
        ("one signature added twice", with(&|qc| qc.signature = twice), "BadSignature"),
        ("bitmap names a fifth validator", with(&|qc| qc.signers = raw_bitmap(&[0b1_0111])), "BadBitmap"),
        ("bitmap of two bytes", with(&|qc| qc.signers = raw_bitmap(&[0b1011, 0])), "BadBitmap"),
        ("empty bitmap", with(&|qc| qc.signers = raw_bitmap(&[])), "BadBitmap"),
        ("another epoch", with(&|qc| qc.epoch = Epoch::new(1)), "WrongEpoch"),
        (
            "link to its own view",
            Certificate::Qc(qc_by(&set, &domain(), prepare_vote(5, 5), &[0, 1, 3])),
            "BackwardLink",
        ),
        (
            "link backwards",
            Certificate::Qc(qc_by(&set, &domain(), prepare_vote(6, 5), &[0, 1, 3])),
            "BackwardLink",
        ),
        ("another source", with(&|qc| qc.vote.source_view = View::new(3)), "BadSignature"),
        ("another block", with(&|qc| qc.vote.block_hash = B256::ZERO), "BadSignature"),
        ("another height", with(&|qc| qc.vote.height = Height::new(6)), "BadSignature"),
        ("signed for another chain id", in_domain(Domain { chain_id: 1, ..domain() }), "BadSignature"),
        (
            "signed for another genesis",
            in_domain(Domain { genesis_hash: B256::ZERO, ..domain() }),
            "BadSignature",
        ),
        ("signed for another epoch", in_domain(Domain { epoch: 1, ..domain() }), "BadSignature"),
        ("made of commit votes", with(&|qc| qc.signature = commit_bytes), "BadSignature"),
        ("zero signature", with(&|qc| qc.signature = Signature::ZERO), "BadSignature"),
    ]
}

fn refused_commits() -> Vec<(&'static str, Certificate, &'static str)> {
    let (good, set, vote) = (commit_qc(5), four(), commit_vote(5));
    let with = |change: &dyn Fn(&mut CommitQc)| {
        let mut qc = good.clone();
        change(&mut qc);
        Certificate::Commit(qc)
    };
    let of_timeouts = sign(&timeout_vote(5, 5, 5, TimeoutReason::Expired), &domain(), &[0, 2, 3]);
    vec![
        ("two of four signed", Certificate::Commit(commit_qc_by(&set, &domain(), vote, &[0, 1])), "NoQuorum"),
        ("bitmap names a fifth validator", with(&|qc| qc.signers = raw_bitmap(&[0b1_0111])), "BadBitmap"),
        ("another epoch", with(&|qc| qc.epoch = Epoch::new(1)), "WrongEpoch"),
        ("another view", with(&|qc| qc.vote.view = View::new(6)), "BadSignature"),
        ("made of prepare votes", with(&|qc| qc.signature = self::qc(4, 5).signature), "BadSignature"),
        ("made of timeouts", with(&|qc| qc.signature = of_timeouts), "BadSignature"),
    ]
}

fn refused_tcs() -> Vec<(&'static str, Certificate, &'static str)> {
    let (good, set) = (tc(), four());
    let with = |change: &dyn Fn(&mut Tc)| {
        let mut tc = good.clone();
        change(&mut tc);
        Certificate::Tc(tc)
    };
    let expired = |high_qc, prepared| timeout_vote(7, high_qc, prepared, TimeoutReason::Expired);
    let made =
        |votes: &[(TimeoutVote, &[u32])], high_qc| Certificate::Tc(tc_by(&set, &domain(), votes, high_qc));
    let mut weak_qc = qc(4, 5);
    weak_qc.signers = signers(4, &[0, 1]);
    vec![
        ("two of four signed", made(&[(expired(0, 0), &[0, 1])], None), "NoQuorum"),
        ("another epoch", with(&|tc| tc.epoch = Epoch::new(1)), "WrongEpoch"),
        ("groups out of order", with(&|tc| tc.groups.swap(0, 1)), "BadGroups"),
        (
            "one statement in two groups",
            made(&[(expired(0, 0), &[0, 1]), (expired(0, 0), &[2])], None),
            "BadGroups",
        ),
        (
            "overlapping groups",
            made(&[(expired(0, 0), &[0, 1]), (expired(0, 3), &[1, 2])], None),
            "BadGroups",
        ),
        ("empty group", with(&|tc| tc.groups[1].signers = signers(4, &[])), "BadGroups"),
        ("no group", with(&|tc| tc.groups.clear()), "NoQuorum"),
        (
            "more groups than validators",
            made(
                &[
                    (expired(0, 0), &[0]),
                    (expired(0, 1), &[1]),
                    (expired(0, 2), &[2]),
                    (expired(0, 3), &[3]),
                    (expired(0, 4), &[0]),
                ],
                None,
            ),
            "BadGroups",
        ),
        (
            "reports a certificate above its view",
            made(&[(expired(8, 0), &[0, 1, 2])], Some(qc(7, 8))),
            "BadGroups",
        ),
        ("reports a vote above its view", made(&[(expired(0, 8), &[0, 1, 2])], None), "BadGroups"),
        (
            "bitmap names a fifth validator",
            with(&|tc| tc.groups[1].signers = raw_bitmap(&[0b1_1001])),
            "BadBitmap",
        ),
        ("bitmap of two bytes", with(&|tc| tc.groups[0].signers = raw_bitmap(&[0b100, 0])), "BadBitmap"),
        ("carries no certificate", with(&|tc| tc.high_qc = None), "WrongHighQc"),
        ("carries a lower certificate", with(&|tc| tc.high_qc = Some(qc(3, 4))), "WrongHighQc"),
        ("carries a higher certificate", with(&|tc| tc.high_qc = Some(qc(5, 6))), "WrongHighQc"),
        (
            "carries a certificate nobody reports",
            made(&[(expired(0, 0), &[0, 1, 2])], Some(qc(4, 5))),
            "WrongHighQc",
        ),
        ("carries a certificate without quorum", with(&|tc| tc.high_qc = Some(weak_qc.clone())), "NoQuorum"),
        ("another view", with(&|tc| tc.view = View::new(8)), "BadSignature"),
        (
            "another reason",
            with(&|tc| {
                tc.groups[2].reason = TimeoutReason::Rejected {
                    block_hash: B256::repeat_byte(0xbb),
                    code: RejectionCode::InvalidPayload,
                }
            }),
            "BadSignature",
        ),
        (
            "a signer moved between groups",
            with(&|tc| {
                tc.groups[0].signers = signers(4, &[2, 3]);
                tc.groups[1].signers = signers(4, &[0]);
            }),
            "BadSignature",
        ),
        (
            "signed for another epoch",
            Certificate::Tc(tc_by(
                &set,
                &Domain { epoch: 1, ..domain() },
                &[(expired(0, 0), &[0, 1, 2])],
                None,
            )),
            "BadSignature",
        ),
    ]
}
