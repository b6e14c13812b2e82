//! The Engine API over real sockets: who is refused, what is noticed, what recovers.
#![allow(clippy::unwrap_used)]

use engine_api::*;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};
use types::{
    Address, B256, Checkpoint, Epoch, Header, Height, Justify, PublicKey, Signature, Stake, SystemInputs,
    Validator, ValidatorIndex, View,
};

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// An executor that answers from memory. `blocked` calls wait for `release`.
struct Executor {
    capabilities: Capabilities,
    release: Notify,
    entered: Notify,
    finished: Notify,
    inside: AtomicUsize,
    inside_max: AtomicUsize,
    height: AtomicU64,
}

impl Executor {
    fn new(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self {
            capabilities,
            release: Notify::new(),
            entered: Notify::new(),
            finished: Notify::new(),
            inside: AtomicUsize::new(0),
            inside_max: AtomicUsize::new(0),
            height: AtomicU64::new(7),
        })
    }

    fn head(&self) -> FinalizedState {
        let height = Height::new(self.height.load(Ordering::SeqCst));
        FinalizedState { height, block_hash: B256::repeat_byte(1), state_hash: B256::repeat_byte(2) }
    }
}

/// Blocks with this timestamp wait for `release`; with `PANIC` the executor panics.
const BLOCKED: u64 = 1;
const PANIC: u64 = 2;

impl Engine for Executor {
    async fn capabilities(&self) -> Result<Capabilities, EngineError> {
        Ok(self.capabilities.clone())
    }

    async fn build_payload(&self, request: PayloadRequest) -> Result<BuiltPayload, EngineError> {
        if request.parent_hash == B256::ZERO {
            return Err(EngineError::UnknownBlock(request.parent_hash));
        }
        Ok(BuiltPayload {
            payload: vec![7; request.limits.bytes as usize],
            encoding: 1,
            commitment: request.parent_hash,
            state_hash: B256::repeat_byte(2),
            receipts_hash: B256::repeat_byte(3),
            transactions: 0,
            gas_used: 0,
        })
    }

    async fn new_payload(
        &self,
        header: Header,
        payload: Vec<u8>,
        system_inputs: SystemInputs,
    ) -> Result<PayloadStatus, EngineError> {
        assert_ne!(header.timestamp_ms, PANIC, "told to panic");
        if header.timestamp_ms == BLOCKED {
            self.entered.notify_one();
            self.release.notified().await;
            self.finished.notify_one();
        }
        Ok(PayloadStatus::Valid {
            state_hash: types::B256::from(header.hash().0),
            receipts_hash: types::B256::right_padding_from(&payload[..payload.len().min(32)]),
            next_validators: system_inputs.penalties.map(|_| vec![validator()]),
        })
    }

    async fn forkchoice_updated(&self, forkchoice: Forkchoice) -> Result<FinalizedState, EngineError> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.inside_max.fetch_max(inside, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if forkchoice.head == B256::ZERO && forkchoice.finalized != B256::ZERO {
            return Err(EngineError::Illegal("head is zero, finalized is not".into()));
        }
        self.height.fetch_add(1, Ordering::SeqCst);
        Ok(self.head())
    }

    async fn finalized_state(&self) -> Result<FinalizedState, EngineError> {
        Ok(self.head())
    }

    async fn validator_set(&self, _: Epoch) -> Result<Vec<Validator>, EngineError> {
        Ok(vec![validator()])
    }

    async fn await_transactions(&self, _: B256, max_wait: Duration) -> Result<bool, EngineError> {
        self.entered.notify_one();
        // Without the shortcut a wait of zero would last until the runtime's next millisecond tick.
        Ok(!max_wait.is_zero() && tokio::time::timeout(max_wait, self.release.notified()).await.is_ok())
    }
}

fn validator() -> Validator {
    Validator {
        address: Address::repeat_byte(1),
        public_key: PublicKey([2; 48]),
        stake: Stake::new(u128::MAX),
    }
}

