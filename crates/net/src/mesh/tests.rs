//! Real sockets on the loopback interface, ports chosen by the operating system, no waiting for a fixed time.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::driver::{Connection, Ended, Network, Started};
use crate::frame::{read_frame, write_frame};
use crate::hello::{self, NetworkKind, unix_ms};
use crate::{MeshStats, NetError};
use alloy_primitives::{Address, B256};
use crypto::SecretKey;
use futures::AsyncWriteExt;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use types::{Epoch, Height, QuorumRule, Stake, Validator};

/// No step of a test takes longer, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

const CHAIN: ChainIdentity =
    ChainIdentity { chain_id: 7, genesis_hash: B256::repeat_byte(1), rules_hash: B256::repeat_byte(2) };

fn secret(number: u8) -> SecretKey {
    SecretKey::from_seed(&[number + 1; 32])
}

fn set_of(epoch: u64, numbers: &[u8]) -> Arc<ValidatorSet> {
    let validators = numbers.iter().map(|number| Validator {
        address: Address::repeat_byte(number + 1),
        public_key: secret(*number).public_key(),
        stake: Stake::new(1),
    });
    Arc::new(ValidatorSet::new(Epoch::new(epoch), validators.collect(), QuorumRule::default()).unwrap())
}

fn key(number: u8) -> PublicKey {
    secret(number).public_key()
}

fn config(folder: &TempDir, transport: Transport) -> MeshConfig {
    MeshConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        peers: Vec::new(),
        network_key: folder.path().join("network.key"),
        chain: CHAIN,
        transport,
        limits: MeshLimits::default(),
    }
}

struct Node {
    mesh: MeshHandle,
    events: mpsc::Receiver<MeshEvent>,
    folder: TempDir,
}

impl Node {
    async fn start(identity: MeshIdentity) -> Self {
        Self::start_with(identity, |_| {}).await
    }

    async fn start_with(identity: MeshIdentity, change: impl FnOnce(&mut MeshConfig)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), identity, change).await
    }

    async fn start_in(folder: TempDir, identity: MeshIdentity, change: impl FnOnce(&mut MeshConfig)) -> Self {
        let mut config = config(&folder, Transport::Tcp);
        change(&mut config);
        let (mesh, events) = Mesh::start(config, identity).await.unwrap();
        Self { mesh, events, folder }
    }

    async fn validator(number: u8, set: &Arc<ValidatorSet>) -> Self {
        let node = Self::start(MeshIdentity::validator(secret(number))).await;
        node.mesh.set_validators(std::slice::from_ref(set));
        node
    }

    async fn event(&mut self) -> MeshEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event comes").expect("the mesh runs")
    }

    async fn until<T>(&mut self, mut wanted: impl FnMut(MeshEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.event().await) {
                return found;
            }
        }
    }

    async fn until_connected(&mut self, to: u8) {
        self.until(|event| matches!(event, MeshEvent::Connected(i) if i == key(to)).then_some(())).await;
    }

    async fn message(&mut self) -> (u8, Bytes) {
        self.until(|event| match event {
            MeshEvent::Message { from, bytes } => {
                Some(((0..9).find(|number| key(*number) == from).unwrap(), bytes))
            }
            _ => None,
        })
        .await
    }

    async fn refusal(&mut self) -> HandshakeError {
        self.until(|event| match event {
            MeshEvent::Refused { error, .. } => Some(error),
            _ => None,
        })
        .await
    }

    async fn dial(&self, other: &Self) {
        self.mesh.add_peer(other.mesh.local_address()).await.unwrap();
    }
}

/// Waits for a condition that no event announces.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// A node that completes the handshake like any other and then does what a test tells it to.
struct Hostile {
    node: NodeId,
    binding: Option<Binding>,
    connections: mpsc::Sender<HostileConnection>,
    /// Handshake streams, kept open.
    held: Mutex<Vec<libp2p::Stream>>,
}

struct HostileConnection {
    connection: Connection,
    result: Result<(), HandshakeError>,
    done: oneshot::Sender<()>,
}

