//! Between the wire and the domain (EA-5): every field is checked on the way in; a field that is not what
//! engine.proto says is a typed error with the numbers.

use crate::{REASON_BYTES_MAX, proto};
use prost::Message;
use tonic::{Code, Status};
use types::engine::{
    BuiltPayload, Capabilities, EngineError, FinalizedState, Forkchoice, PayloadLimits, PayloadRequest,
    PayloadStatus,
};
use types::limits::{HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, SYSTEM_INPUTS_BYTES_MAX, VALIDATORS_MAX};
use types::{
    Address, B256, Header, Height, PublicKey, RejectionCode, Stake, SystemInputs, Validator, ValidatorIndex,
    View, decode, encode,
};

/// Bytes of one message: the largest is a block; what is not payload fits the rest easily.
pub(crate) const MESSAGE_BYTES_MAX: usize =
    PAYLOAD_BYTES_MAX + HEADER_BYTES_MAX + SYSTEM_INPUTS_BYTES_MAX + (64 << 10);

/// Bytes of a client version on the wire; longer ones are cut.
const CLIENT_VERSION_BYTES_MAX: usize = 256;

const DETAIL_TYPE_URL: &str = "type.googleapis.com/tandem.engine.v1.ErrorDetail";

/// A field that is not what engine.proto says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} has {actual} bytes, must have {expected}")]
    WrongLength { field: &'static str, actual: usize, expected: usize },
    #[error("{field} has {actual} bytes or entries, at most {limit} are allowed")]
    TooLong { field: &'static str, actual: usize, limit: usize },
    #[error("{field} is not canonical: {reason}")]
    NotCanonical { field: &'static str, actual: usize, reason: String },
    #[error("{field} has the unknown value {actual}")]
    UnknownValue { field: &'static str, actual: i32 },
    #[error("prev_randao differs from system_inputs.randao_mix")]
    RandaoDiffers,
}

/// Into the wire's form. Never fails: limits on what is sent are the sender's own checks.
pub(crate) trait ToWire {
    type Wire;
    fn to_wire(self) -> Self::Wire;
}

/// Out of the wire's form, checking everything.
pub(crate) trait FromWire: Sized {
    type Wire;
    fn from_wire(wire: Self::Wire) -> Result<Self, WireError>;
}

impl ToWire for &Capabilities {
    type Wire = proto::Capabilities;

    fn to_wire(self) -> proto::Capabilities {
        proto::Capabilities {
            protocol_version: self.protocol_version,
            chain_id: self.chain_id,
            genesis_hash: self.genesis_hash.to_vec(),
            rules_hash: self.rules_hash.to_vec(),
            genesis_state_hash: self.genesis_state_hash.to_vec(),
            client_version: cut(&self.client_version, CLIENT_VERSION_BYTES_MAX),
        }
    }
}

impl FromWire for Capabilities {
    type Wire = Option<proto::Capabilities>;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        let wire = wire.ok_or(WireError::Missing { field: "capabilities" })?;
        Ok(Self {
            protocol_version: wire.protocol_version,
            chain_id: wire.chain_id,
            genesis_hash: hash("genesis_hash", &wire.genesis_hash)?,
            rules_hash: hash("rules_hash", &wire.rules_hash)?,
            genesis_state_hash: hash("genesis_state_hash", &wire.genesis_state_hash)?,
            client_version: cut(&wire.client_version, CLIENT_VERSION_BYTES_MAX),
        })
    }
}

impl ToWire for &PayloadRequest {
    type Wire = proto::GetPayloadRequest;

    fn to_wire(self) -> proto::GetPayloadRequest {
        let PayloadLimits { bytes, gas, objects } = self.limits;
        proto::GetPayloadRequest {
            parent_hash: self.parent_hash.to_vec(),
            height: self.height.get(),
            view: self.view.get(),
            timestamp_ms: self.timestamp_ms,
            proposer: self.proposer.get(),
            fee_recipient: self.fee_recipient.to_vec(),
            prev_randao: self.system_inputs.randao_mix.to_vec(),
            limits: Some(proto::PayloadLimits { bytes, gas, objects }),
            system_inputs: encode(&self.system_inputs),
        }
    }
}

impl FromWire for PayloadRequest {
    type Wire = proto::GetPayloadRequest;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        let limits = wire.limits.ok_or(WireError::Missing { field: "limits" })?;
        let system_inputs = system_inputs(&wire.system_inputs)?;
        if hash("prev_randao", &wire.prev_randao)? != system_inputs.randao_mix {
            return Err(WireError::RandaoDiffers);
        }
        Ok(Self {
            parent_hash: hash("parent_hash", &wire.parent_hash)?,
            height: Height::new(wire.height),
            view: View::new(wire.view),
            timestamp_ms: wire.timestamp_ms,
            proposer: ValidatorIndex::new(wire.proposer),
            fee_recipient: Address::new(fixed("fee_recipient", &wire.fee_recipient)?),
            limits: PayloadLimits { bytes: limits.bytes, gas: limits.gas, objects: limits.objects },
            system_inputs,
        })
    }
}

impl ToWire for BuiltPayload {
    type Wire = proto::GetPayloadResponse;

    fn to_wire(self) -> proto::GetPayloadResponse {
        proto::GetPayloadResponse {
            payload: self.payload,
            payload_encoding: self.encoding,
            payload_commitment: self.commitment.to_vec(),
            state_hash: self.state_hash.to_vec(),
            receipts_hash: self.receipts_hash.to_vec(),
            transactions: self.transactions,
            gas_used: self.gas_used,
        }
    }
}

impl FromWire for BuiltPayload {
    type Wire = proto::GetPayloadResponse;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        Ok(Self {
            payload: bounded("payload", wire.payload, PAYLOAD_BYTES_MAX)?,
            encoding: wire.payload_encoding,
            commitment: hash("payload_commitment", &wire.payload_commitment)?,
            state_hash: hash("state_hash", &wire.state_hash)?,
            receipts_hash: hash("receipts_hash", &wire.receipts_hash)?,
            transactions: wire.transactions,
            gas_used: wire.gas_used,
        })
    }
}