fn capabilities() -> Capabilities {
    Capabilities {
        protocol_version: PROTOCOL_VERSION,
        chain_id: 31337,
        genesis_hash: B256::repeat_byte(1),
        rules_hash: B256::repeat_byte(2),
        genesis_state_hash: B256::repeat_byte(3),
        client_version: "test/1".into(),
    }
}

fn header(timestamp_ms: u64) -> Header {
    Header {
        chain_id: 31337,
        epoch: Epoch::ZERO,
        epoch_start_height: Height::new(1),
        height: Height::new(1),
        view: View::new(1),
        parent_hash: B256::repeat_byte(1),
        timestamp_ms,
        proposer: ValidatorIndex::new(0),
        fee_recipient: Address::ZERO,
        validator_set_id: B256::ZERO,
        next_validator_set_id: B256::ZERO,
        payload_commitment: B256::ZERO,
        state_hash: B256::ZERO,
        receipts_hash: B256::ZERO,
        checkpoint: Checkpoint::default(),
        randao_reveal: Signature::ZERO,
        justify: Justify::Genesis,
        timeout: None,
        last_commit: None,
        system_inputs_hash: B256::ZERO,
    }
}

fn request(parent_hash: B256, bytes: u64) -> PayloadRequest {
    PayloadRequest {
        parent_hash,
        height: Height::new(1),
        view: View::new(1),
        timestamp_ms: 0,
        proposer: ValidatorIndex::new(0),
        fee_recipient: Address::ZERO,
        limits: PayloadLimits { bytes, gas: 1, objects: 1 },
        system_inputs: SystemInputs::default(),
    }
}

fn secret() -> JwtSecret {
    JwtSecret::from_hex(&"5a".repeat(32)).unwrap()
}

fn socket(dir: &TempDir) -> Endpoint {
    Endpoint::Unix(dir.path().join("engine.sock"))
}

fn config(endpoint: &Endpoint) -> ClientConfig {
    ClientConfig::new(endpoint.clone(), secret(), capabilities())
}

/// A server in a runtime of its own, so that a test can end it as abruptly as a kill does.
struct Process {
    runtime: Option<Runtime>,
    endpoint: Endpoint,
    handle: Option<ServerHandle>,
}

impl Process {
    fn start(endpoint: &Endpoint, engine: Arc<Executor>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let wanted = endpoint.clone();
        runtime.spawn(async move {
            sender.send(serve(&wanted, secret(), engine, std::future::pending()).await.unwrap()).unwrap();
        });
        let handle = receiver.recv_timeout(PATIENCE).unwrap();
        Self { runtime: Some(runtime), endpoint: handle.endpoint().clone(), handle: Some(handle) }
    }

    /// No goodbye: every task is dropped where it stands.
    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_timeout(PATIENCE);
        drop(self.handle.take());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.handle.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("happens in time")
}

async fn health_becomes(client: &EngineClient, wanted: impl Fn(&Health) -> bool) -> Health {
    let mut health = client.health();
    soon(health.wait_for(|health| wanted(health))).await.unwrap().clone()
}

