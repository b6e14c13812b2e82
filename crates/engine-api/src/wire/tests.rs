#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use types::{Checkpoint, Epoch, Justify, Signature};

fn round_trip<M: Message + Default>(message: M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap()
}

fn any_hash() -> impl Strategy<Value = B256> {
    any::<[u8; 32]>().prop_map(B256::new)
}

prop_compose! {
    fn any_capabilities()(
        protocol_version in any::<u32>(), chain_id in any::<u64>(), genesis_hash in any_hash(),
        rules_hash in any_hash(), genesis_state_hash in any_hash(), client_version in "\\PC{0,40}",
    ) -> Capabilities {
        Capabilities { protocol_version, chain_id, genesis_hash, rules_hash, genesis_state_hash, client_version }
    }
}

prop_compose! {
    fn any_inputs()(
        randao_mix in any_hash(),
        evidence in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        penalties in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) -> SystemInputs {
        SystemInputs { randao_mix, evidence, liveness: Vec::new(), penalties }
    }
}

prop_compose! {
    fn any_request()(
        parent_hash in any_hash(), numbers in any::<[u64; 6]>(), proposer in any::<u32>(),
        fee_recipient in any::<[u8; 20]>(), system_inputs in any_inputs(),
    ) -> PayloadRequest {
        PayloadRequest {
            parent_hash,
            height: Height::new(numbers[0]),
            view: View::new(numbers[1]),
            timestamp_ms: numbers[2],
            proposer: ValidatorIndex::new(proposer),
            fee_recipient: Address::new(fee_recipient),
            limits: PayloadLimits { bytes: numbers[3], gas: numbers[4], objects: numbers[5] },
            system_inputs,
        }
    }
}

prop_compose! {
    fn any_header()(
        hashes in prop::collection::vec(any_hash(), 6), numbers in any::<[u64; 5]>(), proposer in any::<u32>(),
    ) -> Header {
        Header {
            chain_id: numbers[0],
            epoch: Epoch::new(numbers[1]),
            epoch_start_height: Height::new(numbers[2]),
            height: Height::new(numbers[3]),
            view: View::new(numbers[4]),
            parent_hash: hashes[0],
            timestamp_ms: numbers[0],
            proposer: ValidatorIndex::new(proposer),
            fee_recipient: Address::ZERO,
            validator_set_id: hashes[1],
            next_validator_set_id: hashes[0],
            payload_commitment: hashes[2],
            state_hash: hashes[3],
            receipts_hash: hashes[4],
            checkpoint: Checkpoint::default(),
            randao_reveal: Signature::ZERO,
            justify: Justify::Genesis,
            timeout: None,
            last_commit: None,
            system_inputs_hash: hashes[5],
        }
    }
}

fn any_validators() -> impl Strategy<Value = Vec<Validator>> {
    let validator =
        (any::<[u8; 20]>(), any::<[u8; 16]>(), any::<u128>()).prop_map(|(address, key, stake)| {
            let mut public_key = [7; 48];
            public_key[..16].copy_from_slice(&key);
            Validator {
                address: Address::new(address),
                public_key: PublicKey(public_key),
                stake: Stake::new(stake),
            }
        });
    prop::collection::vec(validator, 0..6)
}

fn any_code() -> impl Strategy<Value = RejectionCode> {
    prop::sample::select(vec![
        RejectionCode::BadHeader,
        RejectionCode::BadCommitment,
        RejectionCode::InvalidPayload,
        RejectionCode::StateHashMismatch,
        RejectionCode::ReceiptsHashMismatch,
        RejectionCode::BadSystemInputs,
    ])
}

fn any_status() -> impl Strategy<Value = PayloadStatus> {
    prop_oneof![
        (any_hash(), any_hash(), prop::option::of(any_validators())).prop_map(
            |(state_hash, receipts_hash, next_validators)| PayloadStatus::Valid {
                state_hash,
                receipts_hash,
                next_validators
            }
        ),
        (any_code(), "\\PC{0,40}").prop_map(|(code, reason)| PayloadStatus::Invalid { code, reason }),
        Just(PayloadStatus::Syncing),
    ]
}

fn any_error() -> impl Strategy<Value = EngineError> {
    let text = "\\PC{0,60}";
    prop_oneof![
        text.prop_map(EngineError::Unavailable),
        text.prop_map(EngineError::Unauthenticated),
        text.prop_map(EngineError::Illegal),
        text.prop_map(EngineError::Mismatch),
        text.prop_map(EngineError::Internal),
        any_hash().prop_map(EngineError::UnknownBlock),
    ]
}

