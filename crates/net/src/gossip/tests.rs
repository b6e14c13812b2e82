//! Real sockets on the loopback interface, ports chosen by the operating system, no waiting for a fixed time.
#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeSet;
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

const CHAIN: ChainIdentity =
    ChainIdentity { chain_id: 7, genesis_hash: B256::repeat_byte(1), rules_hash: B256::repeat_byte(2) };

struct Node {
    network: TxGossipHandle,
    events: mpsc::Receiver<TxGossipEvent>,
    _folder: TempDir,
}

impl Node {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut GossipConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = GossipConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Vec::new(),
            network_key: folder.path().join("network.key"),
            chain: CHAIN,
            transport: Transport::Tcp,
            limits: GossipLimits::default(),
        };
        change(&mut config);
        let (network, events) = TxGossip::start(config).await.unwrap();
        Self { network, events, _folder: folder }
    }

    async fn event(&mut self) -> TxGossipEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event comes").expect("the network runs")
    }

    async fn batch(&mut self) -> (NodeId, B256, Vec<Bytes>) {
        loop {
            if let TxGossipEvent::Batch { from, id, transactions } = self.event().await {
                return (from, id, transactions);
            }
        }
    }

    async fn link(&mut self, other: &mut Self) {
        self.network.add_peer(other.network.local_address()).await.unwrap();
        let (me, it) = (self.network.node_id(), other.network.node_id());
        for (one, another) in [(self, it), (other, me)] {
            loop {
                if matches!(one.event().await, TxGossipEvent::Connected(node) if node == another) {
                    break;
                }
            }
        }
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

fn transactions(tag: u8, count: usize) -> Vec<Bytes> {
    (0..count).map(|i| Bytes::from([vec![tag; 106], (i as u32).to_le_bytes().to_vec()].concat())).collect()
}

#[tokio::test]
async fn a_published_batch_reaches_every_peer_once_and_is_not_relayed_where_all_are_connected() {
    let (mut a, mut b, mut c) = (Node::start().await, Node::start().await, Node::start().await);
    a.link(&mut b).await;
    b.link(&mut c).await;
    a.link(&mut c).await;
    // Everybody knows by now whom the others are connected to, or learns it with the first batches.
    for round in 0..20 {
        assert_eq!(a.network.publish(transactions(round, 100)), 100);
        for node in [&mut b, &mut c] {
            let (from, id, received) = node.batch().await;
            assert_eq!((from, received), (a.network.node_id(), transactions(round, 100)));
            node.network.report(id, Verdict::Accept);
        }
    }
    let stats = [&b, &c].map(|node| node.network.stats());
    let forwarded: u64 = stats.iter().map(|s| s.forwarded_batches).sum();
    let duplicates: u64 = stats.iter().map(|s| s.duplicate_batches).sum();
    assert!(forwarded <= 2 && duplicates <= 2, "{stats:?}");
}

#[tokio::test]
async fn nothing_is_relayed_before_the_verdict_and_only_what_was_accepted() {
    let (mut a, mut b, mut c, mut d) =
        (Node::start().await, Node::start().await, Node::start().await, Node::start().await);
    // A line, so that every batch has to be relayed twice.
    a.link(&mut b).await;
    b.link(&mut c).await;
    c.link(&mut d).await;
    for (tag, verdict) in [(1, Verdict::Reject), (2, Verdict::Ignore), (3, Verdict::Accept)] {
        a.network.publish(transactions(tag, 2));
        let (_, id, _) = b.batch().await;
        b.network.report(id, verdict);
    }
    let (from, id, received) = c.batch().await;
    assert_eq!((from, received), (b.network.node_id(), transactions(3, 2)));
    c.network.report(id, Verdict::Accept);
    assert_eq!(d.batch().await.2, transactions(3, 2));
    c.network.report(id, Verdict::Accept);
    assert_eq!(c.network.stats().forwarded_batches, 1, "one verdict counts");
}

#[tokio::test]
async fn a_batch_that_comes_by_two_ways_is_reported_once() {
    // A ring of four: what a publishes reaches c by b and by d.
    let (mut a, mut b, mut c, mut d) =
        (Node::start().await, Node::start().await, Node::start().await, Node::start().await);
    a.link(&mut b).await;
    b.link(&mut c).await;
    c.link(&mut d).await;
    d.link(&mut a).await;
    let mut seen = BTreeSet::new();
    for tag in 0..10 {
        a.network.publish(transactions(tag, 1));
        for node in [&mut b, &mut d] {
            let (_, id, _) = node.batch().await;
            node.network.report(id, Verdict::Accept);
        }
        assert!(seen.insert(c.batch().await.1));
    }
    eventually("the second copies came", || c.network.stats().duplicate_batches == 10).await;
    assert_eq!(a.network.stats().received_batches, 0, "nobody sends it back");
}

#[tokio::test]
async fn another_genesis_or_the_validator_mesh_is_refused() {
    let a = Node::start().await;
    let other = B256::repeat_byte(9);
    let mut b = Node::start_with(|config| {
        config.chain.genesis_hash = other;
        config.peers = vec![a.network.local_address()];
    })
    .await;
    let refused = loop {
        if let TxGossipEvent::Refused { error, .. } = b.event().await {
            break error;
        }
    };
    assert_eq!(refused, HandshakeError::WrongGenesis { ours: other, theirs: CHAIN.genesis_hash });
    assert_eq!((a.network.peer_count(), b.network.peer_count()), (0, 0));
    let folder = tempfile::tempdir().unwrap();
    let config = crate::MeshConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        peers: vec![a.network.local_address()],
        network_key: folder.path().join("key"),
        chain: CHAIN,
        transport: Transport::Tcp,
        limits: crate::MeshLimits::default(),
    };
    let (_mesh, mut events) = crate::Mesh::start(config, crate::MeshIdentity::observer()).await.unwrap();
    match timeout(PATIENCE, events.recv()).await.unwrap() {
        Some(crate::MeshEvent::Refused { error: HandshakeError::WrongNetwork { .. }, .. }) => {}
        event => panic!("expected a refusal, got {event:?}"),
    }
}