async fn up(client: &EngineClient) {
    client.ready(PATIENCE).await.unwrap();
    health_becomes(client, |health| *health == Health::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_arrives_and_is_answered_over_both_transports() {
    let dir = tempfile::tempdir().unwrap();
    for endpoint in [socket(&dir), Endpoint::Tcp(([127, 0, 0, 1], 0).into())] {
        let server = Process::start(&endpoint, Executor::new(capabilities()));
        let client = EngineClient::new(config(&server.endpoint));
        up(&client).await;
        assert_eq!(client.executor().as_deref(), Some(&capabilities()));
        assert_eq!(client.finalized_state().await.unwrap().height, Height::new(7));
        let built = client.build_payload(&request(B256::repeat_byte(9), 8 << 20)).await.unwrap();
        assert_eq!((built.payload.len(), built.commitment), (8 << 20, B256::repeat_byte(9)));
        let inputs = SystemInputs { penalties: Some(vec![1]), ..Default::default() };
        let status = client.new_payload(&header(0), &built.payload, &inputs).await.unwrap();
        let expected = PayloadStatus::Valid {
            state_hash: header(0).hash(),
            receipts_hash: B256::repeat_byte(7),
            next_validators: Some(vec![validator()]),
        };
        assert_eq!(status, expected);
        let hash = B256::repeat_byte(1);
        let forkchoice = Forkchoice { head: hash, safe: hash, finalized: hash };
        assert_eq!(client.forkchoice_updated(&forkchoice).await.unwrap().height, Height::new(8));
        assert_eq!(client.validator_set(Epoch::new(3)).await.unwrap(), vec![validator()]);
        assert_eq!(client.await_transactions(hash, Duration::ZERO).await, Ok(false));
    }
}

#[tokio::test]
async fn errors_of_the_engine_arrive_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let unknown = client.build_payload(&request(B256::ZERO, 0)).await;
    assert_eq!(unknown, Err(EngineError::UnknownBlock(B256::ZERO)));
    let illegal = Forkchoice { head: B256::ZERO, safe: B256::ZERO, finalized: B256::repeat_byte(1) };
    let refused = client.forkchoice_updated(&illegal).await;
    assert_eq!(refused, Err(EngineError::Illegal("head is zero, finalized is not".into())));
}

#[tokio::test]
async fn a_panic_in_the_engine_is_an_error_of_that_call_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let failed = client.new_payload(&header(PANIC), &[], &SystemInputs::default()).await;
    assert!(matches!(failed, Err(EngineError::Internal(_))), "{failed:?}");
    assert!(client.finalized_state().await.is_ok());
}

#[tokio::test]
async fn a_long_poll_answers_when_a_transaction_comes() {
    let dir = tempfile::tempdir().unwrap();
    let executor = Executor::new(capabilities());
    let server = Process::start(&socket(&dir), executor.clone());
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.await_transactions(B256::ZERO, PATIENCE).await }
    });
    soon(executor.entered.notified()).await;
    executor.release.notify_one();
    assert_eq!(soon(waiting).await.unwrap(), Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_executor_fails_pending_calls_and_the_client_finds_the_next_one_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let executor = Executor::new(capabilities());
    let server = Process::start(&socket(&dir), executor.clone());
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let pending = tokio::spawn({
        let client = client.clone();
        async move { client.new_payload(&header(BLOCKED), &[], &SystemInputs::default()).await }
    });
    soon(executor.entered.notified()).await;
    let endpoint = server.endpoint.clone();
    tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
    let failed = soon(pending).await.unwrap();
    assert!(matches!(failed, Err(EngineError::Unavailable(_))), "{failed:?}");
    health_becomes(&client, |health| matches!(health, Health::Down(_))).await;
    let refused = client.finalized_state().await;
    assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");

    let _next = Process::start(&endpoint, Executor::new(capabilities()));
    up(&client).await;
    assert!(client.finalized_state().await.is_ok());
}

#[tokio::test]
async fn a_client_may_start_before_its_executor() {
    let dir = tempfile::tempdir().unwrap();
    let client = EngineClient::new(config(&socket(&dir)));
    let refused = client.ready(Duration::ZERO).await;
    assert!(matches!(refused, Err(EngineError::Unavailable(_))), "{refused:?}");
    health_becomes(
        &client,
        |health| matches!(health, Health::Down(reason) if reason.contains("cannot connect")),
    )
    .await;
    let _server = Process::start(&socket(&dir), Executor::new(capabilities()));
    up(&client).await;
}