impl Network for Hostile {
    fn name(&self) -> &'static str {
        "hostile"
    }

    fn is_linked(&self, _: &PeerId) -> bool {
        false
    }

    async fn serve(self: Arc<Self>, mut connection: Connection) -> Ended {
        let result = self.shake(&mut connection).await;
        let (done, is_done) = oneshot::channel();
        let _ = self.connections.send(HostileConnection { connection, result, done }).await;
        let _ = is_done.await;
        Ended::Retired
    }

    fn refused(&self, _: SocketAddr, _: HandshakeError) {}
}

impl Hostile {
    async fn shake(&self, connection: &mut Connection) -> Result<(), HandshakeError> {
        let mut stream = hello::first_stream(connection, HELLO).await?;
        let peer = connection.peer;
        hello::greet(&mut stream, &CHAIN, NetworkKind::Mesh, self.node.0, peer, connection.dialed).await?;
        let _: Option<Binding> = hello::exchange(&mut stream, &self.binding).await?;
        hello::settle(&mut stream, Ok(())).await?;
        self.held.lock().unwrap().push(stream);
        Ok(())
    }

    /// Starts a hostile node that dials `victim`, with whatever proof `binding` makes for its identity.
    async fn start(
        victim: &Node,
        binding: impl FnOnce(NodeId) -> Option<Binding>,
    ) -> (Started, mpsc::Receiver<HostileConnection>) {
        let key = Keypair::generate_ed25519();
        let node = NodeId(key.public().to_peer_id());
        let (connections, received) = mpsc::channel(8);
        let hostile =
            Arc::new(Self { node, binding: binding(node), connections, held: Mutex::new(Vec::new()) });
        let setup = Setup {
            key,
            transport: Transport::Tcp,
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: vec![victim.mesh.local_address()],
            protocols: protocols(CHAIN.chain_id),
            connections_max: 10,
            connections_per_ip_max: 10,
        };
        (driver::start(setup, hostile).await.unwrap(), received)
    }
}

fn binding_of(number: u8, node: NodeId, expires_unix_s: u64) -> Binding {
    let secret = secret(number);
    Binding::make(&binding_domain(&CHAIN), node, secret.public_key(), expires_unix_s, |b| secret.sign(b))
}

fn soon() -> u64 {
    unix_ms() / 1000 + 3600
}

#[tokio::test]
async fn two_validators_connect_and_exchange_messages_over_either_transport() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let set = set_of(0, &[0, 1]);
        let with = |config: &mut MeshConfig| config.transport = transport;
        let mut a = Node::start_with(MeshIdentity::validator(secret(0)), with).await;
        let mut b = Node::start_with(MeshIdentity::validator(secret(1)), with).await;
        a.mesh.set_validators(std::slice::from_ref(&set));
        b.mesh.set_validators(&[set]);
        a.dial(&b).await;
        a.until_connected(1).await;
        b.until_connected(0).await;
        for message in [Bytes::from_static(b"vote"), Bytes::from(vec![7; MESSAGE_BYTES_MAX])] {
            assert!(a.mesh.send(&key(1), message.clone()));
            assert_eq!(b.message().await, (0, message.clone()));
            assert_eq!(b.mesh.broadcast(message.clone()), 1);
            assert_eq!(a.message().await, (1, message));
        }
        let info = &a.mesh.peers()[0];
        assert_eq!((info.validator, info.dialed, info.node), (Some(key(1)), true, b.mesh.node_id()));
        eventually("the round trip is measured", || a.mesh.peers()[0].rtt.is_some()).await;
    }
}

