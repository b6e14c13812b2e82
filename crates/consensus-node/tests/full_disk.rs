//! A disk that takes no more. Alone in its process, because the limit that plays the full disk is the process's.
#![allow(clippy::unwrap_used)]

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use tokio::signal::unix::{SignalKind, signal};

/// `SIGXFSZ` on every platform: sent beside the error, and deadly unless handled.
const FILE_SIZE_EXCEEDED: i32 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_signing_is_named_and_costs_nothing_that_was_final() {
    let _handled = signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED)).unwrap();
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(3).await;

    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(4096), ..before }).unwrap();
    let status = node.status_when("disk failed", |status| reason(status, "disk_failed").is_some()).await;
    assert_eq!(status["reasons"][0]["code"], "disk_failed", "the most fundamental reason comes first");
    assert_eq!(node.get("/node/v1/health").await.0, 503);
    let (_, metrics) = http_get(node.metrics, "/metrics").await;
    assert!(metrics.contains("tandem_consensus_disk_failed 1"), "{metrics}");
    // What is there can still be read; nothing moves, even when there is room again.
    setrlimit(Resource::Fsize, before).unwrap();
    let height = status["height"].as_u64().unwrap();
    let last = node.json(&format!("/consensus/v1/headers/{height}")).await;
    assert_eq!(node.json("/node/v1/status").await["height"], height);
    node.stop().await.unwrap();

    let node = network.start(0).await;
    node.height_reaches(height + 3).await;
    assert_eq!(node.json(&format!("/consensus/v1/headers/{height}")).await["hash"], last["hash"]);
    node.stop().await.unwrap();
}
