//! Canonical encoding as a property: every value survives the round trip, every byte string has at most one value,
//! and no byte string makes a decoder or a verifier panic.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use borsh::{BorshDeserialize, BorshSerialize};
use common::{domain, four, raw_bitmap};
use proptest::prelude::*;
use std::fmt::Debug;
use types::block::{Block, Checkpoint, Header, Justify, SystemInputs};
use types::message::Reproposal;
use types::vote::Signed;
use types::*;

fn b256() -> impl Strategy<Value = B256> {
    any::<[u8; 32]>().prop_map(B256::from)
}

fn view() -> impl Strategy<Value = View> {
    any::<u64>().prop_map(View::new)
}

fn height() -> impl Strategy<Value = Height> {
    any::<u64>().prop_map(Height::new)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch::new)
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<[[u8; 32]; 3]>().prop_map(|parts| Signature(parts.concat().try_into().unwrap()))
}

fn bitmap() -> impl Strategy<Value = SignerSet> {
    prop::collection::vec(any::<u8>(), 0..5).prop_map(|bytes| raw_bitmap(&bytes))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn reason() -> impl Strategy<Value = TimeoutReason> {
    let codes = [
        RejectionCode::BadHeader,
        RejectionCode::BadCommitment,
        RejectionCode::InvalidPayload,
        RejectionCode::StateHashMismatch,
        RejectionCode::ReceiptsHashMismatch,
        RejectionCode::BadSystemInputs,
    ];
    let refused = (b256(), prop::sample::select(codes.to_vec()));
    prop_oneof![
        Just(TimeoutReason::Expired),
        refused.prop_map(|(block_hash, code)| TimeoutReason::Rejected { block_hash, code }),
    ]
}

fn prepare_vote() -> impl Strategy<Value = PrepareVote> {
    (view(), b256(), view(), height(), b256()).prop_map(
        |(source_view, source_hash, target_view, height, block_hash)| PrepareVote {
            source_view,
            source_hash,
            target_view,
            height,
            block_hash,
        },
    )
}

fn commit_vote() -> impl Strategy<Value = CommitVote> {
    (view(), height(), b256()).prop_map(|(view, height, block_hash)| CommitVote { view, height, block_hash })
}

fn timeout_vote() -> impl Strategy<Value = TimeoutVote> {
    (view(), view(), view(), reason()).prop_map(|(view, high_qc_view, last_prepared_view, reason)| {
        TimeoutVote { view, high_qc_view, last_prepared_view, reason }
    })
}

fn proposal_vote() -> impl Strategy<Value = ProposalVote> {
    (view(), b256()).prop_map(|(view, block_hash)| ProposalVote { view, block_hash })
}

fn signed<S: Debug>(statement: impl Strategy<Value = S>) -> impl Strategy<Value = Signed<S>> {
    (statement, any::<u32>(), signature()).prop_map(|(statement, signer, signature)| Signed {
        statement,
        signer: ValidatorIndex::new(signer),
        signature,
    })
}

fn qc() -> impl Strategy<Value = Qc> {
    (epoch(), prepare_vote(), bitmap(), signature()).prop_map(|(epoch, vote, signers, signature)| Qc {
        epoch,
        vote,
        signers,
        signature,
    })
}

fn commit_qc() -> impl Strategy<Value = CommitQc> {
    (epoch(), commit_vote(), bitmap(), signature()).prop_map(|(epoch, vote, signers, signature)| CommitQc {
        epoch,
        vote,
        signers,
        signature,
    })
}

fn tc() -> impl Strategy<Value = Tc> {
    let group = (view(), view(), reason(), bitmap()).prop_map(
        |(high_qc_view, last_prepared_view, reason, signers)| TimeoutGroup {
            high_qc_view,
            last_prepared_view,
            reason,
            signers,
        },
    );
    let groups = prop::collection::vec(group, 0..4);
    (epoch(), view(), groups, signature(), prop::option::of(qc()))
        .prop_map(|(epoch, view, groups, signature, high_qc)| Tc { epoch, view, groups, signature, high_qc })
}

fn system_inputs() -> impl Strategy<Value = SystemInputs> {
    let items = || prop::collection::vec(bytes(), 0..3);
    (b256(), items(), items(), prop::option::of(bytes())).prop_map(
        |(randao_mix, evidence, liveness, penalties)| SystemInputs {
            randao_mix,
            evidence,
            liveness,
            penalties,
        },
    )
}

fn header() -> impl Strategy<Value = Header> {
    let justify = prop_oneof![
        Just(Justify::Genesis),
        commit_qc().prop_map(Justify::EpochBoundary),
        qc().prop_map(Justify::Prepare),
    ];
    let numbers = (any::<[u64; 3]>(), epoch(), view(), any::<u32>(), height());
    let hashes = prop::array::uniform8(b256());
    let rest =
        (any::<[u8; 20]>(), signature(), justify, prop::option::of(tc()), prop::option::of(commit_qc()));
    (numbers, hashes, rest).prop_map(
        |(([chain_id, timestamp_ms, start], epoch, view, proposer, height), hashes, rest)| {
            let (fee_recipient, randao_reveal, justify, timeout, last_commit) = rest;
            let [
                parent_hash,
                validator_set_id,
                next,
                payload_commitment,
                state_hash,
                receipts_hash,
                root,
                inputs,
            ] = hashes;
            Header {
                chain_id,
                epoch,
                epoch_start_height: Height::new(start),
                height,
                view,
                parent_hash,
                timestamp_ms,
                proposer: ValidatorIndex::new(proposer),
                fee_recipient: Address::from(fee_recipient),
                validator_set_id,
                next_validator_set_id: next,
                payload_commitment,
                state_hash,
                receipts_hash,
                checkpoint: Checkpoint { height, root },
                randao_reveal,
                justify,
                timeout,
                last_commit,
                system_inputs_hash: inputs,
            }
        },
    )
}

fn block() -> impl Strategy<Value = Block> {
    (header(), system_inputs(), bytes()).prop_map(|(header, system_inputs, payload)| Block {
        header,
        system_inputs,
        payload,
    })
}

fn message() -> impl Strategy<Value = ConsensusMessage> {
    let again = (qc(), prop::option::of(tc())).prop_map(|(source, timeout)| Reproposal { source, timeout });
    let proposal = (signed(proposal_vote()), block(), prop::option::of(again))
        .prop_map(|(signed, block, again)| Box::new(Proposal { signed, block, again }));
    let commit = (signed(commit_vote()), qc()).prop_map(|(signed, qc)| Commit { signed, qc });
    let timeout = (signed(timeout_vote()), prop::option::of(qc()))
        .prop_map(|(signed, high_qc)| Timeout { signed, high_qc });
    prop_oneof![
        (epoch(), proposal).prop_map(|(e, m)| ConsensusMessage::Proposal(e, m)),
        (epoch(), signed(prepare_vote())).prop_map(|(e, m)| ConsensusMessage::Prepare(e, m)),
        (epoch(), commit).prop_map(|(e, m)| ConsensusMessage::Commit(e, m)),
        (epoch(), timeout).prop_map(|(e, m)| ConsensusMessage::Timeout(e, m)),
        qc().prop_map(ConsensusMessage::Qc),
        tc().prop_map(ConsensusMessage::Tc),
        commit_qc().prop_map(ConsensusMessage::CommitQc),
    ]
}

fn fetch_request() -> impl Strategy<Value = FetchRequest> {
    prop_oneof![
        b256().prop_map(FetchRequest::ByHash),
        (height(), any::<u32>()).prop_map(|(from, count)| FetchRequest::Finalized { from, count }),
    ]
}

fn fetch_response() -> impl Strategy<Value = FetchResponse> {
    let stored =
        (block(), prop::option::of(commit_qc())).prop_map(|(block, commit)| CommittedBlock { block, commit });
    (prop::collection::vec(stored, 0..3), prop::option::of(commit_qc()))
        .prop_map(|(blocks, head)| FetchResponse { blocks, head })
}

fn round_trip<T>(value: T) -> Result<(), TestCaseError>
where
    T: BorshSerialize + BorshDeserialize + PartialEq + Debug,
{
    let bytes = encode(&value);
    prop_assert_eq!(decode::<T>(&bytes).unwrap(), value);
    // No shorter and no longer string is a value.
    for cut in 0..bytes.len().min(300) {
        prop_assert!(decode::<T>(&bytes[..cut]).is_err());
    }
    prop_assert!(decode::<T>(&[&bytes[..], &[0]].concat()).is_err());
    Ok(())
}

/// Whatever decodes has exactly the bytes it came from.
fn canonical<T: BorshSerialize + BorshDeserialize>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = decode::<T>(bytes) {
        prop_assert_eq!(encode(&value), bytes);
    }
    Ok(())
}