#[tokio::test]
async fn four_validators_that_all_dial_each_other_keep_one_connection_each_and_lose_no_message() {
    let set = set_of(0, &[0, 1, 2, 3]);
    let mut nodes = Vec::new();
    for number in 0..4 {
        nodes.push(Node::validator(number, &set).await);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| node.mesh.local_address()).collect();
    for node in &nodes {
        for address in &addresses {
            // Its own address as well: every node gets the same list.
            node.mesh.add_peer(*address).await.unwrap();
        }
    }
    for (number, node) in nodes.iter_mut().enumerate() {
        let mut missing: Vec<_> = (0..4).filter(|i| *i != number as u8).map(key).collect();
        node.until(|event| {
            if let MeshEvent::Connected(i) = event {
                missing.retain(|m| *m != i);
            }
            missing.is_empty().then_some(())
        })
        .await;
    }
    for round in 0..50u8 {
        for node in &nodes {
            assert_eq!(node.mesh.broadcast(Bytes::from(vec![round + 1; 100])), 3);
        }
    }
    for node in &mut nodes {
        let mut received = 0;
        while received < 150 {
            let event = node.event().await;
            assert!(!matches!(event, MeshEvent::Disconnected(_)), "replacing a connection is not visible");
            received += u32::from(matches!(event, MeshEvent::Message { .. }));
        }
        assert_eq!(node.mesh.peers().len(), 3);
    }
}

#[tokio::test]
async fn another_genesis_is_refused_on_both_sides_naming_both_hashes() {
    let mut a = Node::start(MeshIdentity::validator(secret(0))).await;
    let other = B256::repeat_byte(9);
    let mut b = Node::start_with(MeshIdentity::validator(secret(1)), |c| c.chain.genesis_hash = other).await;
    a.dial(&b).await;
    let genesis = CHAIN.genesis_hash;
    assert_eq!(a.refusal().await, HandshakeError::WrongGenesis { ours: genesis, theirs: other });
    assert_eq!(b.refusal().await, HandshakeError::WrongGenesis { ours: other, theirs: genesis });
    assert!(a.mesh.peers().is_empty() && b.mesh.peers().is_empty());
    // A chain with another id has other protocol names but the same handshake.
    let mut c = Node::start_with(MeshIdentity::observer(), |c| c.chain.chain_id = 8).await;
    c.dial(&a).await;
    assert_eq!(c.refusal().await, HandshakeError::WrongChain { ours: 8, theirs: 7 });
}

#[tokio::test]
async fn a_proof_of_another_identity_or_key_or_past_its_time_is_refused() {
    let set = set_of(0, &[0, 1]);
    let stranger = NodeId(PeerId::random());
    let refusal = async |binding: &dyn Fn(NodeId) -> Binding| {
        let mut victim = Node::validator(0, &set).await;
        let (_hostile, mut connections) = Hostile::start(&victim, |node| Some(binding(node))).await;
        let refused = victim.refusal().await;
        let hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
        assert!(matches!(hostile.result, Err(HandshakeError::RefusedByPeer { .. })), "it hears why");
        assert!(victim.mesh.peers().is_empty());
        refused
    };
    let stolen = refusal(&|_| binding_of(1, stranger, soon())).await;
    assert!(matches!(stolen, HandshakeError::BindingPeer { .. }), "{stolen}");
    let expired = refusal(&|node| binding_of(1, node, soon() - 4000)).await;
    assert!(matches!(expired, HandshakeError::BindingExpired { .. }), "{expired}");
    let endless = refusal(&|node| binding_of(1, node, u64::MAX)).await;
    assert!(matches!(endless, HandshakeError::BindingTooLong { .. }), "{endless}");
    let forged = refusal(&|node| {
        let forger = secret(9);
        Binding::make(&binding_domain(&CHAIN), node, secret(1).public_key(), soon(), |b| forger.sign(b))
    });
    assert!(matches!(forged.await, HandshakeError::BindingSignature { .. }));
    let copy = refusal(&|node| binding_of(0, node, soon())).await;
    assert!(matches!(copy, HandshakeError::OwnKey { .. }), "{copy}");
}