#[tokio::test]
async fn a_call_past_its_deadline_fails_and_the_executor_still_finishes_it() {
    let dir = tempfile::tempdir().unwrap();
    let executor = Executor::new(capabilities());
    let server = Process::start(&socket(&dir), executor.clone());
    let mut config = config(&server.endpoint);
    config.deadlines.new_payload = Duration::from_millis(50);
    let client = EngineClient::new(config);
    up(&client).await;
    let late = client.new_payload(&header(BLOCKED), &[], &SystemInputs::default()).await;
    assert_eq!(late, Err(EngineError::Unavailable("NewPayload had no answer within 50 ms".into())));
    executor.release.notify_one();
    soon(executor.finished.notified()).await;
    assert!(client.finalized_state().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_executor_is_noticed_by_its_silence_and_welcome_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let config = config(&server.endpoint);
    assert!(config.heartbeat_interval + config.heartbeat_deadline < Duration::from_secs(1));
    let client = EngineClient::new(config);
    up(&client).await;
    // Its only worker thread stands still, as under SIGSTOP: the socket accepts, nobody answers.
    let (thaw, frozen) = std::sync::mpsc::channel::<()>();
    let (standing, stands) = oneshot::channel();
    server.runtime.as_ref().unwrap().spawn(async move {
        standing.send(()).unwrap();
        let _ = frozen.recv();
    });
    stands.await.unwrap();
    let down = health_becomes(&client, |health| matches!(health, Health::Down(_))).await;
    assert!(matches!(&down, Health::Down(reason) if reason.contains("no heartbeat")), "{down:?}");
    thaw.send(()).unwrap();
    health_becomes(&client, |health| *health == Health::Up).await;
    assert!(client.finalized_state().await.is_ok());
}

#[tokio::test]
async fn an_executor_of_another_chain_is_never_used() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = Capabilities { chain_id: 1, ..capabilities() };
    let server = Process::start(&socket(&dir), Executor::new(foreign));
    let client = EngineClient::new(config(&server.endpoint));
    let health = health_becomes(&client, |health| matches!(health, Health::Mismatch(_))).await;
    let Health::Mismatch(reason) = health else { unreachable!() };
    assert_eq!(reason, "chain id: consensus has 31337, executor has 1");
    assert_eq!(client.finalized_state().await, Err(EngineError::Mismatch(reason)));
    // Replaced by the right one, it is used without help.
    let endpoint = server.endpoint.clone();
    tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
    let _right = Process::start(&endpoint, Executor::new(capabilities()));
    up(&client).await;
}

#[tokio::test]
async fn another_secret_is_refused_as_unauthenticated() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let client =
        EngineClient::new(ClientConfig { secret: JwtSecret::generate(), ..config(&server.endpoint) });
    let health =
        health_becomes(&client, |health| matches!(health, Health::Down(r) if r.contains("credentials")))
            .await;
    assert!(format!("{health:?}").contains("different secrets"), "{health:?}");
    let refused = client.finalized_state().await;
    assert!(matches!(refused, Err(EngineError::Unauthenticated(_))), "{refused:?}");
}

mod raw {
    //! A client without this crate's manners.
    #![allow(missing_docs, dead_code, clippy::all)]
    tonic::include_proto!("tandem.engine.v1");
}