proptest! {
    #[test]
    fn every_value_survives_the_wire(
        capabilities in any_capabilities(), request in any_request(), header in any_header(),
        payload in prop::collection::vec(any::<u8>(), 0..200), inputs in any_inputs(), status in any_status(),
        validators in any_validators(), hashes in prop::collection::vec(any_hash(), 3), number in any::<u64>(),
    ) {
        prop_assert_eq!(Capabilities::from_wire(Some(round_trip((&capabilities).to_wire()))), Ok(capabilities));
        prop_assert_eq!(PayloadRequest::from_wire(round_trip((&request).to_wire())), Ok(request));
        prop_assert_eq!(PayloadStatus::from_wire(round_trip(status.clone().to_wire())), Ok(status));
        prop_assert_eq!(Vec::from_wire(Some(round_trip(validators.clone().to_wire()))), Ok(validators));
        let sent = NewPayload::from_wire(round_trip(NewPayload::wire(&header, &payload, &inputs).unwrap())).unwrap();
        prop_assert_eq!((sent.header, &sent.payload, sent.system_inputs), (header, &payload, inputs));
        let forkchoice = Forkchoice { head: hashes[0], safe: hashes[1], finalized: hashes[2] };
        prop_assert_eq!(Forkchoice::from_wire(round_trip((&forkchoice).to_wire())), Ok(forkchoice));
        let finalized = FinalizedState { height: Height::new(number), block_hash: hashes[0], state_hash: hashes[1] };
        prop_assert_eq!(FinalizedState::from_wire(Some(round_trip(finalized.to_wire()))), Ok(finalized));
        let built = BuiltPayload {
            payload, encoding: 1, commitment: hashes[0], state_hash: hashes[1], receipts_hash: hashes[2],
            transactions: 3, gas_used: number,
        };
        prop_assert_eq!(BuiltPayload::from_wire(round_trip(built.clone().to_wire())), Ok(built));
    }

    #[test]
    fn every_error_survives_the_wire(error in any_error()) {
        let status = status_of(&error);
        prop_assert_eq!(error_of(&Status::with_details(status.code(), status.message(), status.details().to_vec().into())), error);
    }

    /// Whatever bytes a status carries, the caller gets an error and no panic.
    #[test]
    fn garbage_details_are_an_error_like_any_other(code in 1i32..17, details in prop::collection::vec(any::<u8>(), 0..100)) {
        error_of(&Status::with_details(Code::from_i32(code), "text", details.into()));
    }

    /// Flipping, cutting and adding bytes anywhere in a message gives a value or a typed error, never a panic.
    #[test]
    fn damaged_messages_never_panic(
        request in any_request(), header in any_header(), status in any_status(), validators in any_validators(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let damage = |mut bytes: Vec<u8>| {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                if cut { bytes.truncate(at) } else { bytes[at] = byte }
            }
            bytes
        };
        if let Ok(wire) = Message::decode(&*damage((&request).to_wire().encode_to_vec())) {
            let _ = PayloadRequest::from_wire(wire);
        }
        let block = NewPayload::wire(&header, &[1, 2, 3], &request.system_inputs).unwrap();
        if let Ok(wire) = Message::decode(&*damage(block.encode_to_vec())) {
            let _ = NewPayload::from_wire(wire);
        }
        if let Ok(wire) = Message::decode(&*damage(status.to_wire().encode_to_vec())) {
            let _ = PayloadStatus::from_wire(wire);
        }
        if let Ok(wire) = Message::decode(&*damage(validators.to_wire().encode_to_vec())) {
            let _ = Vec::from_wire(Some(wire));
        }
    }

    #[test]
    fn a_hash_of_another_length_is_refused_with_both_lengths(length in 0usize..80) {
        prop_assume!(length != 32);
        let wire = proto::ForkchoiceUpdatedRequest { head: vec![1; 32], safe: vec![1; length], finalized: vec![1; 32] };
        let expected = WireError::WrongLength { field: "safe", actual: length, expected: 32 };
        prop_assert_eq!(Forkchoice::from_wire(wire), Err(expected));
    }
}

fn sample_header() -> Header {
    use proptest::strategy::ValueTree;
    any_header().new_tree(&mut proptest::test_runner::TestRunner::deterministic()).unwrap().current()
}

#[test]
fn missing_fields_are_named() {
    assert_eq!(Capabilities::from_wire(None), Err(WireError::Missing { field: "capabilities" }));
    assert_eq!(FinalizedState::from_wire(None), Err(WireError::Missing { field: "finalized" }));
    assert_eq!(Vec::from_wire(None), Err(WireError::Missing { field: "set" }));
    let empty = proto::NewPayloadResponse { verdict: None };
    assert_eq!(PayloadStatus::from_wire(empty), Err(WireError::Missing { field: "verdict" }));
    let request = proto::GetPayloadRequest::default();
    assert_eq!(PayloadRequest::from_wire(request), Err(WireError::Missing { field: "limits" }));
}