#[tokio::test]
async fn only_members_of_the_current_set_are_heard_and_they_are_from_the_moment_they_join() {
    let mut a = Node::validator(0, &set_of(0, &[0, 1])).await;
    let mut c = Node::validator(2, &set_of(1, &[2, 0])).await;
    c.dial(&a).await;
    c.until_connected(0).await;
    assert!(c.mesh.send(&key(0), Bytes::from_static(b"early")));
    eventually("the vote is on its way", || c.mesh.peers()[0].sent_messages == 1).await;
    eventually("a sees an observer", || a.mesh.peers().len() == 1).await;
    assert_eq!(a.mesh.peers()[0].validator, None);
    assert_eq!(a.mesh.broadcast(Bytes::from_static(b"x")), 0);
    // An observer may fetch, and its vote was not delivered before.
    let (fetched, event) = tokio::join!(c.mesh.fetch(None, FetchRequest::ByHash(B256::ZERO)), async {
        match a.event().await {
            MeshEvent::Fetch { from: None, request: FetchRequest::ByHash(_), reply } => {
                reply.send(FetchResponse::default()).unwrap();
            }
            event => panic!("expected only a fetch, got {event:?}"),
        }
    });
    assert_eq!((fetched.unwrap(), event), (FetchResponse::default(), ()));
    a.mesh.set_validators(&[set_of(1, &[2, 0])]);
    a.until_connected(2).await;
    assert_eq!(a.message().await, (2, Bytes::from_static(b"early")));
    a.mesh.set_validators(&[set_of(2, &[0, 1])]);
    a.until(|event| matches!(event, MeshEvent::Disconnected(i) if i == key(2)).then_some(())).await;
    assert!(c.mesh.send(&key(0), Bytes::from_static(b"late")));
    a.mesh.set_validators(&[set_of(3, &[0, 2])]);
    a.until_connected(2).await;
    assert_eq!(a.message().await.0, 2);
}

#[tokio::test]
async fn a_node_speaks_with_the_key_that_is_in_the_set_and_a_member_of_any_set_is_a_validator() {
    let (old, new) = (set_of(0, &[0, 1]), set_of(1, &[0, 2]));
    let mut a = Node::validator(0, &old).await;
    let both = MeshIdentity::validators([secret(1), secret(2)]);
    let mut b = Node::start(both).await;
    let sets = [old, new.clone()];
    [&a, &b].iter().for_each(|node| node.mesh.set_validators(&sets));
    b.dial(&a).await;
    a.until_connected(1).await;
    b.until_connected(0).await;
    [&a, &b].iter().for_each(|node| node.mesh.set_validators(std::slice::from_ref(&new)));
    a.until_connected(2).await;
    b.until_connected(0).await;
    assert!(b.mesh.send(&key(0), Bytes::from_static(b"rotated")));
    assert_eq!(a.message().await, (2, Bytes::from_static(b"rotated")));
}