async fn raw_client(path: &Path) -> raw::engine_client::EngineClient<tonic::transport::Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel =
        tonic::transport::Endpoint::from_static("http://x").connect_with_connector(connector).await.unwrap();
    raw::engine_client::EngineClient::new(channel)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn with_header<T>(message: T, header: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(header) = header {
        request.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn missing_garbage_expired_and_foreign_tokens_are_unauthenticated() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let Endpoint::Unix(path) = &server.endpoint else { unreachable!() };
    let mut client = raw_client(path).await;
    let good = format!("Bearer {}", secret().token(now()));
    let refused = [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some("Bearer ".into()),
        Some("Bearer garbage".into()),
        Some(format!("Bearer {}", "x".repeat(6000))),
        Some(good.replace("Bearer", "Basic")),
        Some(format!("{good}x")),
        Some(format!("Bearer {}", secret().token(now() - 120))),
        Some(format!("Bearer {}", secret().token(now() + 120))),
        Some(format!("Bearer {}", JwtSecret::generate().token(now()))),
        // {"alg":"none"} . {"iat":..} . empty signature
        Some(format!("Bearer eyJhbGciOiJub25lIn0.{}.", secret().token(now()).split('.').nth(1).unwrap())),
    ];
    for header in refused {
        let answer =
            client.finalized_state(with_header(raw::FinalizedStateRequest {}, header.as_deref())).await;
        let status = answer.expect_err("must be refused");
        assert_eq!(status.code(), tonic::Code::Unauthenticated, "{header:?}: {status}");
    }
    client.finalized_state(with_header(raw::FinalizedStateRequest {}, Some(&good))).await.unwrap();
}

#[tokio::test]
async fn malformed_and_oversized_calls_get_a_status_and_the_connection_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let Endpoint::Unix(path) = &server.endpoint else { unreachable!() };
    let mut client = raw_client(path).await;
    let good = format!("Bearer {}", secret().token(now()));
    let short = raw::ForkchoiceUpdatedRequest { head: vec![1; 31], ..Default::default() };
    let status = client.forkchoice_updated(with_header(short, Some(&good))).await.expect_err("a short hash");
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::InvalidArgument, "head has 31 bytes, must have 32")
    );
    let garbage = raw::NewPayloadRequest { header: vec![0xff; 300], ..Default::default() };
    let status = client.new_payload(with_header(garbage, Some(&good))).await.expect_err("no header");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    let large = raw::NewPayloadRequest { payload: vec![1; (8 << 20) + 1], ..Default::default() };
    let status = client.new_payload(with_header(large, Some(&good))).await.expect_err("too much payload");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    let huge = raw::NewPayloadRequest { payload: vec![1; 32 << 20], ..Default::default() };
    let status =
        client.new_payload(with_header(huge, Some(&good))).await.expect_err("larger than any message");
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    client.finalized_state(with_header(raw::FinalizedStateRequest {}, Some(&good))).await.unwrap();
}

#[tokio::test]
async fn an_oversized_block_is_refused_before_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let refused = client.new_payload(&header(0), &vec![0; (8 << 20) + 1], &SystemInputs::default()).await;
    let Err(EngineError::Illegal(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("8388609") && reason.contains("8388608"), "{reason}");
}

#[tokio::test]
async fn bytes_that_are_no_http_close_only_their_own_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let Endpoint::Unix(path) = &server.endpoint else { unreachable!() };
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    stream.write_all(&[0xa5; 4096]).await.unwrap();
    let mut sink = Vec::new();
    // Closed with or without an error: both are an end.
    let _ = soon(stream.read_to_end(&mut sink)).await;
    assert!(client.finalized_state().await.is_ok());
}

#[tokio::test]
async fn forkchoice_calls_come_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let executor = Executor::new(capabilities());
    let server = Process::start(&socket(&dir), executor.clone());
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let hash = B256::repeat_byte(1);
    let forkchoice = Forkchoice { head: hash, safe: hash, finalized: hash };
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.forkchoice_updated(&forkchoice).await })
        })
        .collect();
    for call in calls {
        soon(call).await.unwrap().unwrap();
    }
    assert_eq!(executor.inside_max.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn more_work_than_fits_is_told_to_retry() {
    let dir = tempfile::tempdir().unwrap();
    let executor = Executor::new(capabilities());
    let server = Process::start(&socket(&dir), executor.clone());
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let mut calls = Vec::new();
    for _ in 0..8 {
        let client = client.clone();
        calls.push(tokio::spawn(async move {
            client.new_payload(&header(BLOCKED), &[], &SystemInputs::default()).await
        }));
        soon(executor.entered.notified()).await;
    }
    let refused = client.new_payload(&header(0), &[], &SystemInputs::default()).await;
    assert_eq!(refused, Err(EngineError::Unavailable("too many calls of this kind are running".into())));
    assert!(client.finalized_state().await.is_ok(), "reading calls have their own room");
    for call in calls {
        executor.release.notify_one();
        soon(executor.finished.notified()).await;
        drop(call);
    }
}

#[tokio::test]
async fn the_socket_is_private_and_removed_at_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = socket(&dir);
    let Endpoint::Unix(path) = &endpoint else { unreachable!() };
    let (stop, stopping) = oneshot::channel::<()>();
    let server = serve(&endpoint, secret(), Executor::new(capabilities()), async {
        let _ = stopping.await;
    });
    let server = server.await.unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let client = EngineClient::new(config(&endpoint));
    up(&client).await;
    stop.send(()).unwrap();
    soon(server.stopped()).await;
    assert!(!path.exists());
    health_becomes(&client, |health| matches!(health, Health::Down(_))).await;
}