fn canonical_as_anything(bytes: &[u8]) -> Result<(), TestCaseError> {
    canonical::<Header>(bytes)?;
    canonical::<Block>(bytes)?;
    canonical::<SystemInputs>(bytes)?;
    canonical::<Qc>(bytes)?;
    canonical::<Tc>(bytes)?;
    canonical::<CommitQc>(bytes)?;
    canonical::<PrepareVote>(bytes)?;
    canonical::<CommitVote>(bytes)?;
    canonical::<TimeoutVote>(bytes)?;
    canonical::<ProposalVote>(bytes)?;
    canonical::<ConsensusMessage>(bytes)?;
    canonical::<FetchRequest>(bytes)?;
    canonical::<FetchResponse>(bytes)
}

fn scribbled(mut bytes: Vec<u8>, at: prop::sample::Index, with: u8) -> Vec<u8> {
    let at = at.index(bytes.len());
    bytes[at] ^= with;
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn statements_survive_the_round_trip(p in prepare_vote(), c in commit_vote(), t in timeout_vote(), o in proposal_vote()) {
        round_trip(p)?;
        round_trip(c)?;
        round_trip(t)?;
        round_trip(o)?;
    }

    #[test]
    fn signed_statements_survive_the_round_trip(p in signed(prepare_vote()), t in signed(timeout_vote())) {
        round_trip(p)?;
        round_trip(t)?;
    }

    #[test]
    fn certificates_survive_the_round_trip(q in qc(), c in commit_qc(), t in tc()) {
        round_trip(q)?;
        round_trip(c)?;
        round_trip(t)?;
    }

    #[test]
    fn headers_and_blocks_survive_the_round_trip(h in header(), i in system_inputs(), b in block()) {
        round_trip(h)?;
        round_trip(i)?;
        round_trip(b)?;
    }

    #[test]
    fn messages_survive_the_round_trip(m in message(), q in fetch_request(), r in fetch_response()) {
        round_trip(m)?;
        round_trip(q)?;
        round_trip(r)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_decode_canonically(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        canonical_as_anything(&bytes)?;
    }

    #[test]
    fn changed_messages_never_panic_and_decode_canonically(m in message(), at in any::<prop::sample::Index>(), with in 1u8..) {
        canonical_as_anything(&scribbled(encode(&m), at, with))?;
    }

    #[test]
    fn equal_headers_and_only_they_have_equal_hashes(a in header(), at in any::<prop::sample::Index>(), with in 1u8..) {
        if let Ok(b) = decode::<Header>(&scribbled(encode(&a), at, with)) {
            prop_assert_ne!(a.hash(), b.hash());
        }
        prop_assert_eq!(a.hash(), a.clone().hash());
    }

    #[test]
    fn arbitrary_certificates_verify_to_an_error_and_never_panic(q in qc(), c in commit_qc(), t in tc()) {
        prop_assert!(q.verify(&four(), &domain()).is_err());
        prop_assert!(c.verify(&four(), &domain()).is_err());
        prop_assert!(t.verify(&four(), &domain()).is_err());
        let _ = (t.signers(&four()), t.high_qc_view());
    }

    #[test]
    fn one_changed_byte_of_a_valid_certificate_is_refused(at in any::<prop::sample::Index>(), with in 1u8.., kind in 0usize..3) {
        let bytes = match kind {
            0 => encode(&common::qc(4, 5)),
            1 => encode(&common::commit_qc(5)),
            _ => encode(&common::tc()),
        };
        let changed = scribbled(bytes, at, with);
        let refused = match kind {
            0 => decode::<Qc>(&changed).is_ok_and(|qc| qc.verify(&four(), &domain()).is_ok()),
            1 => decode::<CommitQc>(&changed).is_ok_and(|qc| qc.verify(&four(), &domain()).is_ok()),
            _ => decode::<Tc>(&changed).is_ok_and(|tc| tc.verify(&four(), &domain()).is_ok()),
        };
        prop_assert!(!refused);
    }

    #[test]
    fn arbitrary_genesis_text_never_panics(text in "\\PC{0,200}", at in any::<prop::sample::Index>(), with in any::<char>()) {
        let _ = Genesis::parse(&text);
        let stored: serde_json::Value = serde_json::json!({
            "config": { "chainId": 1 }, "gasLimit": "0x1c9c380", "alloc": {},
            "tandem": { "validators": [], "quorum": { "numerator": 2, "denominator": 3 } },
        });
        let mut changed: Vec<char> = stored.to_string().chars().collect();
        let at = at.index(changed.len());
        changed[at] = with;
        prop_assert!(Genesis::parse(&changed.into_iter().collect::<String>()).is_err());
    }
}