#[tokio::test]
async fn a_restarted_node_is_connected_again_from_either_side() {
    let set = set_of(0, &[0, 1]);
    let mut a = Node::validator(0, &set).await;
    let b = Node::validator(1, &set).await;
    a.dial(&b).await;
    a.until_connected(1).await;
    let address = b.mesh.local_address();
    let Node { mesh, folder, .. } = b;
    for dials_back in [false, true] {
        mesh.shutdown().await;
        a.until(|event| matches!(event, MeshEvent::Disconnected(_)).then_some(())).await;
        let back = tempfile::tempdir_in(folder.path()).unwrap();
        let mut b = Node::start_in(back, MeshIdentity::validator(secret(1)), |config| {
            config.listen = address;
            if dials_back {
                config.peers = vec![a.mesh.local_address()];
            }
        })
        .await;
        b.mesh.set_validators(std::slice::from_ref(&set));
        a.until_connected(1).await;
        b.until_connected(0).await;
        assert!(a.mesh.send(&key(1), Bytes::from_static(b"welcome")));
        assert_eq!(b.message().await.1, Bytes::from_static(b"welcome"));
        b.mesh.shutdown().await;
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_and_not_shared() {
    let a = Node::start(MeshIdentity::observer()).await;
    let folder = tempfile::tempdir().unwrap();
    let config = MeshConfig { listen: a.mesh.local_address(), ..config(&folder, Transport::Tcp) };
    let refused = Mesh::start(config, MeshIdentity::observer()).await.map(|_| ());
    assert!(matches!(refused, Err(NetError::Listen { .. })), "{refused:?}");
}

/// Two honest validators and one hostile one, which has validator 2's key.
async fn with_hostile() -> (Node, Node, Started, mpsc::Receiver<HostileConnection>) {
    let set = set_of(0, &[0, 1, 2]);
    let mut a = Node::validator(0, &set).await;
    let mut b = Node::validator(1, &set).await;
    b.dial(&a).await;
    a.until_connected(1).await;
    b.until_connected(0).await;
    let (started, connections) = Hostile::start(&a, |node| Some(binding_of(2, node, soon()))).await;
    a.until_connected(2).await;
    (a, b, started, connections)
}

#[tokio::test]
async fn oversized_empty_and_truncated_frames_cost_the_sender_its_connection_and_nobody_else() {
    let oversized_urgent = (URGENT, (URGENT_BYTES_MAX as u32 + 1).to_le_bytes().to_vec());
    let oversized_bulk = (BULK, u32::MAX.to_le_bytes().to_vec());
    let empty = (URGENT, vec![0; 4]);
    let truncated = (URGENT, [100u32.to_le_bytes().to_vec(), vec![1; 50]].concat());
    for (lane, bytes) in [oversized_urgent, oversized_bulk, empty, truncated] {
        let (mut a, mut b, _hostile, mut connections) = with_hostile().await;
        let hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
        let mut stream = hostile.connection.streams.opener.open(lane).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.close().await.unwrap();
        a.until(|event| matches!(event, MeshEvent::Disconnected(i) if i == key(2)).then_some(())).await;
        assert!(b.mesh.send(&key(0), Bytes::from_static(b"still here")));
        assert_eq!(a.message().await, (1, Bytes::from_static(b"still here")));
        assert!(a.mesh.send(&key(1), Bytes::from_static(b"me too")));
        assert_eq!(b.message().await, (0, Bytes::from_static(b"me too")));
        drop(hostile.done);
    }
}

#[tokio::test]
async fn opening_a_lane_or_the_handshake_twice_ends_the_connection() {
    for lanes in [[URGENT, URGENT], [HELLO, HELLO]] {
        let (mut a, _b, _hostile, mut connections) = with_hostile().await;
        let hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
        let mut streams = Vec::new();
        for lane in lanes {
            if let Ok(mut stream) = hostile.connection.streams.opener.open(lane).await {
                let _ = write_frame(&mut stream, b"x").await;
                streams.push(stream);
            }
        }
        a.until(|event| matches!(event, MeshEvent::Disconnected(i) if i == key(2)).then_some(())).await;
        drop(hostile.done);
    }
}

#[tokio::test]
async fn a_stream_before_the_handshake_is_refused() {
    struct Rude(mpsc::Sender<Connection>);
    impl Network for Rude {
        fn name(&self) -> &'static str {
            "rude"
        }
        fn is_linked(&self, _: &PeerId) -> bool {
            false
        }
        async fn serve(self: Arc<Self>, connection: Connection) -> Ended {
            let mut stream = connection.streams.opener.open(URGENT).await.unwrap();
            let _ = write_frame(&mut stream, b"vote").await;
            let _ = self.0.send(connection).await;
            std::future::pending().await
        }
        fn refused(&self, _: SocketAddr, _: HandshakeError) {}
    }
    let mut victim = Node::validator(0, &set_of(0, &[0])).await;
    let (connections, _received) = mpsc::channel(8);
    let setup = Setup {
        key: Keypair::generate_ed25519(),
        transport: Transport::Tcp,
        listen: "127.0.0.1:0".parse().unwrap(),
        peers: vec![victim.mesh.local_address()],
        protocols: protocols(CHAIN.chain_id),
        connections_max: 10,
        connections_per_ip_max: 10,
    };
    let _rude = driver::start(setup, Arc::new(Rude(connections))).await.unwrap();
    assert!(matches!(victim.refusal().await, HandshakeError::Malformed { .. }));
}

#[tokio::test]
async fn garbage_on_a_raw_connection_is_closed_and_connections_per_address_are_bounded() {
    let set = set_of(0, &[0, 1]);
    let with = |c: &mut MeshConfig| c.limits.connections_per_ip_max = 4;
    let mut a = Node::start_with(MeshIdentity::validator(secret(0)), with).await;
    a.mesh.set_validators(std::slice::from_ref(&set));
    let mut b = Node::validator(1, &set).await;
    a.dial(&b).await;
    a.until_connected(1).await;
    b.until_connected(0).await;
    let address = a.mesh.local_address();
    let mut garbage = tokio::net::TcpStream::connect(address).await.unwrap();
    garbage.write_all(&[0xff; 4096]).await.unwrap();
    let mut rest = Vec::new();
    // Closed or reset: either way it ends.
    let _ = timeout(PATIENCE, garbage.read_to_end(&mut rest)).await.expect("the node closes it");
    // Four, and two for the configured peer at this address, may be silent at the same time.
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let mut ended = 0;
    for stream in &mut streams {
        // A connection that is kept answers the first step of protocol negotiation; the others are closed.
        let _ = stream.write_all(b"\x13/multistream/1.0.0\n").await;
        if let Ok(0) | Err(_) =
            timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("an answer or an end")
        {
            ended += 1;
        }
    }
    assert_eq!(ended, 14);
    assert!(b.mesh.send(&key(0), Bytes::from_static(b"vote")));
    assert_eq!(a.message().await.0, 1);
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_oldest_messages_and_delays_nobody() {
    let (a, mut b, _hostile, mut connections) = with_hostile().await;
    // It never reads the lanes we open.
    let hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    let message = Bytes::from(vec![5; 1 << 20]);
    for _ in 0..64 {
        a.mesh.send(&key(2), message.clone());
        assert!(a.mesh.send(&key(1), Bytes::from_static(b"vote")));
    }
    for _ in 0..64 {
        assert_eq!(b.message().await, (0, Bytes::from_static(b"vote")));
    }
    let stats = a.mesh.stats();
    assert!(stats.dropped_full >= 64 - 4 - 24, "{stats:?}");
    let slow = a.mesh.peers().into_iter().find(|peer| peer.validator == Some(key(2))).unwrap();
    assert!(slow.waiting_messages <= 4, "{slow:?}");
    assert_eq!(slow.dropped_messages, stats.dropped_full);
    drop(hostile.done);
}

#[tokio::test]
async fn a_spammer_cannot_keep_others_from_being_heard() {
    let (mut a, b, _hostile, mut connections) = with_hostile().await;
    let hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    let mut stream = hostile.connection.streams.opener.open(URGENT).await.unwrap();
    let frame = [1000u32.to_le_bytes().to_vec(), vec![9; 1000]].concat();
    let spam = tokio::spawn(async move { while stream.write_all(&frame).await.is_ok() {} });
    // The application does nothing until the spam stands still: neither queues nor budgets grow any further.
    let info =
        |a: &Node| a.mesh.peers().iter().find(|p| p.validator == Some(key(2))).unwrap().received_messages;
    let (mut before, mut same) = (0, 0);
    eventually("the spam stands still", || {
        let now = info(&a);
        same = if now == before && now > 0 { same + 1 } else { 0 };
        before = now;
        same > 100
    })
    .await;
    assert!(before <= 129, "{before} messages of one peer are held");
    assert!(b.mesh.send(&key(0), Bytes::from_static(b"vote")));
    let mut spam_before_vote = 0;
    while a.message().await.0 == 2 {
        spam_before_vote += 1;
    }
    assert!(spam_before_vote < 1000, "{spam_before_vote}");
    spam.abort();
    drop(hostile.done);
}

#[tokio::test]
async fn a_large_message_on_its_way_does_not_delay_small_ones() {
    let set = set_of(0, &[0, 1]);
    let mut a = Node::validator(0, &set).await;
    let mut b = Node::validator(1, &set).await;
    a.dial(&b).await;
    a.until_connected(1).await;
    b.until_connected(0).await;
    let proposal = Bytes::from(vec![1; 8 << 20]);
    for _ in 0..4 {
        assert!(a.mesh.send(&key(1), proposal.clone()));
    }
    for vote in 0..100u8 {
        assert!(a.mesh.send(&key(1), Bytes::from(vec![vote; 150])));
    }
    let mut order = Vec::new();
    while order.len() < 104 {
        order.push(b.message().await.1.len());
    }
    let first_large = order.iter().position(|bytes| *bytes > 150).unwrap();
    assert_eq!(first_large, 100, "all votes overtake the first proposal");
    let votes = order.iter().filter(|bytes| **bytes == 150).count();
    assert_eq!((votes, order.len()), (100, 104));
}

#[tokio::test]
async fn misbehaviour_keeps_a_validator_out_even_after_it_reconnects() {
    let set = set_of(0, &[0, 1]);
    let mut a = Node::validator(0, &set).await;
    let mut b = Node::validator(1, &set).await;
    b.dial(&a).await;
    a.until_connected(1).await;
    for _ in 0..5 {
        a.mesh.penalize(&key(1), Penalty::InvalidSignature);
    }
    a.until(|event| matches!(event, MeshEvent::Disconnected(_)).then_some(())).await;
    let reason = b.refusal().await;
    assert_eq!(reason, HandshakeError::RefusedByPeer { reason: "we are kept out after misbehaviour" });
    a.until_connected(1).await;
}

#[tokio::test]
async fn fetches_are_answered_in_parallel_and_unanswered_ones_end_at_the_deadline() {
    let set = set_of(0, &[0, 1]);
    let mut a =
        Node::start_with(MeshIdentity::validator(secret(0)), |c| c.limits.fetch_timeout_ms = 300).await;
    a.mesh.set_validators(std::slice::from_ref(&set));
    assert_eq!(a.mesh.fetch(None, FetchRequest::ByHash(B256::ZERO)).await, Err(NetError::NoPeer));
    let b = Node::validator(1, &set).await;
    a.dial(&b).await;
    a.until_connected(1).await;
    let mut events = b.events;
    let server = tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Some(event) = events.recv().await {
            let MeshEvent::Fetch { from, request, reply } = event else { continue };
            assert_eq!(from, Some(key(0)));
            match request {
                FetchRequest::Finalized { .. } => drop(reply.send(FetchResponse::default())),
                FetchRequest::ByHash(_) => unanswered.push(reply),
            }
        }
    });
    let request = FetchRequest::Finalized { from: Height::new(1), count: 5 };
    let many = (0..40).map(|_| a.mesh.fetch(Some(key(1)), request.clone()));
    for fetched in futures::future::join_all(many).await {
        assert_eq!(fetched, Ok(FetchResponse::default()));
    }
    let missing = a.mesh.fetch(Some(key(1)), FetchRequest::ByHash(B256::ZERO)).await;
    assert_eq!(missing, Err(NetError::Deadline { timeout_ms: 300 }));
    let absent = a.mesh.fetch(Some(key(0)), request).await;
    assert_eq!(absent, Err(NetError::NotConnected { key: key(0) }));
    server.abort();
}