#[test]
fn unknown_rejection_codes_are_no_verdict() {
    use proto::new_payload_response::Verdict;
    for code in [0, 7, -1, i32::MAX] {
        let verdict = Some(Verdict::Invalid(proto::Invalid { code, reason: String::new() }));
        let refused = PayloadStatus::from_wire(proto::NewPayloadResponse { verdict });
        assert_eq!(refused, Err(WireError::UnknownValue { field: "rejection code", actual: code }));
    }
}

#[test]
fn oversized_parts_are_refused_on_both_sides_with_the_limit() {
    let inputs = SystemInputs::default();
    let payload = vec![0; PAYLOAD_BYTES_MAX + 1];
    let too_long = WireError::TooLong { field: "payload", actual: payload.len(), limit: PAYLOAD_BYTES_MAX };
    assert_eq!(NewPayload::wire(&sample_header(), &payload, &inputs).err(), Some(too_long.clone()));
    let mut wire = NewPayload::wire(&sample_header(), &[], &inputs).unwrap();
    wire.payload = payload;
    assert_eq!(NewPayload::from_wire(wire.clone()).err(), Some(too_long));
    wire.payload.clear();
    wire.header = vec![0; HEADER_BYTES_MAX + 1];
    let too_long =
        WireError::TooLong { field: "header", actual: HEADER_BYTES_MAX + 1, limit: HEADER_BYTES_MAX };
    assert_eq!(NewPayload::from_wire(wire).err(), Some(too_long));
    let set = proto::ValidatorSet { validators: vec![proto::Validator::default(); VALIDATORS_MAX + 1] };
    let too_many =
        WireError::TooLong { field: "validators", actual: VALIDATORS_MAX + 1, limit: VALIDATORS_MAX };
    assert_eq!(Vec::from_wire(Some(set)), Err(too_many));
}

#[test]
fn the_largest_block_fits_one_message() {
    let payload = vec![0xff; PAYLOAD_BYTES_MAX];
    let mut wire = NewPayload::wire(&sample_header(), &payload, &SystemInputs::default()).unwrap();
    wire.header = vec![0; HEADER_BYTES_MAX];
    wire.system_inputs = vec![0; SYSTEM_INPUTS_BYTES_MAX];
    assert!(wire.encoded_len() < MESSAGE_BYTES_MAX);
}

#[test]
fn headers_with_trailing_bytes_are_not_canonical() {
    let mut wire = NewPayload::wire(&sample_header(), &[], &SystemInputs::default()).unwrap();
    wire.header.push(0);
    let refused = NewPayload::from_wire(wire).err();
    assert!(matches!(refused, Some(WireError::NotCanonical { field: "header", .. })), "{refused:?}");
}

#[test]
fn a_randao_mix_that_contradicts_the_system_inputs_is_refused() {
    let request = PayloadRequest {
        parent_hash: B256::ZERO,
        height: Height::new(1),
        view: View::new(1),
        timestamp_ms: 0,
        proposer: ValidatorIndex::new(0),
        fee_recipient: Address::ZERO,
        limits: PayloadLimits { bytes: 1, gas: 1, objects: 1 },
        system_inputs: SystemInputs::default(),
    };
    let mut wire = (&request).to_wire();
    wire.prev_randao[0] ^= 1;
    assert_eq!(PayloadRequest::from_wire(wire), Err(WireError::RandaoDiffers));
}

#[test]
fn refused_fields_travel_with_their_numbers() {
    let status = status_of_field(&WireError::WrongLength { field: "head", actual: 31, expected: 32 });
    assert_eq!(status.code(), Code::InvalidArgument);
    let field = detail_of(&status).unwrap().field.unwrap();
    assert_eq!((field.field.as_str(), field.actual, field.expected), ("head", 31, 32));
    let expected = EngineError::Illegal("malformed call: head has 31 bytes, must have 32".into());
    assert_eq!(error_of(&status), expected);
}

#[test]
fn statuses_of_the_transport_mean_that_no_answer_was_had() {
    for code in [Code::Unknown, Code::Internal, Code::Cancelled, Code::DeadlineExceeded, Code::OutOfRange] {
        assert!(matches!(error_of(&Status::new(code, "x")), EngineError::Unavailable(_)), "{code:?}");
    }
    assert!(matches!(error_of(&Status::unauthenticated("x")), EngineError::Unauthenticated(_)));
    assert!(matches!(error_of(&Status::unimplemented("x")), EngineError::Mismatch(_)));
}

#[test]
fn long_reasons_are_cut_between_characters() {
    let status = status_of(&EngineError::Internal("ä".repeat(REASON_BYTES_MAX)));
    let EngineError::Internal(reason) = error_of(&status) else { panic!("stays internal") };
    assert_eq!(reason.len(), REASON_BYTES_MAX);
    let status = status_of(&EngineError::Internal(format!("x{}", "ä".repeat(REASON_BYTES_MAX))));
    let EngineError::Internal(reason) = error_of(&status) else { panic!("stays internal") };
    assert_eq!(reason.len(), REASON_BYTES_MAX - 1);
}
