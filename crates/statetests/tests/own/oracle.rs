//! What must come out of a spec, by plain revm with its own database: nothing of the executor under test is used but
//! the key that signs. Writes the fixture in the format of state tests.

use crate::spec::{Acct, Expect, Fees, Spec, key, secret, sender};
use alloy_consensus::{TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::{TrieAccount, root};
use execution::Fork;
use revm::{
    Context, ExecuteCommitEvm, MainBuilder, MainContext,
    bytecode::Bytecode,
    context::{
        BlockEnv, CfgEnv, TxEnv,
        result::{EVMError, ExecutionResult},
    },
    context_interface::{block::BlobExcessGasAndPrice, either::Either},
    database::{AccountState, CacheDB, DbAccount, EmptyDB},
    primitives::hardfork::SpecId,
    state::AccountInfo,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes of code or data above which a fixture has no state in full.
const LONG: usize = 2_000;
/// Variants above which it has none either.
const VARIANTS: usize = 3;

type Db = CacheDB<EmptyDB>;

/// One spec as a fixture.
pub(crate) fn fixture(spec: &Spec) -> Value {
    let post: BTreeMap<&str, Vec<Value>> =
        spec.forks.iter().map(|fork| (title(*fork), posts(spec, *fork))).collect();
    json!({
        (spec.name.as_str()): {
            "_info": { "comment": spec.comment, "oracle": "revm" },
            "config": { "chainid": "0x01" },
            "env": {
                "currentBaseFee": hex(spec.env.base_fee),
                "currentCoinbase": spec.env.coinbase,
                "currentDifficulty": "0x00",
                "currentExcessBlobGas": "0x00",
                "currentGasLimit": hex(spec.env.gas_limit),
                "currentNumber": hex(spec.env.number),
                "currentRandom": spec.env.random,
                "currentTimestamp": hex(spec.env.timestamp),
            },
            "pre": spec.pre.iter().map(|(address, account)| (address.to_string().to_lowercase(), account_json(account)))
                .collect::<BTreeMap<_, _>>(),
            "transaction": transaction_json(spec),
            "post": post,
        }
    })
}

fn title(fork: Fork) -> &'static str {
    match fork {
        Fork::Cancun => "Cancun",
        Fork::Prague => "Prague",
        Fork::Osaka => "Osaka",
    }
}

fn hex(number: impl Into<u128>) -> String {
    format!("{:#x}", number.into())
}

fn posts(spec: &Spec, fork: Fork) -> Vec<Value> {
    let mut posts = Vec::new();
    for data in 0..spec.tx.data.len() {
        for gas in 0..spec.tx.gas.len() {
            for value in 0..spec.tx.value.len() {
                posts.push(post(spec, fork, (data, gas, value)));
            }
        }
    }
    posts
}

fn post(spec: &Spec, fork: Fork, indexes: (usize, usize, usize)) -> Value {
    let what = format!("{}/{} {} {indexes:?}", spec.folder, spec.name, title(fork));
    let mut post = json!({ "indexes": { "data": indexes.0, "gas": indexes.1, "value": indexes.2 } });
    if spec.with_bytes {
        post["txbytes"] = json!(spec.tx.raw.clone().unwrap_or_else(|| signed(spec, indexes)));
    }
    let (logs, state) = match spec.expect {
        Expect::Refused(exception) => {
            // Bytes that are no transaction never reach an EVM: their refusal is the author's word.
            if spec.tx.raw.is_none() {
                let refused = transact(spec, fork, indexes);
                assert!(refused.is_err(), "{what}: must be refused, is {:?}", refused.unwrap().1);
            }
            post["expectException"] = json!(exception);
            (Vec::new(), state_of(&pre_state(spec)))
        }
        expect => {
            let (db, result) =
                transact(spec, fork, indexes).unwrap_or_else(|error| panic!("{what}: {error}"));
            match expect {
                Expect::Success => assert!(result.is_success(), "{what}: {result:?}"),
                Expect::Failure => assert!(!result.is_success(), "{what}: {result:?}"),
                _ => {}
            }
            let state = state_of(&db);
            for (address, slot, value) in &spec.sees {
                let found = state.get(address).and_then(|account| account.storage.get(&U256::from(*slot)));
                assert_eq!(found.copied().unwrap_or_default(), *value, "{what}: slot {slot} of {address}");
            }
            for address in &spec.gone {
                assert!(!state.contains_key(address), "{what}: {address} exists");
            }
            (if result.is_success() { result.into_logs() } else { Vec::new() }, state)
        }
    };
    let mut encoded = Vec::new();
    alloy_rlp::encode_list(&logs, &mut encoded);
    post["hash"] = json!(state_root(&state));
    post["logs"] = json!(keccak256(&encoded));
    // Long code and many variants make long files; the root says the same.
    let variants = spec.tx.data.len() * spec.tx.gas.len() * spec.tx.value.len();
    if variants > VARIANTS
        || spec.tx.data.iter().any(|data| data.len() > LONG)
        || state.values().any(|account| account.code.len() > LONG)
    {
        return post;
    }
    post["state"] = state
        .iter()
        .map(|(address, account)| (address.to_string().to_lowercase(), account_json(account)))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    post
}

fn transact(
    spec: &Spec,
    fork: Fork,
    indexes: (usize, usize, usize),
) -> Result<(Db, ExecutionResult), String> {
    let id = match fork {
        Fork::Cancun => SpecId::CANCUN,
        Fork::Prague => SpecId::PRAGUE,
        Fork::Osaka => SpecId::OSAKA,
    };
    let block = BlockEnv {
        number: U256::from(spec.env.number),
        beneficiary: spec.env.coinbase,
        timestamp: U256::from(spec.env.timestamp),
        gas_limit: spec.env.gas_limit,
        basefee: spec.env.base_fee,
        prevrandao: Some(spec.env.random),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
        ..Default::default()
    };
    let cfg = CfgEnv::new_with_spec(id).with_chain_id(1);
    let context = Context::mainnet().with_db(pre_state(spec)).with_cfg(cfg).with_block(block);
    let mut evm = context.build_mainnet();
    match evm.transact_commit(tx_env(spec, indexes)) {
        Ok(result) => Ok((evm.ctx.journaled_state.database, result)),
        Err(EVMError::Transaction(error)) => Err(error.to_string()),
        Err(error) => panic!("{}: {error}", spec.name),
    }
}

fn pre_state(spec: &Spec) -> Db {
    let mut db = Db::default();
    for (address, account) in &spec.pre {
        let code = Bytecode::new_raw(account.code.clone());
        let code_hash = code.hash_slow();
        db.insert_account_info(
            *address,
            AccountInfo {
                balance: account.balance,
                nonce: account.nonce,
                code_hash,
                code: Some(code),
                account_id: None,
            },
        );
        for (slot, value) in &account.storage {
            db.insert_account_storage(*address, *slot, *value).unwrap();
        }
    }
    db
}

fn tx_env(spec: &Spec, (data, gas, value): (usize, usize, usize)) -> TxEnv {
    let tx = &spec.tx;
    let (tx_type, gas_price, gas_priority_fee) = match (tx.fees, &tx.authorizations, &tx.access_list) {
        (Fees::Dynamic(cap, tip), Some(_), _) => (4, cap, Some(tip)),
        (Fees::Dynamic(cap, tip), None, _) => (2, cap, Some(tip)),
        (Fees::Price(price), _, Some(_)) => (1, price, None),
        (Fees::Price(price), _, None) => (0, price, None),
    };
    TxEnv {
        tx_type,
        caller: sender(),
        gas_limit: tx.gas[gas],
        gas_price,
        gas_priority_fee,
        kind: tx.to,
        value: tx.value[value],
        data: tx.data[data].clone(),
        nonce: tx.nonce,
        chain_id: (tx_type != 0 || tx.protected).then_some(tx.chain_id),
        access_list: tx.access_list.clone().unwrap_or_default(),
        authorization_list: tx.authorizations.iter().flatten().cloned().map(Either::Left).collect(),
        ..Default::default()
    }
}

/// What exists, with the slots that are not zero.
fn state_of(db: &Db) -> BTreeMap<Address, Acct> {
    // revm's cache keeps an account that a transaction touched and left empty; by EIP-161 it is gone.
    let exists = |account: &DbAccount| match account.account_state {
        AccountState::NotExisting => false,
        AccountState::None => true,
        AccountState::Touched | AccountState::StorageCleared => !account.info.is_empty(),
    };
    let existing = db.cache.accounts.iter().filter(|(_, account)| exists(account));
    existing
        .map(|(address, account)| {
            let code = match account.info.code_hash {
                KECCAK256_EMPTY => Bytes::new(),
                hash => db.cache.contracts[&hash].original_bytes(),
            };
            let storage = account.storage.iter().filter(|(_, value)| !value.is_zero());
            let storage = storage.map(|(slot, value)| (*slot, *value)).collect();
            (*address, Acct { nonce: account.info.nonce, balance: account.info.balance, code, storage })
        })
        .collect()
}

fn state_root(state: &BTreeMap<Address, Acct>) -> B256 {
    root::state_root_unhashed(state.iter().map(|(address, account)| {
        let storage = account.storage.iter().map(|(slot, value)| (B256::from(*slot), *value));
        let storage_root = root::storage_root_unhashed(storage);
        (*address, TrieAccount::new(account.nonce, account.balance, storage_root, keccak256(&account.code)))
    }))
}

fn account_json(account: &Acct) -> Value {
    let word = |value: &U256| format!("{value:#x}");
    json!({
        "nonce": hex(account.nonce),
        "balance": word(&account.balance),
        "code": account.code,
        "storage": account.storage.iter().map(|(slot, value)| (word(slot), word(value))).collect::<BTreeMap<_, _>>(),
    })
}

fn transaction_json(spec: &Spec) -> Value {
    let tx = &spec.tx;
    let mut json = json!({
        "data": tx.data,
        "gasLimit": tx.gas.iter().map(|gas| hex(*gas)).collect::<Vec<_>>(),
        "value": tx.value.iter().map(|value| format!("{value:#x}")).collect::<Vec<_>>(),
        "to": tx.to.to().map(|to| to.to_string().to_lowercase()).unwrap_or_default(),
        "nonce": hex(tx.nonce),
        "secretKey": secret(1),
        "sender": sender(),
    });
    match tx.fees {
        Fees::Price(price) => json["gasPrice"] = json!(hex(price)),
        Fees::Dynamic(cap, tip) => {
            json["maxFeePerGas"] = json!(hex(cap));
            json["maxPriorityFeePerGas"] = json!(hex(tip));
        }
    }
    if !tx.protected {
        json["protected"] = json!(false);
    }
    if let Some(list) = &tx.access_list {
        json["accessLists"] = json!(vec![list; tx.data.len()]);
    }
    if let Some(list) = &tx.authorizations {
        let item = |signed: &alloy_eips::eip7702::SignedAuthorization| {
            json!({
                "chainId": format!("{:#x}", signed.chain_id),
                "address": signed.address,
                "nonce": hex(signed.nonce),
                "v": hex(signed.y_parity()),
                "yParity": hex(signed.y_parity()),
                "r": format!("{:#x}", signed.r()),
                "s": format!("{:#x}", signed.s()),
                "signer": signed.recover_authority().ok(),
            })
        };
        json["authorizationList"] = list.iter().map(item).collect();
    }
    json
}

fn signed(spec: &Spec, (data, gas, value): (usize, usize, usize)) -> Bytes {
    let tx = &spec.tx;
    let (nonce, gas_limit, chain_id) = (tx.nonce, tx.gas[gas], tx.chain_id);
    let (value, input, to) = (tx.value[value], tx.data[data].clone(), tx.to);
    let access_list = tx.access_list.clone().unwrap_or_default();
    let key = key(1);
    let signed = match (tx.fees, &tx.authorizations) {
        (Fees::Price(gas_price), _) if tx.access_list.is_some() => key.sign_eip2930(TxEip2930 {
            chain_id,
            nonce,
            gas_price,
            gas_limit,
            to,
            value,
            access_list,
            input,
        }),
        (Fees::Price(gas_price), _) => {
            let chain_id = tx.protected.then_some(chain_id);
            key.sign_legacy(TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input })
        }
        (Fees::Dynamic(max_fee_per_gas, max_priority_fee_per_gas), None) => key.sign(TxEip1559 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value,
            access_list,
            input,
        }),
        (Fees::Dynamic(max_fee_per_gas, max_priority_fee_per_gas), Some(list)) => {
            key.sign_eip7702(TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to: *to.to().unwrap(),
                value,
                access_list,
                authorization_list: list.clone(),
                input,
            })
        }
    };
    signed.encoded().clone()
}
