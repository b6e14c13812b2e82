//! `tandem status`: what consensus nodes say about themselves, side by side.

use crate::error::{CliError, CliResult};
use crate::http::{Connection, Url};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `tandem status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// REST addresses of consensus nodes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:5052")]
    rest: Vec<Url>,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

/// The part of `/node/v1/status` that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether nothing stops it.
    pub healthy: bool,
    /// `validator` or `follower`.
    pub role: String,
    /// Position in the validator set.
    pub index: Option<u32>,
    /// Epoch.
    pub epoch: Option<u64>,
    /// View.
    pub view: Option<u64>,
    /// Last finalized height.
    pub height: Option<u64>,
    /// Its block hash.
    pub hash: Option<String>,
    /// Who of the set is connected.
    pub validators: Option<Presence>,
    /// The executor.
    pub engine: Engine,
    /// Slashable acts proven to the node; versions before evidence say nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Offences>,
    /// Why consensus does not move.
    pub reasons: Vec<Reason>,
}

/// Evidence known to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offences {
    /// Pieces that wait for a block.
    pub pending: u64,
    /// Validators named in final blocks.
    pub named: u64,
}

/// How many of the set are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Members.
    pub total: u32,
    /// Connected ones, this node included.
    pub connected: u32,
}

/// State of the link to the executor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// `up`, `down` or `mismatch`.
    pub state: String,
}

/// A reason in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its stable name.
    pub code: String,
    /// For people.
    pub message: String,
}

impl NodeStatus {
    /// Who was caught, in one line; `None` when nobody was.
    pub fn evidence_line(&self) -> Option<String> {
        let Offences { pending, named } = self.evidence.as_ref()?;
        (*pending > 0 || *named > 0).then(|| {
            format!(
                "EVIDENCE: {named} validators named in final blocks, {pending} pieces wait for one \
                 (see /consensus/v1/evidence)"
            )
        })
    }

    /// Why the node does not move, in one line.
    pub fn reason_line(&self) -> String {
        self.reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ")
    }
}

/// Asks a node over an open connection.
pub async fn fetch(connection: &mut Connection) -> Result<NodeStatus, String> {
    let url = connection.url().with_path("/node/v1/status");
    let response = connection.exchange(&url.get()).await.map_err(|error| error.to_string())?;
    if response.status != 200 {
        return Err(format!("HTTP status {}", response.status));
    }
    serde_json::from_slice(&response.body).map_err(|error| format!("unreadable status: {error}"))
}

#[derive(Serialize)]
struct Row {
    rest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs `tandem status`.
pub fn run(args: &Args) -> CliResult {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::while_trying("start the runtime"))?;
    let rows = runtime.block_on(async {
        let asking = args.rest.iter().map(|url| async move {
            let mut connection = Connection::new(url.clone(), TIMEOUT);
            match fetch(&mut connection).await {
                Ok(status) => Row { rest: url.to_string(), status: Some(status), error: None },
                Err(error) => Row { rest: url.to_string(), status: None, error: Some(error) },
            }
        });
        futures::future::join_all(asking).await
    });
    if args.json {
        println!("{}", serde_json::to_string(&rows).map_err(CliError::while_trying("write the status"))?);
    } else {
        print_table(&rows);
    }
    verdict(&rows)
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<32} {:<9} {:>9} {:>6} {:>8} {:>7}  {:<10} reason",
        "node", "role", "height", "epoch", "view", "peers", "hash"
    );
    let number = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
    for row in rows {
        let Some(status) = &row.status else {
            println!("{:<32} unreachable: {}", row.rest, row.error.as_deref().unwrap_or("unknown"));
            continue;
        };
        let peers = status.validators.as_ref().map_or("-".into(), |v| format!("{}/{}", v.connected, v.total));
        let hash: String = status.hash.as_deref().unwrap_or("-").chars().take(10).collect();
        println!(
            "{:<32} {:<9} {:>9} {:>6} {:>8} {:>7}  {:<10} {}",
            row.rest,
            status.role,
            number(status.height),
            number(status.epoch),
            number(status.view),
            peers,
            hash,
            if status.healthy { "ok".into() } else { status.reason_line() }
        );
        if let Some(line) = status.evidence_line() {
            println!("{:<32} {line}", "");
        }
    }
}

fn verdict(rows: &[Row]) -> CliResult {
    let unreachable = rows.iter().filter(|row| row.status.is_none()).count();
    if unreachable > 0 {
        return Err(CliError::new(format!("{unreachable} of {} nodes do not answer", rows.len())));
    }
    match rows.iter().flat_map(|row| &row.status).filter(|status| !status.healthy).count() {
        0 => Ok(()),
        count => Err(CliError::problem(format!("{count} of {} nodes are not healthy", rows.len()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_status_with_fields_of_later_versions_is_read() {
        let json = r#"{"healthy":false,"role":"validator","index":1,"epoch":0,"view":7,"height":3,"hash":"0xab",
            "validators":{"total":4,"connected":2,"total_stake":"4"},"engine":{"state":"up"},"news":1,
            "reasons":[{"code":"below_quorum","message":"missing 2, 3","missing":[]}]}"#;
        let status: NodeStatus = serde_json::from_str(json).unwrap();
        assert_eq!(status.reason_line(), "missing 2, 3");
        assert_eq!(status.evidence_line(), None);
        let caught = NodeStatus { evidence: Some(Offences { pending: 1, named: 0 }), ..status.clone() };
        assert!(caught.evidence_line().unwrap().contains("1 pieces wait"));
        assert_eq!(status.validators.unwrap().connected, 2);
    }
}