#[tokio::test]
async fn at_most_five_fetches_of_a_peer_are_in_flight_and_reconnecting_frees_none() {
    let (mut a, _b, started, mut connections) = with_hostile().await;
    let request = types::encode(&FetchRequest::ByHash(B256::ZERO));
    let mut hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    let (mut held, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut stream = hostile.connection.streams.opener.open(FETCH).await.unwrap();
        write_frame(&mut stream, &request).await.unwrap();
        streams.push(stream);
        held.push(a.until(|event| matches!(event, MeshEvent::Fetch { .. }).then_some(event)).await);
    }
    let sixth = async |hostile: &HostileConnection| {
        let mut stream = hostile.connection.streams.opener.open(FETCH).await.unwrap();
        let _ = write_frame(&mut stream, &request).await;
        timeout(PATIENCE, read_frame(&mut stream, 100)).await.unwrap().unwrap()
    };
    assert_eq!(sixth(&hostile).await, [1], "busy");
    // It drops the connection and dials again: what it asked for is still being worked on.
    streams.clear();
    drop(hostile.done);
    hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    hostile.result.as_ref().unwrap();
    assert_eq!(sixth(&hostile).await, [1], "still busy");
    let MeshStats { fetches_refused, .. } = a.mesh.stats();
    assert_eq!(fetches_refused, 2);
    let Some(MeshEvent::Fetch { reply, .. }) = held.pop() else { panic!("a fetch") };
    let _ = reply.send(FetchResponse::default());
    let mut stream = hostile.connection.streams.opener.open(FETCH).await.unwrap();
    let answered = async {
        loop {
            write_frame(&mut stream, &request).await.unwrap();
            let got = tokio::select! {
                event = a.event() => matches!(event, MeshEvent::Fetch { .. }),
                busy = read_frame(&mut stream, 100) => { busy.unwrap(); false }
            };
            if got {
                return;
            }
            stream = hostile.connection.streams.opener.open(FETCH).await.unwrap();
        }
    };
    timeout(PATIENCE, answered).await.expect("a finished fetch frees its place");
    drop(started);
}

