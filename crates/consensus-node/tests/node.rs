//! Whole consensus nodes: real journal, real mesh, real engine connection, executors in memory.
#![allow(clippy::unwrap_used)]

mod support;

use consensus_node::{Config, Error, run, write_key};
use crypto::SecretKey;
use serde_json::Value;
use std::collections::BTreeSet;
use support::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_validator_finalizes_and_its_interface_tells_all() {
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(3).await;

    let status = node.json("/node/v1/status").await;
    assert_eq!(
        (&status["healthy"], &status["role"], &status["index"]),
        (&true.into(), &"validator".into(), &0.into())
    );
    assert_eq!(status["engine"]["client_version"], "test-executor/1");
    assert_eq!(
        node.get("/node/v1/health").await,
        (200, serde_json::json!({ "status": "ok", "reasons": [] }))
    );

    let by_height = node.json("/consensus/v1/headers/2").await;
    assert_eq!((&by_height["height"], &by_height["status"]), (&2.into(), &"finalized".into()));
    let hash = by_height["hash"].as_str().unwrap();
    assert_eq!(node.json(&format!("/consensus/v1/headers/{hash}")).await, by_height);
    let child = node.json("/consensus/v1/headers/3").await;
    assert_eq!(child["parent_hash"], by_height["hash"]);
    let encoded = alloy_primitives::hex::decode(by_height["encoded"].as_str().unwrap()).unwrap();
    let header: types::Header = types::decode(&encoded).unwrap();
    assert_eq!(header.hash().to_string(), hash);

    let genesis = node.json("/consensus/v1/headers/genesis").await;
    assert_eq!(genesis["hash"], network.genesis.hash().to_string());
    assert_eq!(node.json("/consensus/v1/headers/0").await, genesis);
    assert!(node.json("/consensus/v1/head").await["finalized"]["height"].as_u64() >= Some(3));

    let commit = node.json("/consensus/v1/commit/2").await;
    assert_eq!(commit["block_hash"], by_height["hash"]);
    assert!(commit["certificate"]["height"].as_u64() >= Some(2));
    assert_eq!(commit["certificate"]["signed_stake"], "100");
    let decision = node.json("/consensus/v1/decision/2").await;
    assert_eq!((&decision["status"], &decision["required"]), (&"Committed".into(), &"67".into()));
    assert_eq!(decision["block_hash"], by_height["hash"]);
    let future = node.json("/consensus/v1/decision/18446744073709551615").await;
    assert_eq!(future["status"], "Pending");

    let validators = node.json("/consensus/v1/validators?epoch=0").await;
    assert_eq!(
        (&validators["required_stake"], &validators["validators"][0]["connected"]),
        (&"67".into(), &true.into())
    );
    let proposers = node.json("/consensus/v1/proposers?from=1&count=5").await;
    assert_eq!(proposers["proposers"].as_array().unwrap().len(), 5);
    assert_eq!(node.json("/consensus/v1/epoch").await["validators"], 1);
    let recent = node.json("/consensus/v1/headers?count=2").await;
    assert_eq!(recent["headers"].as_array().unwrap().len(), 2);
    assert_eq!(node.json("/node/v1/peers").await["connected"], 0);
    assert_eq!(node.json("/node/v1/version").await["name"], "tandem-consensusd");

    let (code, metrics) = http_get(node.metrics, "/metrics").await;
    assert_eq!(code, 200);
    for name in [
        "tandem_consensus_finalized_height ",
        "tandem_consensus_stalled 0",
        "tandem_consensus_finality_seconds_count ",
        "tandem_consensus_journal_fsync_seconds_count ",
        "method=\"ForkchoiceUpdated\",status=\"ok\"",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_names_every_path_and_the_dashboard_is_one_page() {
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(1).await;
    let description = node.json("/openapi.json").await;
    let paths: BTreeSet<&String> = description["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 17);
    for path in paths.into_iter().filter(|path| !path.ends_with("/events")) {
        let path = path.replace("{id}", "head").replace("{height}", "1");
        assert_eq!(node.get(&path).await.0, 200, "{path}");
    }
    // Every reference in the description leads somewhere.
    let text = description.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(description["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let (_, page) = http_get(node.rest, "/").await;
    assert!(page.contains("<title>Tandem</title>") && !page.contains("src=\"http"), "self-contained");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_stream_tells_heads_and_final_blocks() {
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(1).await;
    let mut stream = TcpStream::connect(node.rest).await.unwrap();
    let request = "GET /consensus/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let (mut heads, mut heights) = (0, Vec::new());
    let read = async {
        let mut topic = String::new();
        while heads < 2 || heights.len() < 3 {
            let line = lines.next_line().await.unwrap().expect("the stream does not end");
            if let Some(name) = line.strip_prefix("event: ") {
                topic = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                match topic.as_str() {
                    "head" => heads += 1,
                    "finalized" => heights.push(data["height"].as_u64().unwrap()),
                    other => panic!("unknown event {other}"),
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("events come");
    assert!(heights.windows(2).all(|pair| pair[1] == pair[0] + 1), "{heights:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_get_a_code_and_a_message() {
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(1).await;
    for (path, code) in [
        ("/nothing", 404),
        ("/consensus/v1/headers/latest", 400),
        ("/consensus/v1/headers/0x12", 400),
        ("/consensus/v1/headers/-1", 400),
        ("/consensus/v1/headers/99999999", 404),
        (&format!("/consensus/v1/headers/0x{}", "ab".repeat(32)), 404),
        ("/consensus/v1/headers?count=-1", 400),
        ("/consensus/v1/headers?size=1", 400),
        ("/consensus/v1/commit/0", 404),
        ("/consensus/v1/commit/99999999", 404),
        ("/consensus/v1/commit/x", 400),
        ("/consensus/v1/decision/18446744073709551616", 400),
        ("/consensus/v1/validators?epoch=7", 404),
        ("/consensus/v1/validators?epoch=x", 400),
        ("/consensus/v1/proposers?from=18446744073709551615&count=99999", 200),
        ("/consensus/v1/events?topics=head,blobs", 400),
    ] {
        let (status, body) = node.get(path).await;
        assert_eq!(status, code, "{path}: {body}");
        if code != 200 {
            assert_eq!(body["code"], code, "{path}: {body}");
            assert!(!body["message"].as_str().unwrap().is_empty(), "{path}");
        }
    }
    for (request, code) in [
        ("POST /node/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(), 405),
        ("GET /node/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(), 403),
        ("garbage\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000)), 431),
    ] {
        let (status, _) = http(node.rest, &request).await.expect("an answer");
        let also = if code == 431 { 414 } else { code };
        assert!(status == code || status == also, "{status} for {}", &request[..40.min(request.len())]);
    }
    node.height_reaches(2).await;
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_and_a_follower_finalize_one_chain() {
    let network = Network::with_followers(4, 1);
    let mut nodes = Vec::new();
    for index in 0..5 {
        nodes.push(network.start(index).await);
    }
    for node in &nodes {
        node.height_reaches(10).await;
    }
    for height in [1, 5, 10] {
        let path = format!("/consensus/v1/headers/{height}");
        let first = nodes[0].json(&path).await;
        for node in &nodes[1..] {
            let other = node.json(&path).await;
            assert_eq!((&other["hash"], &other["state_hash"]), (&first["hash"], &first["state_hash"]));
        }
    }
    let follower = nodes[4].json("/node/v1/status").await;
    assert_eq!((&follower["role"], &follower["index"]), (&"follower".into(), &Value::Null));
    let peers = nodes[0].json("/node/v1/peers").await;
    assert_eq!(peers["validators"].as_array().unwrap().len(), 3);
    for node in nodes {
        node.accuses_nobody().await;
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_quorum_says_who_is_missing_and_ends_when_they_return() {
    let network = Network::new(3);
    let mut nodes = Vec::new();
    for index in 0..3 {
        nodes.push(network.start(index).await);
    }
    for node in &nodes {
        node.height_reaches(3).await;
    }
    // One of three equal validators may be away.
    let third = nodes.pop().unwrap();
    third.stop().await.unwrap();
    let height = nodes[0].json("/node/v1/status").await["height"].as_u64().unwrap();
    nodes[0].height_reaches(height + 3).await;
    // Two may not.
    let second = nodes.pop().unwrap();
    second.stop().await.unwrap();
    let status =
        nodes[0].status_when("below quorum", |status| reason(status, "below_quorum").is_some()).await;
    let reason = reason(&status, "below_quorum").unwrap();
    let missing: Vec<&Value> =
        reason["missing"].as_array().unwrap().iter().map(|who| &who["index"]).collect();
    assert_eq!(missing, [&Value::from(1), &Value::from(2)]);
    assert_eq!(reason["missing"][0]["address"], types::Address::repeat_byte(2).to_string().to_lowercase());
    assert!(reason["message"].as_str().unwrap().contains("below quorum"), "{reason}");
    assert_eq!(nodes[0].get("/node/v1/health").await.0, 503);

    let height = nodes[0].json("/node/v1/status").await["height"].as_u64().unwrap();
    for index in [1, 2] {
        network.executors[index].crash();
        nodes.push(network.start(index).await);
    }
    for node in &nodes {
        node.height_reaches(height + 5).await;
    }
    for node in nodes {
        node.accuses_nobody().await;
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_goes_away_stops_its_node_and_nobody_else() {
    let network = Network::new(4);
    let mut nodes = Vec::new();
    for index in 0..4 {
        nodes.push(network.start(index).await);
    }
    for node in &nodes {
        node.height_reaches(3).await;
    }
    nodes[3].executor = None;
    let status = nodes[3].status_when("engine down", |status| reason(status, "engine_down").is_some()).await;
    assert_eq!(status["engine"]["state"], "down");
    let height = status["height"].as_u64().unwrap();
    nodes[0].height_reaches(height + 10).await;
    // Without its executor nothing is final there, however much the others have proven (C-5.3).
    let status = nodes[3].json("/node/v1/status").await;
    assert!(status["height"].as_u64() <= Some(height + 1), "{status}");
    // Its executor returns having lost what was not final, and the node catches up by itself.
    network.executors[3].crash();
    nodes[3].executor = Some(network.start_executor(3).await);
    nodes[3].height_reaches(height + 12).await;
    nodes[3].status_when("healthy again", |status| status["healthy"] == true).await;
    for node in nodes {
        node.accuses_nobody().await;
        node.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_executor_or_peers_waits_and_says_for_what() {
    let network = Network::new(4);
    let node = network.start_consensus(0);
    let status = node.status_when("waiting", |status| reason(status, "waiting_for_peers").is_some()).await;
    assert!(reason(&status, "engine_down").is_some(), "{status:#}");
    let missing = reason(&status, "waiting_for_peers").unwrap()["missing"].as_array().unwrap().len();
    assert_eq!(missing, 3);
    assert_eq!(node.get("/node/v1/health").await.0, 503);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_of_another_genesis_is_named_and_not_used() {
    let network = Network::new(1);
    let foreign = Executor::new(&genesis(&[SecretKey::generate()], 7));
    let config = network.configs[0].clone();
    let secret = engine_api::JwtSecret::load_or_create(&config.jwt_secret).unwrap();
    let _server =
        engine_api::serve(&config.engine_endpoint, secret, foreign, std::future::pending()).await.unwrap();
    let node = network.start_consensus(0);
    let status = node.status_when("mismatch", |status| reason(status, "engine_mismatch").is_some()).await;
    let message = reason(&status, "engine_mismatch").unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("consensus has 31337, executor has 7"), "{message}");
    assert_eq!(status["height"], 0);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_continues_where_it_was() {
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(5).await;
    let before = node.json("/consensus/v1/headers/5").await;
    node.stop().await.unwrap();
    network.executors[0].crash();
    let node = network.start(0).await;
    node.height_reaches(8).await;
    assert_eq!(node.json("/consensus/v1/headers/5").await, before);
    let recent = node.json("/consensus/v1/headers?count=256").await;
    let last = recent["headers"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["height"], 1, "blocks of the run before are in the list");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_ports_are_named_with_the_setting_to_change() {
    let network = Network::new(1);
    for field in ["rest_listen", "metrics_listen"] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = network.configs[0].clone();
        match field {
            "rest_listen" => config.rest_listen = taken.local_addr().unwrap(),
            _ => config.metrics_listen = taken.local_addr().unwrap(),
        }
        let error = run(config.clone(), std::future::pending()).await.unwrap_err();
        assert!(matches!(error, Error::Listen { setting, .. } if setting == field), "{error}");
        assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { p2p_listen: taken.local_addr().unwrap(), ..network.configs[0].clone() };
    let error = run(config, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, Error::Net(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_in_use_or_of_another_chain_is_refused() {
    let network = Network::new(1);
    let node = network.start(0).await;
    node.height_reaches(1).await;
    let [p2p, rest, metrics] = free_ports();
    let second =
        Config { p2p_listen: p2p, rest_listen: rest, metrics_listen: metrics, ..network.configs[0].clone() };
    let error = run(second.clone(), std::future::pending()).await.unwrap_err();
    assert!(matches!(error, Error::Journal(_)) && error.to_string().contains("in use"), "{error}");
    node.height_reaches(3).await;
    node.stop().await.unwrap();

    let foreign = network.dir.path().join("foreign.json");
    std::fs::write(&foreign, serde_json::to_vec(&genesis(&[SecretKey::generate()], 7)).unwrap()).unwrap();
    let error = run(Config { genesis: foreign, ..second }, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, Error::Journal(_)) && error.to_string().contains("genesis"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_and_bad_files_are_named() {
    let network = Network::new(1);
    let config = &network.configs[0];
    let bad = network.dir.path().join("bad");
    std::fs::write(&bad, "{}").unwrap();
    let missing = network.dir.path().join("missing");
    for (config, name) in [
        (Config { genesis: missing.clone(), ..config.clone() }, "missing"),
        (Config { genesis: bad.clone(), ..config.clone() }, "bad"),
        (Config { key_file: Some(missing.clone()), ..config.clone() }, "missing"),
        (Config { key_file: Some(bad.clone()), ..config.clone() }, "bad"),
        (Config { jwt_secret: bad.clone(), ..config.clone() }, "bad"),
    ] {
        let error = run(config, std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_outside_the_set_makes_a_follower() {
    let network = Network::new(1);
    let validator = network.start(0).await;
    let home = network.dir.path().join("stranger");
    std::fs::create_dir(&home).unwrap();
    let key_file = home.join("key.json");
    write_key(&key_file, &SecretKey::generate()).unwrap();
    let [p2p, rest, metrics] = free_ports();
    let executor = Executor::new(&network.genesis);
    let config = Config {
        key_file: Some(key_file),
        data_dir: home.join("data"),
        p2p_listen: p2p,
        rest_listen: rest,
        metrics_listen: metrics,
        engine_endpoint: engine_api::Endpoint::Unix(home.join("engine.sock")),
        jwt_secret: home.join("jwt.hex"),
        peers: vec![network.configs[0].p2p_listen],
        ..network.configs[0].clone()
    };
    let secret = engine_api::JwtSecret::load_or_create(&config.jwt_secret).unwrap();
    let _server =
        engine_api::serve(&config.engine_endpoint, secret, executor, std::future::pending()).await.unwrap();
    let stranger = Node::start(config);
    stranger.height_reaches(5).await;
    assert_eq!(stranger.json("/node/v1/status").await["role"], "follower");
    stranger.stop().await.unwrap();
    validator.stop().await.unwrap();
}