/// A block on its way to the executor.
pub(crate) struct NewPayload {
    pub header: Header,
    pub payload: Vec<u8>,
    pub system_inputs: SystemInputs,
}

impl NewPayload {
    /// Checks sizes before sending, so that an oversized block is named here and not refused by the transport.
    pub(crate) fn wire(
        header: &Header,
        payload: &[u8],
        inputs: &SystemInputs,
    ) -> Result<proto::NewPayloadRequest, WireError> {
        within("payload", payload.len(), PAYLOAD_BYTES_MAX)?;
        Ok(proto::NewPayloadRequest {
            header: bounded("header", encode(header), HEADER_BYTES_MAX)?,
            payload: payload.to_vec(),
            system_inputs: bounded("system_inputs", encode(inputs), SYSTEM_INPUTS_BYTES_MAX)?,
        })
    }
}

impl FromWire for NewPayload {
    type Wire = proto::NewPayloadRequest;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        within("header", wire.header.len(), HEADER_BYTES_MAX)?;
        Ok(Self {
            header: canonical("header", &wire.header)?,
            payload: bounded("payload", wire.payload, PAYLOAD_BYTES_MAX)?,
            system_inputs: system_inputs(&wire.system_inputs)?,
        })
    }
}

impl ToWire for PayloadStatus {
    type Wire = proto::NewPayloadResponse;