#[tokio::test]
async fn malformed_requests_and_oversized_answers_are_refused() {
    let (a, _b, _hostile, mut connections) = with_hostile().await;
    let mut hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    let mut stream = hostile.connection.streams.opener.open(FETCH).await.unwrap();
    write_frame(&mut stream, &[9; 64]).await.unwrap();
    assert_eq!(timeout(PATIENCE, read_frame(&mut stream, 100)).await.unwrap().unwrap(), [2]);
    let answers: [&[u8]; 3] = [&u32::MAX.to_le_bytes(), &[2, 0, 0, 0, 0, 7], &[1, 0, 0, 0, 200]];
    for answer in answers {
        let request = FetchRequest::ByHash(B256::ZERO);
        let serve = async {
            loop {
                let (protocol, mut stream) = hostile.connection.streams.inbound.recv().await.unwrap();
                if protocol == FETCH {
                    stream.write_all(answer).await.unwrap();
                    stream.close().await.unwrap();
                    return;
                }
            }
        };
        let (fetched, ()) = tokio::join!(a.mesh.fetch(Some(key(2)), request), serve);
        assert!(matches!(fetched, Err(NetError::Misbehaved { .. })), "{fetched:?}");
    }
    drop(hostile.done);
}

#[tokio::test]
async fn a_peer_without_a_sign_of_life_is_dropped() {
    let (mut a, _b, _hostile, mut connections) = with_hostile().await;
    // It keeps the connection open but answers no ping.
    let hostile = timeout(PATIENCE, connections.recv()).await.unwrap().unwrap();
    a.until(|event| matches!(event, MeshEvent::Disconnected(i) if i == key(2)).then_some(())).await;
    drop(hostile.done);
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_mesh_and_frees_its_port() {
    let Node { mesh, mut events, .. } = Node::start(MeshIdentity::observer()).await;
    let address = mesh.local_address();
    let second = mesh.clone();
    drop(mesh);
    assert_eq!(second.local_address(), address);
    drop(second);
    assert!(timeout(PATIENCE, events.recv()).await.unwrap().is_none());
    drop(std::net::TcpListener::bind(address).unwrap());
}

#[tokio::test]
async fn observers_are_limited_and_cannot_crowd_out_validators() {
    let set = set_of(0, &[0, 1]);
    let with = |c: &mut MeshConfig| c.limits.observers_max = 1;
    let mut a = Node::start_with(MeshIdentity::validator(secret(0)), with).await;
    a.mesh.set_validators(std::slice::from_ref(&set));
    let first = Node::start(MeshIdentity::observer()).await;
    first.dial(&a).await;
    eventually("the observer is in", || a.mesh.peers().len() == 1).await;
    let mut second = Node::start(MeshIdentity::observer()).await;
    second.dial(&a).await;
    assert_eq!(first.mesh.broadcast(Bytes::from_static(b"vote")), 0, "observers have nothing to say");
    assert_eq!(second.refusal().await, HandshakeError::RefusedByPeer { reason: "it has no place for us" });
    let b = Node::validator(1, &set).await;
    b.dial(&a).await;
    a.until_connected(1).await;
    assert_eq!(a.mesh.peers().len(), 2);
}

#[tokio::test]
async fn bad_limits_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, Transport::Tcp);
    config.limits.bulk_waiting_max = 0;
    let refused = Mesh::start(config, MeshIdentity::observer()).await.map(|_| ());
    assert!(matches!(refused, Err(NetError::Config { field: "bulk_waiting_max", value: 0, .. })));
}
