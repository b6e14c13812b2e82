//! A consensus node as a source of updates: bounded answers, each within its time.

use crate::http::{Connection, Url};
use alloy_primitives::hex;
use light_client::{Checkpoint, Refusal, TRUST_EPOCHS_MIN, Update};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use types::limits::{HEADER_BYTES_MAX, VALIDATORS_MAX};
use types::{B256, CommitQc, Epoch, Header, Height, QuorumRule, Validator, ValidatorSet, decode};

/// Bytes of an answer: a header of the greatest size in hex, shown once more in words, a certificate and 1,024
/// validators.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Bytes of a certificate: 1,024 signers.
const CERTIFICATE_BYTES_MAX: usize = 4 << 10;

/// Why nothing more could be proven.
#[derive(Debug)]
pub enum Trouble {
    /// No answer, or none that says anything.
    Unreachable(String),
    /// The server answered, and what it said proves nothing or the contrary.
    Refused(String),
}

/// One node, asked over one connection.
pub struct Server {
    connection: Connection,
}

#[derive(Deserialize)]
struct HeadAnswer {
    finalized: Heighted,
}

#[derive(Deserialize)]
struct Heighted {
    height: Height,
}

#[derive(Deserialize)]
struct EncodedAnswer {
    encoded: String,
}

#[derive(Deserialize)]
struct UpdateAnswer {
    header: String,
    commit: String,
    validators: Vec<Validator>,
}

#[derive(Deserialize)]
struct SetAnswer {
    quorum: QuorumRule,
    validators: Vec<Validator>,
}

#[derive(Deserialize)]
struct GenesisAnswer {
    hash: B256,
}

#[derive(Deserialize)]
struct EpochAnswer {
    epoch_length: u64,
}

impl Server {
    pub fn new(url: Url, timeout: Duration) -> Self {
        Self { connection: Connection::new(url, timeout).with_body_limit(ANSWER_BYTES_MAX) }
    }

    /// What the server says is its last final height.
    pub async fn finalized_height(&mut self) -> Result<Height, Trouble> {
        self.get::<HeadAnswer>("/consensus/v1/head").await.map(|answer| answer.finalized.height)
    }

    /// What it says proves a height: the next final header from there on that has a certificate of its own.
    pub async fn update(&mut self, height: Height) -> Result<Update, Trouble> {
        let path = format!("/consensus/v1/update/{height}");
        let answer: UpdateAnswer = self.get(&path).await?;
        if answer.validators.len() > VALIDATORS_MAX {
            let count = answer.validators.len();
            return Err(
                self.lied(format!("{path}: {count} validators, at most {VALIDATORS_MAX} are possible"))
            );
        }
        Ok(Update {
            header: self.parse(&path, &answer.header, HEADER_BYTES_MAX)?,
            commit: self.parse::<CommitQc>(&path, &answer.commit, CERTIFICATE_BYTES_MAX)?,
            validators: Some(answer.validators),
        })
    }

    /// The header of a block, which the caller compares with the hash.
    pub async fn header(&mut self, hash: B256) -> Result<Header, Trouble> {
        let path = format!("/consensus/v1/headers/{hash}");
        let answer: EncodedAnswer = self.get(&path).await?;
        self.parse(&path, &answer.encoded, HEADER_BYTES_MAX)
    }

    /// The checkpoint that a trusted hash is. Everything the server adds is bound by that hash, but for the numbers of
    /// the chain, which a lie about only makes everything after it fail: no set signs for another genesis, or for an
    /// epoch that is not its own.
    pub async fn checkpoint_of(&mut self, trusted: B256) -> Result<Checkpoint, Trouble> {
        let header = self.header(trusted).await?;
        if header.hash() != trusted {
            return Err(self.lied(format!("asked for block {trusted}, it gave block {}", header.hash())));
        }
        let genesis: GenesisAnswer = self.get("/consensus/v1/headers/genesis").await?;
        let EpochAnswer { epoch_length } = self.get("/consensus/v1/epoch").await?;
        let path = format!("/consensus/v1/validators?epoch={}", header.epoch);
        let SetAnswer { quorum, validators } = self.get(&path).await?;
        let set = self.set(header.epoch, validators, quorum)?;
        if set.id() != header.validator_set_id {
            let (found, expected) = (set.id(), header.validator_set_id);
            return Err(self.lied(format!("{path}: a set with id {found}, block {trusted} names {expected}")));
        }
        Ok(Checkpoint {
            chain_id: header.chain_id,
            genesis_hash: genesis.hash,
            epoch_length,
            quorum,
            // No hash binds what the server would say.
            unbonding_epochs: TRUST_EPOCHS_MIN,
            epoch: header.epoch,
            height: header.height,
            block_hash: trusted,
            state_hash: Some(header.state_hash),
            timestamp_ms: header.timestamp_ms,
            validator_set_id: set.id(),
            next_validator_set_id: Some(header.next_validator_set_id),
            validators: set.validators().to_vec(),
        })
    }

    fn set(
        &self,
        epoch: Epoch,
        validators: Vec<Validator>,
        quorum: QuorumRule,
    ) -> Result<ValidatorSet, Trouble> {
        ValidatorSet::new(epoch, validators, quorum)
            .map_err(|error| self.lied(format!("its validators of epoch {epoch} make no set: {error}")))
    }

    /// What the server did that proves nothing.
    pub fn lied(&self, what: String) -> Trouble {
        Trouble::Refused(format!("{}: {what}", self.connection.url()))
    }

    /// A part of an answer the light client refused.
    pub fn refused(&self, what: &str, refusal: Refusal) -> Trouble {
        self.lied(format!("{what} is refused: {refusal}"))
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Trouble> {
        let url = self.connection.url().with_path(path);
        let response = self.connection.exchange(&url.get()).await;
        let response = response.map_err(|error| Trouble::Unreachable(format!("{url}: {error}")))?;
        if response.status != 200 {
            let said = String::from_utf8_lossy(&response.body);
            let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(Trouble::Unreachable(format!("{url}: HTTP status {}: {said}", response.status)));
        }
        serde_json::from_slice(&response.body)
            .map_err(|error| self.lied(format!("{path}: not the answer of a Tandem node: {error}")))
    }

    fn parse<T: borsh::BorshDeserialize>(
        &self,
        path: &str,
        text: &str,
        bytes_max: usize,
    ) -> Result<T, Trouble> {
        let digits = text.len() / 2;
        if digits > bytes_max + 1 {
            return Err(self.lied(format!("{path}: {digits} bytes, at most {bytes_max} are possible")));
        }
        let bytes = hex::decode(text).map_err(|error| self.lied(format!("{path}: not hex: {error}")))?;
        decode(&bytes).map_err(|error| self.lied(format!("{path}: {error}")))
    }
}