    fn to_wire(self) -> proto::NewPayloadResponse {
        use proto::new_payload_response::Verdict;
        let verdict = match self {
            Self::Valid { state_hash, receipts_hash, next_validators } => Verdict::Valid(proto::Valid {
                state_hash: state_hash.to_vec(),
                receipts_hash: receipts_hash.to_vec(),
                next_validators: next_validators.map(ToWire::to_wire),
            }),
            Self::Invalid { code, reason } => {
                let code = code_to_wire(code) as i32;
                Verdict::Invalid(proto::Invalid { code, reason: cut(&reason, REASON_BYTES_MAX) })
            }
            Self::Syncing => Verdict::Syncing(proto::Syncing {}),
        };
        proto::NewPayloadResponse { verdict: Some(verdict) }
    }
}

impl FromWire for PayloadStatus {
    type Wire = proto::NewPayloadResponse;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        use proto::new_payload_response::Verdict;
        match wire.verdict.ok_or(WireError::Missing { field: "verdict" })? {
            Verdict::Valid(valid) => Ok(Self::Valid {
                state_hash: hash("state_hash", &valid.state_hash)?,
                receipts_hash: hash("receipts_hash", &valid.receipts_hash)?,
                next_validators: valid.next_validators.map(|set| Vec::from_wire(Some(set))).transpose()?,
            }),
            Verdict::Invalid(invalid) => Ok(Self::Invalid {
                code: code_from_wire(invalid.code)?,
                reason: cut(&invalid.reason, REASON_BYTES_MAX),
            }),
            Verdict::Syncing(proto::Syncing {}) => Ok(Self::Syncing),
        }
    }
}

impl ToWire for Vec<Validator> {
    type Wire = proto::ValidatorSet;

    fn to_wire(self) -> proto::ValidatorSet {
        let validators = self.into_iter().map(|validator| proto::Validator {
            address: validator.address.to_vec(),
            public_key: validator.public_key.0.to_vec(),
            stake: validator.stake.get().to_be_bytes().to_vec(),
        });
        proto::ValidatorSet { validators: validators.collect() }
    }
}

impl FromWire for Vec<Validator> {
    type Wire = Option<proto::ValidatorSet>;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        let set = wire.ok_or(WireError::Missing { field: "set" })?;
        within("validators", set.validators.len(), VALIDATORS_MAX)?;
        let to_domain = |validator: proto::Validator| {
            Ok(Validator {
                address: Address::new(fixed("address", &validator.address)?),
                public_key: PublicKey(fixed("public_key", &validator.public_key)?),
                stake: Stake::new(u128::from_be_bytes(fixed("stake", &validator.stake)?)),
            })
        };
        set.validators.into_iter().map(to_domain).collect()
    }
}

impl ToWire for &Forkchoice {
    type Wire = proto::ForkchoiceUpdatedRequest;

    fn to_wire(self) -> proto::ForkchoiceUpdatedRequest {
        proto::ForkchoiceUpdatedRequest {
            head: self.head.to_vec(),
            safe: self.safe.to_vec(),
            finalized: self.finalized.to_vec(),
        }
    }
}

impl FromWire for Forkchoice {
    type Wire = proto::ForkchoiceUpdatedRequest;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        Ok(Self {
            head: hash("head", &wire.head)?,
            safe: hash("safe", &wire.safe)?,
            finalized: hash("finalized", &wire.finalized)?,
        })
    }
}

impl ToWire for FinalizedState {
    type Wire = proto::DurableHead;

    fn to_wire(self) -> proto::DurableHead {
        proto::DurableHead {
            height: self.height.get(),
            block_hash: self.block_hash.to_vec(),
            state_hash: self.state_hash.to_vec(),
        }
    }
}

impl FromWire for FinalizedState {
    type Wire = Option<proto::DurableHead>;

    fn from_wire(wire: Self::Wire) -> Result<Self, WireError> {
        let wire = wire.ok_or(WireError::Missing { field: "finalized" })?;
        Ok(Self {
            height: Height::new(wire.height),
            block_hash: hash("block_hash", &wire.block_hash)?,
            state_hash: hash("state_hash", &wire.state_hash)?,
        })
    }
}

