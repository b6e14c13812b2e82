//! What bytes of the other process meet, without sockets: entry points of the fuzz targets. Not part of the interface. A
//! panic here is a finding.

use crate::wire::{FromWire, NewPayload, ToWire, error_of, status_of};
use crate::{JwtSecret, proto};
use prost::Message;
use std::fmt::Debug;
use tonic::{Code, Status};
use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadLimits, PayloadRequest,
    PayloadStatus,
};
use types::{Address, B256, Height, SystemInputs, Validator, ValidatorIndex, View};

/// Secret that tokens are checked with.
const SECRET: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

/// The clock they are checked by, in seconds.
const NOW_S: u64 = 1_700_000_000;

/// A message of the Engine API; the first byte says which one. What is accepted says the same when sent on.
pub fn message(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 9 {
        0 => same::<PayloadRequest>(body, |value| value.to_wire()),
        1 => same::<BuiltPayload>(body, |value| value.clone().to_wire()),
        2 => same::<PayloadStatus>(body, |value| value.clone().to_wire()),
        3 => same::<Forkchoice>(body, |value| value.to_wire()),
        4 => same_part::<Capabilities, _>(body, |value| value.to_wire()),
        5 => same_part::<FinalizedState, _>(body, |value| value.to_wire()),
        6 => same_part::<Vec<Validator>, _>(body, |value| value.clone().to_wire()),
        7 => new_payload(body),
        _ => status(body),
    }
}

/// The token of a call.
pub fn token(bytes: &[u8]) {
    let secret = JwtSecret::from_hex(SECRET).expect("64 hex digits");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if secret.verify(text, NOW_S).is_ok() {
        assert!(secret.verify(text, NOW_S + (1 << 32)).is_err(), "every token grows stale");
        let other = JwtSecret::from_hex(&SECRET.replace('1', "2")).expect("64 hex digits");
        assert!(other.verify(text, NOW_S).is_err(), "a token is of one secret");
    }
    let _ = JwtSecret::from_hex(text);
}

fn same<T>(body: &[u8], to_wire: impl Fn(&T) -> T::Wire)
where
    T: FromWire + PartialEq + Debug,
    T::Wire: Message + Default,
{
    let Ok(wire) = T::Wire::decode(body) else { return };
    if let Ok(value) = T::from_wire(wire) {
        let again = T::Wire::decode(&*to_wire(&value).encode_to_vec()).map(T::from_wire);
        assert_eq!(again, Ok(Ok(value)));
    }
}

fn same_part<T, W>(body: &[u8], to_wire: impl Fn(&T) -> W)
where
    T: FromWire<Wire = Option<W>> + PartialEq + Debug,
    W: Message + Default,
{
    let Ok(wire) = W::decode(body) else { return };
    if let Ok(value) = T::from_wire(Some(wire)) {
        let again = W::decode(&*to_wire(&value).encode_to_vec()).map(|wire| T::from_wire(Some(wire)));
        assert_eq!(again, Ok(Ok(value)));
    }
}

fn new_payload(body: &[u8]) {
    let Ok(wire) = proto::NewPayloadRequest::decode(body) else { return };
    let (header, inputs) = (wire.header.clone(), wire.system_inputs.clone());
    if let Ok(block) = NewPayload::from_wire(wire) {
        let again = NewPayload::wire(&block.header, &block.payload, &block.system_inputs);
        let again = again.expect("what was accepted may be sent");
        assert_eq!((again.header, again.system_inputs), (header, inputs), "one encoding each");
    }
}

/// An error's details mean the same after they were passed on once.
fn status(body: &[u8]) {
    let said = error_of(&Status::with_details(Code::Internal, "call failed", body.to_vec().into()));
    let again = error_of(&status_of(&said));
    assert_eq!(again, error_of(&status_of(&again)));
}

/// Well-formed inputs to start from, by target.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let inputs = SystemInputs { randao_mix: B256::repeat_byte(3), ..SystemInputs::default() };
    let request = PayloadRequest {
        parent_hash: B256::repeat_byte(1),
        height: Height::new(7),
        view: View::new(8),
        timestamp_ms: 9,
        proposer: ValidatorIndex::new(1),
        fee_recipient: Address::repeat_byte(2),
        limits: PayloadLimits { bytes: 1 << 20, gas: 30_000_000, objects: 5 },
        system_inputs: inputs.clone(),
    };
    let built = BuiltPayload {
        payload: vec![1, 0, 0, 0, 0],
        encoding: 1,
        commitment: B256::repeat_byte(4),
        state_hash: B256::repeat_byte(5),
        receipts_hash: B256::repeat_byte(6),
        transactions: 1,
        gas_used: 21_000,
    };
    let validators = vec![Validator {
        address: Address::repeat_byte(7),
        public_key: crypto::SecretKey::simulated(1).public_key(),
        stake: types::Stake::new(10),
    }];
    let valid = PayloadStatus::Valid {
        state_hash: B256::repeat_byte(5),
        receipts_hash: B256::repeat_byte(6),
        next_validators: Some(validators.clone()),
    };
    let invalid =
        PayloadStatus::Invalid { code: types::RejectionCode::BadHeader, reason: "it is not".into() };
    let hash = B256::repeat_byte(1);
    let choice = Forkchoice { head: hash, safe: hash, finalized: hash };
    let capabilities = Capabilities {
        protocol_version: 1,
        chain_id: 31337,
        genesis_hash: hash,
        rules_hash: hash,
        genesis_state_hash: hash,
        client_version: "tandem/0.1.0".into(),
    };
    let head = FinalizedState { height: Height::new(3), block_hash: hash, state_hash: hash };
    let block = proto::NewPayloadRequest {
        header: Vec::new(),
        payload: vec![1, 0, 0, 0, 0],
        system_inputs: types::encode(&inputs),
    };
    let messages = [
        request.to_wire().encode_to_vec(),
        built.to_wire().encode_to_vec(),
        valid.to_wire().encode_to_vec(),
        choice.to_wire().encode_to_vec(),
        capabilities.to_wire().encode_to_vec(),
        head.to_wire().encode_to_vec(),
        validators.to_wire().encode_to_vec(),
        block.encode_to_vec(),
        status_of(&EngineError::UnknownBlock(hash)).details().to_vec(),
    ];
    let kinds = (0u8..).zip(messages).map(|(kind, body)| ("engine_api", [vec![kind], body].concat()));
    let invalid = ("engine_api", [vec![2], invalid.to_wire().encode_to_vec()].concat());
    let secret = JwtSecret::from_hex(SECRET).expect("64 hex digits");
    let tokens = [secret.token(NOW_S), secret.token(0)].map(|token| ("token", token.into_bytes()));
    kinds.chain([invalid]).chain(tokens).collect()
}
