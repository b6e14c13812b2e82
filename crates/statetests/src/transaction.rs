//! The signed transaction of a case.

use crate::{Case, Transaction, Wide, fixture};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::{
    eip2930::{AccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use execution::testing::TestKey;
use types::limits::TRANSACTION_BYTES_MAX;

/// Why a case has no transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTransaction {
    /// The fixture is wrong.
    Malformed(String),
    /// There is neither a signed transaction nor a key.
    Unsigned,
    /// It is longer than this chain's transactions.
    TooLong,
    /// It has fields that no transaction can hold: refused before it exists.
    Impossible(String),
}

/// Whether the fixture's transaction carries blobs.
pub(crate) fn has_blobs(transaction: &Transaction) -> bool {
    transaction.max_fee_per_blob_gas.is_some() || transaction.blob_versioned_hashes.is_some()
}

/// EIP-2718 bytes of a case's transaction: the fixture's own, or signed here with its key.
pub(crate) fn encoded(case: &Case<'_>, chain_id: u64) -> Result<Bytes, NoTransaction> {
    match &case.post.txbytes {
        Some(hex) => hex.parse().map_err(|error| malformed(format!("txbytes: {error}"))),
        None => sign(case, chain_id),
    }
}

fn sign(case: &Case<'_>, chain_id: u64) -> Result<Bytes, NoTransaction> {
    let template = &case.fixture.transaction;
    let Some(secret) = template.secret_key else { return Err(NoTransaction::Unsigned) };
    let key = TestKey::from_secret(B256::from(secret.0)).ok_or_else(|| malformed("secretKey is no key"))?;
    let fields = Fields::choose(case)?;
    // The signer cannot hold a transaction that is too long for this chain.
    if fields.bytes_at_most(template) > TRANSACTION_BYTES_MAX {
        return Err(NoTransaction::TooLong);
    }
    let signed = match fields.kind(template) {
        Kind::Legacy => key.sign_legacy(TxLegacy {
            chain_id: (template.protected != Some(false)).then_some(chain_id),
            nonce: fields.nonce,
            gas_price: fields.price(template)?,
            gas_limit: fields.gas_limit,
            to: fields.to,
            value: fields.value,
            input: fields.input,
        }),
        Kind::AccessList => key.sign_eip2930(TxEip2930 {
            chain_id,
            nonce: fields.nonce,
            gas_price: fields.price(template)?,
            gas_limit: fields.gas_limit,
            to: fields.to,
            value: fields.value,
            access_list: fields.access_list,
            input: fields.input,
        }),
        Kind::DynamicFee => key.sign(TxEip1559 {
            chain_id,
            nonce: fields.nonce,
            gas_limit: fields.gas_limit,
            max_fee_per_gas: fields.fee_cap(template)?,
            max_priority_fee_per_gas: fields.tip(template)?,
            to: fields.to,
            value: fields.value,
            access_list: fields.access_list,
            input: fields.input,
        }),
        Kind::SetCode => key.sign_eip7702(TxEip7702 {
            chain_id,
            nonce: fields.nonce,
            gas_limit: fields.gas_limit,
            max_fee_per_gas: fields.fee_cap(template)?,
            max_priority_fee_per_gas: fields.tip(template)?,
            to: *fields.to.to().ok_or_else(|| impossible("an EIP-7702 transaction creates no contract"))?,
            value: fields.value,
            access_list: fields.access_list,
            authorization_list: authorizations(template)?,
            input: fields.input,
        }),
    };
    Ok(signed.encoded().clone())
}

enum Kind {
    Legacy,
    AccessList,
    DynamicFee,
    SetCode,
}

/// The chosen variant.
struct Fields {
    nonce: u64,
    gas_limit: u64,
    to: TxKind,
    value: U256,
    input: Bytes,
    access_list: AccessList,
    has_access_list: bool,
}

impl Fields {
    fn choose(case: &Case<'_>) -> Result<Self, NoTransaction> {
        let (template, indexes) = (&case.fixture.transaction, case.post.indexes);
        let missing = |what: &str| malformed(format!("an index of {what} is out of range"));
        let input = template.data.get(indexes.data).ok_or_else(|| missing("data"))?;
        let gas_limit = template.gas_limit.get(indexes.gas).ok_or_else(|| missing("gasLimit"))?;
        let value = template.value.get(indexes.value).ok_or_else(|| missing("value"))?;
        let lists = template.access_lists.as_ref();
        let access_list = lists.and_then(|lists| lists.get(indexes.data)).and_then(Option::as_ref);
        Ok(Self {
            nonce: template.nonce.to_u64().ok_or_else(|| impossible("nonce beyond 64 bits"))?,
            gas_limit: gas_limit.to_u64().ok_or_else(|| impossible("gas limit beyond 64 bits"))?,
            to: recipient(template.to.as_deref())?,
            value: value.0.ok_or_else(|| impossible("value beyond 256 bits"))?.0,
            input: input.clone(),
            has_access_list: access_list.is_some(),
            access_list: access_list.map(|list| list_of(list)).unwrap_or_default(),
        })
    }

    /// No fewer bytes than the transaction will have.
    fn bytes_at_most(&self, template: &Transaction) -> usize {
        const FIXED: usize = 512;
        const ADDRESS: usize = 32;
        const WORD: usize = 33;
        const AUTHORIZATION: usize = 160;
        let items = self.access_list.iter().map(|item| ADDRESS + WORD * item.storage_keys.len());
        let authorizations = template.authorization_list.as_ref().map_or(0, Vec::len);
        FIXED + self.input.len() + items.sum::<usize>() + AUTHORIZATION * authorizations
    }

    fn kind(&self, template: &Transaction) -> Kind {
        match (&template.authorization_list, &template.max_fee_per_gas) {
            (Some(_), _) => Kind::SetCode,
            (None, Some(_)) => Kind::DynamicFee,
            (None, None) if self.has_access_list => Kind::AccessList,
            (None, None) => Kind::Legacy,
        }
    }

    fn price(&self, template: &Transaction) -> Result<u128, NoTransaction> {
        fee(template.gas_price, "gasPrice")
    }

    fn fee_cap(&self, template: &Transaction) -> Result<u128, NoTransaction> {
        fee(template.max_fee_per_gas, "maxFeePerGas")
    }

    fn tip(&self, template: &Transaction) -> Result<u128, NoTransaction> {
        fee(template.max_priority_fee_per_gas, "maxPriorityFeePerGas")
    }
}

fn fee(quantity: Option<Wide>, name: &str) -> Result<u128, NoTransaction> {
    let quantity = quantity.ok_or_else(|| malformed(format!("{name} is missing")))?;
    quantity.to_u128().ok_or_else(|| impossible(format!("{name} beyond 128 bits")))
}

fn recipient(to: Option<&str>) -> Result<TxKind, NoTransaction> {
    match to {
        None | Some("" | "0x") => Ok(TxKind::Create),
        Some(text) => {
            let address: Address = text.parse().map_err(|error| malformed(format!("to: {error}")))?;
            Ok(TxKind::Call(address))
        }
    }
}

fn list_of(items: &[fixture::AccessListItem]) -> AccessList {
    let item = |item: &fixture::AccessListItem| AccessListItem {
        address: item.address,
        storage_keys: item.storage_keys.iter().map(|key| B256::from(key.0)).collect(),
    };
    AccessList(items.iter().map(item).collect())
}

fn authorizations(template: &Transaction) -> Result<Vec<SignedAuthorization>, NoTransaction> {
    let list = template.authorization_list.as_deref().unwrap_or_default();
    list.iter()
        .map(|item| {
            let nonce =
                item.nonce.to_u64().ok_or_else(|| impossible("authorization's nonce beyond 64 bits"))?;
            let parity = item.v.or(item.y_parity).ok_or_else(|| malformed("authorization without parity"))?;
            let parity = parity.to_u64().and_then(|parity| u8::try_from(parity).ok());
            let parity = parity.ok_or_else(|| impossible("authorization's parity beyond 8 bits"))?;
            let word = |wide: Wide| {
                let word = wide.0.map(|quantity| quantity.0);
                word.ok_or_else(|| impossible("authorization's number beyond 256 bits"))
            };
            let inner = Authorization { chain_id: word(item.chain_id)?, address: item.address, nonce };
            Ok(SignedAuthorization::new_unchecked(inner, parity, word(item.r)?, word(item.s)?))
        })
        .collect()
}

fn malformed(reason: impl Into<String>) -> NoTransaction {
    NoTransaction::Malformed(reason.into())
}

fn impossible(reason: impl Into<String>) -> NoTransaction {
    NoTransaction::Impossible(reason.into())
}