/// An engine's error as a gRPC status with the typed detail.
pub(crate) fn status_of(error: &EngineError) -> Status {
    use proto::ErrorCode as Detail;
    let (code, detail, reason) = match error {
        EngineError::Unavailable(reason) => (Code::Unavailable, Detail::Unavailable, reason.clone()),
        EngineError::Unauthenticated(reason) => {
            (Code::Unauthenticated, Detail::Unauthenticated, reason.clone())
        }
        EngineError::Illegal(reason) => (Code::FailedPrecondition, Detail::Illegal, reason.clone()),
        EngineError::UnknownBlock(hash) => {
            (Code::NotFound, Detail::UnknownBlock, format!("unknown block {hash}"))
        }
        EngineError::Mismatch(reason) => (Code::FailedPrecondition, Detail::Mismatch, reason.clone()),
        EngineError::Internal(reason) => (Code::Internal, Detail::Internal, reason.clone()),
    };
    let block_hash = if let EngineError::UnknownBlock(hash) = error { hash.to_vec() } else { Vec::new() };
    status(code, proto::ErrorDetail { code: detail as i32, reason, block_hash, field: None })
}

/// A refused field as a gRPC status with the typed detail.
pub(crate) fn status_of_field(error: &WireError) -> Status {
    let (field, actual, expected) = match *error {
        WireError::Missing { field } => (field, 0, 1),
        WireError::WrongLength { field, actual, expected } => (field, actual as u64, expected as u64),
        WireError::TooLong { field, actual, limit } => (field, actual as u64, limit as u64),
        WireError::NotCanonical { field, actual, .. } => (field, actual as u64, 0),
        WireError::UnknownValue { field, actual } => (field, u64::from(actual.unsigned_abs()), 0),
        WireError::RandaoDiffers => ("prev_randao", 0, 0),
    };
    let detail = proto::ErrorDetail {
        code: proto::ErrorCode::Malformed as i32,
        reason: error.to_string(),
        block_hash: Vec::new(),
        field: Some(proto::FieldError { field: field.into(), actual, expected }),
    };
    status(Code::InvalidArgument, detail)
}

fn status(code: Code, mut detail: proto::ErrorDetail) -> Status {
    detail.reason = cut(&detail.reason, REASON_BYTES_MAX);
    let message = detail.reason.clone();
    let any = prost_types::Any { type_url: DETAIL_TYPE_URL.into(), value: detail.encode_to_vec() };
    let envelope = proto::RpcStatus { code: code as i32, message: message.clone(), details: vec![any] };
    Status::with_details(code, message, envelope.encode_to_vec().into())
}

/// What a status means to the caller. Only a status with a detail was said by an executor; any other one was made
/// by the transport on either side, and says that no answer was had.
pub(crate) fn error_of(status: &Status) -> EngineError {
    if let Some(detail) = detail_of(status) {
        return error_of_detail(detail);
    }
    let reason = format!("{:?}: {}", status.code(), cut(status.message(), REASON_BYTES_MAX));
    match status.code() {
        Code::Unauthenticated => EngineError::Unauthenticated(reason),
        Code::Unimplemented => {
            EngineError::Mismatch(format!("the executor does not know the call: {reason}"))
        }
        _ => EngineError::Unavailable(reason),
    }
}

fn detail_of(status: &Status) -> Option<proto::ErrorDetail> {
    let envelope = proto::RpcStatus::decode(status.details()).ok()?;
    let any = envelope.details.into_iter().find(|any| any.type_url == DETAIL_TYPE_URL)?;
    proto::ErrorDetail::decode(&*any.value).ok()
}