#[tokio::test]
async fn rejected_batches_keep_their_sender_out_for_a_while() {
    let (mut a, mut b) = (Node::start().await, Node::start().await);
    a.link(&mut b).await;
    for tag in 0..5 {
        a.network.publish(transactions(tag, 1));
        let (_, id, _) = b.batch().await;
        b.network.report(id, Verdict::Reject);
    }
    loop {
        if matches!(b.event().await, TxGossipEvent::Disconnected(_)) {
            break;
        }
    }
    loop {
        if let TxGossipEvent::Refused { error, .. } = b.event().await {
            assert!(matches!(error, HandshakeError::Banned { .. }), "{error}");
            break;
        }
    }
}

#[tokio::test]
async fn an_application_that_gives_no_verdicts_slows_its_peers_down_and_holds_a_bounded_amount() {
    let (mut a, mut b) = (Node::start().await, Node::start().await);
    a.link(&mut b).await;
    // 100 MiB in batches of a MiB. The receiver takes events but never reports.
    let mut held = 0;
    for tag in 0..100u8 {
        a.network
            .publish((0..8).map(|i| Bytes::from([vec![tag; 100_000], vec![i; 20_000]].concat())).collect());
    }
    eventually("the sender's queue overflows", || a.network.stats().dropped_batches > 0).await;
    while let Ok(Some(event)) = timeout(Duration::from_millis(200), b.events.recv()).await {
        held += u32::from(matches!(event, TxGossipEvent::Batch { .. }));
    }
    assert!(held <= 8, "{held} batches without a verdict");
}

#[tokio::test]
async fn a_reconnecting_peer_gets_new_batches_and_a_replaced_list_of_neighbours() {
    let mut a = Node::start().await;
    let mut b = Node::start().await;
    a.link(&mut b).await;
    let address = b.network.local_address();
    b.network.shutdown().await;
    loop {
        if matches!(a.event().await, TxGossipEvent::Disconnected(_)) {
            break;
        }
    }
    assert_eq!(a.network.peer_count(), 0);
    let mut b = Node::start_with(|config| config.listen = address).await;
    loop {
        if matches!(a.event().await, TxGossipEvent::Connected(_)) {
            break;
        }
    }
    a.network.publish(transactions(1, 3));
    assert_eq!(b.batch().await.2, transactions(1, 3));
}

/// A node that completes the handshake and hands its connection to the test.
struct Hostile {
    node: NodeId,
    connections: mpsc::Sender<(driver::Connection, libp2p::Stream)>,
}

impl driver::Network for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn is_linked(&self, _: &libp2p::PeerId) -> bool {
        false
    }

    async fn serve(self: Arc<Self>, mut connection: driver::Connection) -> driver::Ended {
        use crate::hello::{NetworkKind, first_stream, greet, settle};
        let Ok(mut stream) = first_stream(&mut connection, HELLO).await else {
            return driver::Ended::Retired;
        };
        let (kind, me, peer) = (NetworkKind::Transactions, self.node.0, connection.peer);
        let greeted = greet(&mut stream, &CHAIN, kind, me, peer, connection.dialed).await;
        if greeted.is_ok() && settle(&mut stream, Ok(())).await.is_ok() {
            let _ = self.connections.send((connection, stream)).await;
            std::future::pending().await
        }
        driver::Ended::Retired
    }

    fn refused(&self, _: SocketAddr, _: HandshakeError) {}
}

#[tokio::test]
async fn malformed_and_oversized_batches_and_neighbours_cost_the_sender_its_connection() {
    let oversized = (BATCHES, (BATCH_BYTES_MAX as u32 + 1).to_le_bytes().to_vec());
    let malformed = (BATCHES, [4u32.to_le_bytes(), [255; 4]].concat());
    let no_list = (NEIGHBOURS, [4u32.to_le_bytes(), [255; 4]].concat());
    let no_peers = (NEIGHBOURS, [10u32.to_le_bytes().to_vec(), vec![1, 0, 0, 0, 2, 0, 0, 0, 9, 9]].concat());
    for (lane, bytes) in [oversized, malformed, no_list, no_peers] {
        let (mut a, mut b) = (Node::start().await, Node::start().await);
        a.link(&mut b).await;
        let key = libp2p::identity::Keypair::generate_ed25519();
        let node = NodeId(key.public().to_peer_id());
        let (connections, mut received) = mpsc::channel(8);
        let setup = Setup {
            key,
            transport: Transport::Tcp,
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: vec![a.network.local_address()],
            protocols: protocols(CHAIN.chain_id),
            connections_max: 10,
            connections_per_ip_max: 10,
        };
        let _hostile = driver::start(setup, Arc::new(Hostile { node, connections })).await.unwrap();
        let (connection, _control) = timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
        let mut stream = connection.streams.opener.open(lane).await.unwrap();
        futures::AsyncWriteExt::write_all(&mut stream, &bytes).await.unwrap();
        loop {
            if matches!(a.event().await, TxGossipEvent::Disconnected(gone) if gone == node) {
                break;
            }
        }
        b.network.publish(transactions(1, 1));
        assert_eq!(a.batch().await.0, b.network.node_id());
    }
}