#[tokio::test]
async fn a_stale_socket_file_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = socket(&dir);
    let Endpoint::Unix(path) = &endpoint else { unreachable!() };
    // A killed process leaves its socket file, and perhaps a draft, behind.
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("engine.sock.new")).unwrap());
    let _server = Process::start(&endpoint, Executor::new(capabilities()));
    up(&EngineClient::new(config(&endpoint))).await;
}

#[tokio::test]
async fn a_served_socket_a_foreign_listener_and_a_plain_file_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = socket(&dir);
    let try_serve = |endpoint: Endpoint| async move {
        serve(&endpoint, secret(), Executor::new(capabilities()), std::future::pending()).await
    };
    let _server = Process::start(&endpoint, Executor::new(capabilities()));
    let refused = try_serve(endpoint.clone()).await.err().unwrap();
    assert!(matches!(refused, EngineApiError::InUse(_)), "{refused}");
    up(&EngineClient::new(config(&endpoint))).await;

    let foreign = dir.path().join("foreign.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&foreign).unwrap();
    let refused = try_serve(Endpoint::Unix(foreign.clone())).await.err().unwrap();
    assert!(matches!(refused, EngineApiError::InUse(_)), "{refused}");
    assert!(foreign.exists());

    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "precious").unwrap();
    let refused = try_serve(Endpoint::Unix(file.clone())).await.err().unwrap();
    assert!(matches!(refused, EngineApiError::NotASocket(_)), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = try_serve(Endpoint::Tcp(taken.local_addr().unwrap())).await.err().unwrap();
    assert!(matches!(refused, EngineApiError::InUse(_)), "{refused}");
    let public = Endpoint::Tcp(([0, 0, 0, 0], 0).into());
    assert!(matches!(try_serve(public).await.err().unwrap(), EngineApiError::Endpoint(_)));
}

#[tokio::test]
async fn two_servers_that_start_at_once_on_a_stale_socket_end_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = socket(&dir);
    let Endpoint::Unix(path) = &endpoint else { unreachable!() };
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    let start = || serve(&endpoint, secret(), Executor::new(capabilities()), std::future::pending());
    let (first, second) = tokio::join!(start(), start());
    assert_eq!([&first, &second].iter().filter(|server| server.is_ok()).count(), 1);
    up(&EngineClient::new(config(&endpoint))).await;
}

/// Not a benchmark suite, only the figure for docs/benchmarks.md:
/// `cargo test --release -p engine-api --test sockets round_trip -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, decides nothing"]
async fn round_trip_times() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&socket(&dir), Executor::new(capabilities()));
    let client = EngineClient::new(config(&server.endpoint));
    up(&client).await;
    let payload = vec![1; 1 << 20];
    for name in ["FinalizedState", "AwaitTransactions(0)", "NewPayload of 1 MiB", "GetPayload of 1 MiB"] {
        let count = if name.contains("MiB") { 200 } else { 5000 };
        let mut times = Vec::new();
        for _ in 0..count {
            let start = Instant::now();
            match name {
                "FinalizedState" => drop(client.finalized_state().await.unwrap()),
                "AwaitTransactions(0)" => {
                    assert!(!client.await_transactions(B256::ZERO, Duration::ZERO).await.unwrap())
                }
                "NewPayload of 1 MiB" => {
                    drop(client.new_payload(&header(0), &payload, &SystemInputs::default()).await.unwrap());
                }
                _ => drop(client.build_payload(&request(B256::repeat_byte(1), 1 << 20)).await.unwrap()),
            }
            times.push(start.elapsed());
        }
        times.sort();
        println!("{name}: p50 {:?}, p99 {:?}", times[count / 2], times[count * 99 / 100]);
    }
}