fn error_of_detail(detail: proto::ErrorDetail) -> EngineError {
    use proto::ErrorCode as Detail;
    let reason = cut(&detail.reason, REASON_BYTES_MAX);
    match Detail::try_from(detail.code) {
        Ok(Detail::Unavailable) => EngineError::Unavailable(reason),
        Ok(Detail::Unauthenticated) => EngineError::Unauthenticated(reason),
        Ok(Detail::Illegal) => EngineError::Illegal(reason),
        Ok(Detail::Malformed) => EngineError::Illegal(format!("malformed call: {reason}")),
        Ok(Detail::Mismatch) => EngineError::Mismatch(reason),
        Ok(Detail::Internal) => EngineError::Internal(reason),
        Ok(Detail::UnknownBlock) => match hash("block_hash", &detail.block_hash) {
            Ok(hash) => EngineError::UnknownBlock(hash),
            Err(error) => malformed_answer(&error),
        },
        Ok(Detail::Unspecified) | Err(_) => EngineError::Internal(format!(
            "the executor answered with the unknown error code {}: {reason}",
            detail.code
        )),
    }
}

/// The other side broke the protocol: no verdict can be taken from its answer.
pub(crate) fn malformed_answer(error: &WireError) -> EngineError {
    EngineError::Internal(format!("malformed answer of the executor: {error}"))
}

pub(crate) fn hash(field: &'static str, bytes: &[u8]) -> Result<B256, WireError> {
    fixed(field, bytes).map(B256::new)
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::WrongLength { field, actual: bytes.len(), expected: N })
}

fn within(field: &'static str, actual: usize, limit: usize) -> Result<(), WireError> {
    if actual <= limit { Ok(()) } else { Err(WireError::TooLong { field, actual, limit }) }
}

fn bounded(field: &'static str, bytes: Vec<u8>, limit: usize) -> Result<Vec<u8>, WireError> {
    within(field, bytes.len(), limit).map(|()| bytes)
}

fn canonical<T: borsh::BorshDeserialize>(field: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    decode(bytes).map_err(|error| WireError::NotCanonical {
        field,
        actual: error.length,
        reason: error.reason,
    })
}

fn system_inputs(bytes: &[u8]) -> Result<SystemInputs, WireError> {
    within("system_inputs", bytes.len(), SYSTEM_INPUTS_BYTES_MAX)?;
    canonical("system_inputs", bytes)
}

fn code_to_wire(code: RejectionCode) -> proto::RejectionCode {
    match code {
        RejectionCode::BadHeader => proto::RejectionCode::BadHeader,
        RejectionCode::BadCommitment => proto::RejectionCode::BadCommitment,
        RejectionCode::InvalidPayload => proto::RejectionCode::InvalidPayload,
        RejectionCode::StateHashMismatch => proto::RejectionCode::StateHashMismatch,
        RejectionCode::ReceiptsHashMismatch => proto::RejectionCode::ReceiptsHashMismatch,
        RejectionCode::BadSystemInputs => proto::RejectionCode::BadSystemInputs,
    }
}

fn code_from_wire(code: i32) -> Result<RejectionCode, WireError> {
    match proto::RejectionCode::try_from(code) {
        Ok(proto::RejectionCode::BadHeader) => Ok(RejectionCode::BadHeader),
        Ok(proto::RejectionCode::BadCommitment) => Ok(RejectionCode::BadCommitment),
        Ok(proto::RejectionCode::InvalidPayload) => Ok(RejectionCode::InvalidPayload),
        Ok(proto::RejectionCode::StateHashMismatch) => Ok(RejectionCode::StateHashMismatch),
        Ok(proto::RejectionCode::ReceiptsHashMismatch) => Ok(RejectionCode::ReceiptsHashMismatch),
        Ok(proto::RejectionCode::BadSystemInputs) => Ok(RejectionCode::BadSystemInputs),
        Ok(proto::RejectionCode::Unspecified) | Err(_) => {
            Err(WireError::UnknownValue { field: "rejection code", actual: code })
        }
    }
}

/// At most `limit` bytes of a text, cut between characters.
fn cut(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

#[cfg(test)]
mod tests;
