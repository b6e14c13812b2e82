//! Makes sure that every sending account can pay for its share.

use super::sign::{TRANSFER_GAS, Terms, transfer};
use crate::accounts::Account;
use crate::error::{CliError, CliResult};
use crate::rpc::{Rpc, RpcError};
use alloy_primitives::U256;
use serde_json::json;
use std::time::{Duration, Instant};

/// Accounts at the start of the mnemonic that hold coins on a development chain.
pub const DONORS: usize = 10;

const FUNDING_TIMEOUT: Duration = Duration::from_secs(60);

/// Gives every one of the first `senders` accounts what `per_account` transfers can cost at most.
pub async fn fund(
    rpc: &mut Rpc,
    accounts: &[Account],
    senders: usize,
    per_account: u64,
    terms: &Terms,
) -> CliResult {
    let fee = U256::from(terms.max_fee) * U256::from(TRANSFER_GAS);
    let need = (fee + U256::from(1)) * U256::from(per_account);
    let mut balances = Vec::with_capacity(accounts.len());
    for account in accounts {
        balances.push(balance(rpc, account).await?);
    }
    let poor: Vec<usize> = (0..senders).filter(|i| balances[*i] < need).collect();
    if poor.is_empty() {
        return Ok(());
    }
    eprintln!("funding {} accounts", poor.len());
    let mut nonces = nonces(rpc, &accounts[..DONORS]).await?;
    for i in &poor {
        // A donor that also sends keeps its own share.
        let keep = |donor: usize| if donor < senders { need } else { U256::ZERO };
        let spare = |donor: usize| balances[donor].saturating_sub(keep(donor) + fee);
        let richest = (0..DONORS).max_by_key(|donor| spare(*donor)).unwrap_or(0);
        if spare(richest) < need {
            return Err(CliError::new(format!(
                "the first {DONORS} accounts of the mnemonic cannot fund {} senders with {need} wei each: use fewer \
                 --txs, a lower --max-fee-gwei, or a chain whose genesis funds them",
                poor.len()
            )));
        }
        let gift = transfer(&accounts[richest], nonces[richest], accounts[*i].address, need, terms);
        rpc.call::<serde_json::Value>("eth_sendRawTransaction", json!([gift.raw_hex]))
            .await
            .map_err(failed)?;
        nonces[richest] += 1;
        balances[richest] -= need + fee;
    }
    wait_for_gifts(rpc, accounts, &poor, need).await
}

async fn wait_for_gifts(rpc: &mut Rpc, accounts: &[Account], poor: &[usize], need: U256) -> CliResult {
    let started = Instant::now();
    for i in poor {
        while balance(rpc, &accounts[*i]).await? < need {
            if started.elapsed() > FUNDING_TIMEOUT {
                return Err(CliError::new(format!(
                    "funding did not become final within {FUNDING_TIMEOUT:?}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Next nonces as of the latest block.
pub async fn nonces(rpc: &mut Rpc, accounts: &[Account]) -> CliResult<Vec<u64>> {
    let mut nonces = Vec::with_capacity(accounts.len());
    for account in accounts {
        let params = json!([account.address, "latest"]);
        let nonce = rpc.quantity("eth_getTransactionCount", params).await.map_err(failed)?;
        nonces.push(u64::try_from(nonce).map_err(|_| CliError::new("a nonce exceeds 64 bits"))?);
    }
    Ok(nonces)
}

async fn balance(rpc: &mut Rpc, account: &Account) -> CliResult<U256> {
    rpc.call("eth_getBalance", json!([account.address, "latest"])).await.map_err(failed)
}

fn failed(error: RpcError) -> CliError {
    CliError::new(error.to_string())
}
