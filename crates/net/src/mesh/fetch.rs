//! Fetching blocks: one stream per request, a frame each way. The answer's first byte says whether it is one.
//!
//! Serving is bounded by requests, not by connections: 5 in flight per identity and 96 in all, of which at most 16
//! are being worked on and hold an answer in memory; observers share a part of both. A request holds its place
//! until it is done or its deadline is over, even if its connection is gone: reconnecting frees nothing. Beyond a
//! hundred requests per second a peer is told that we are busy.

use super::peer::{FETCHES_PER_PEER_MAX, Peer};
use super::session::Core;
use super::{FETCH, MeshEvent};
use crate::error::{NetError, lock};
use crate::frame::{FrameError, PREFIX_BYTES, prefix, read_frame, write_frame};
use crate::rate::{Rate, Usage};
use futures::AsyncWriteExt;
use libp2p::swarm::Stream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use types::limits::{FETCH_BLOCKS_MAX, FETCH_BYTES_MAX};
use types::{FetchRequest, FetchResponse, PublicKey};

/// Requests in flight in all, in each direction.
const FETCHES_MAX: usize = 96;

/// Of those served: requests of observers.
const OBSERVER_FETCHES_MAX: usize = 32;

/// Requests being worked on, each of which may hold an answer of [`FETCH_BYTES_MAX`].
const WORKING_MAX: usize = 16;

/// Of those: requests of observers.
const OBSERVERS_WORKING_MAX: usize = 4;

/// Requests of one validator, and of all observers together: a hundred per second, a thousand at once.
const FETCH_RATE: Rate = Rate { interval: Duration::from_millis(10), burst: 1000 };

/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 256;

/// Time for a peer to send its request, for us to answer it, for the peer to read the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = assert!(FETCHES_PER_PEER_MAX <= FETCHES_MAX && OBSERVER_FETCHES_MAX < FETCHES_MAX);
const _: () = assert!(OBSERVERS_WORKING_MAX < WORKING_MAX);

/// First byte of an answer.
const FOUND: u8 = 0;
const BUSY: u8 = 1;
const MALFORMED: u8 = 2;
const UNAVAILABLE: u8 = 3;

/// What all fetches of a node share.
pub(crate) struct State {
    serving: Arc<Semaphore>,
    serving_observers: Arc<Semaphore>,
    working: Semaphore,
    observers_working: Semaphore,
    observers_usage: Mutex<Usage>,
    requesting: Semaphore,
    next_peer: AtomicUsize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            serving: Arc::new(Semaphore::new(FETCHES_MAX)),
            serving_observers: Arc::new(Semaphore::new(OBSERVER_FETCHES_MAX)),
            working: Semaphore::new(WORKING_MAX),
            observers_working: Semaphore::new(OBSERVERS_WORKING_MAX),
            observers_usage: Mutex::new(Usage::new(Instant::now())),
            requesting: Semaphore::new(FETCHES_MAX),
            next_peer: AtomicUsize::new(0),
        }
    }
}

/// One identity's requests here: how many are in flight, and how fast they came.
pub(crate) struct Serving {
    places: Arc<Semaphore>,
    usage: Mutex<Usage>,
}

impl Default for Serving {
    fn default() -> Self {
        let usage = Mutex::new(Usage::new(Instant::now()));
        Self { places: Arc::new(Semaphore::new(FETCHES_PER_PEER_MAX)), usage }
    }
}

impl Serving {
    /// Whether forgetting it would change nothing.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.places.available_permits() == FETCHES_PER_PEER_MAX && lock(&self.usage).is_settled(now)
    }
}

/// Places of one request: of its peer, of its kind, in all.
type Places = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>, OwnedSemaphorePermit);

impl State {
    /// Observers share one rate and one set of places: an identity costs them nothing.
    fn places(&self, peer: &Peer, now: Instant) -> Option<Places> {
        let of_peer = peer.serving.places.clone().try_acquire_owned().ok()?;
        let (of_kind, usage) = match peer.role() {
            Some(_) => (None, &peer.serving.usage),
            None => (Some(self.serving_observers.clone().try_acquire_owned().ok()?), &self.observers_usage),
        };
        let of_all = self.serving.clone().try_acquire_owned().ok()?;
        lock(usage).count(FETCH_RATE, now).then_some((of_peer, of_kind, of_all))
    }
}

// Serving.

/// Serves one request in a task of its own, which outlives the connection.
pub(super) fn spawn_serve(core: &Arc<Core>, peer: &Arc<Peer>, mut stream: Stream) {
    let core = core.clone();
    let Some(places) = core.fetch.places(peer, Instant::now()) else {
        core.counters.fetches_refused.fetch_add(1, Ordering::Relaxed);
        // Reads the request first: the peer would otherwise see a broken stream instead of the answer.
        tokio::spawn(async move {
            let request = timeout(REQUEST_TIMEOUT, read_frame(&mut stream, REQUEST_BYTES_MAX)).await;
            if request.is_ok_and(|read| read.is_ok()) {
                refuse(&mut stream, BUSY).await;
            }
        });
        return;
    };
    let from = peer.role();
    tokio::spawn(async move {
        let answer = answer(&core, from, &mut stream).await;
        let delivered = match answer {
            Ok(answer) => {
                timeout(DELIVERY_TIMEOUT, deliver(&mut stream, &answer)).await.is_ok_and(|w| w.is_ok())
            }
            Err(code) => {
                refuse(&mut stream, code).await;
                false
            }
        };
        if delivered {
            core.counters.fetches_served.fetch_add(1, Ordering::Relaxed);
        }
        drop(places);
    });
}

async fn answer(core: &Core, from: Option<PublicKey>, stream: &mut Stream) -> Result<Vec<u8>, u8> {
    let request = timeout(REQUEST_TIMEOUT, read_frame(stream, REQUEST_BYTES_MAX)).await;
    let request = request.map_err(|_| UNAVAILABLE)?.map_err(|_| MALFORMED)?;
    let request: FetchRequest = types::decode(&request).map_err(|_| MALFORMED)?;
    let response = timeout(ANSWER_TIMEOUT, ask(core, from, request)).await.map_err(|_| UNAVAILABLE)??;
    let answer = types::encode(&response);
    if answer.len() > FETCH_BYTES_MAX {
        tracing::error!(bytes = answer.len(), limit = FETCH_BYTES_MAX, "the answer to a fetch is too large");
        return Err(UNAVAILABLE);
    }
    Ok(answer)
}

async fn ask(core: &Core, from: Option<PublicKey>, request: FetchRequest) -> Result<FetchResponse, u8> {
    let _observer = match from {
        Some(_) => None,
        None => Some(core.fetch.observers_working.acquire().await.map_err(|_| UNAVAILABLE)?),
    };
    let _working = core.fetch.working.acquire().await.map_err(|_| UNAVAILABLE)?;
    let (reply, response) = oneshot::channel();
    let event = MeshEvent::Fetch { from, request, reply };
    core.events.send(event).await.map_err(|_| UNAVAILABLE)?;
    response.await.map_err(|_| UNAVAILABLE)
}

async fn refuse(stream: &mut Stream, code: u8) {
    let write = async {
        write_frame(stream, &[code]).await?;
        stream.close().await
    };
    // A peer that does not read it misses nothing.
    let _ = timeout(REQUEST_TIMEOUT, write).await;
}

async fn deliver(stream: &mut Stream, answer: &[u8]) -> std::io::Result<()> {
    let mut head = [FOUND; PREFIX_BYTES + 1];
    head[..PREFIX_BYTES].copy_from_slice(&prefix(answer.len() + 1));
    stream.write_all(&head).await?;
    stream.write_all(answer).await?;
    stream.close().await
}

// Requesting.

impl Core {
    pub(super) async fn fetch(
        &self,
        target: Option<PublicKey>,
        request: &FetchRequest,
    ) -> Result<FetchResponse, NetError> {
        let timeout_ms = self.limits.fetch_timeout_ms;
        let fetched = timeout(Duration::from_millis(timeout_ms), self.fetch_from(target, request)).await;
        fetched.unwrap_or(Err(NetError::Deadline { timeout_ms }))
    }

    async fn fetch_from(
        &self,
        target: Option<PublicKey>,
        request: &FetchRequest,
    ) -> Result<FetchResponse, NetError> {
        let broken = |reason: String| NetError::Broken { reason };
        let _total = self.fetch.requesting.acquire().await.map_err(|_| NetError::Stopped)?;
        let peer = match target {
            Some(key) => self.validator(&key).ok_or(NetError::NotConnected { key })?,
            None => self.next_peer().ok_or(NetError::NoPeer)?,
        };
        let _place = peer.fetching.acquire().await.map_err(|_| NetError::Stopped)?;
        let opener = peer.with_link(|link| link.opener.clone());
        let mut stream = opener.open(FETCH).await.map_err(|error| broken(error.to_string()))?;
        write_frame(&mut stream, &types::encode(request)).await.map_err(|error| broken(error.to_string()))?;
        let answer = read_frame(&mut stream, FETCH_BYTES_MAX + 1).await.map_err(|error| match error {
            FrameError::TooLarge { .. } | FrameError::Empty => {
                NetError::Misbehaved { reason: error.to_string() }
            }
            _ => broken(error.to_string()),
        })?;
        parse(&answer)
    }

    /// The next peer in turn with a free place: validators, or whoever there is. If all are taken, any.
    fn next_peer(&self) -> Option<Arc<Peer>> {
        let mut peers = self.registry().all();
        if peers.iter().any(|peer| peer.role().is_some()) {
            peers.retain(|peer| peer.role().is_some());
        }
        let turn = self.fetch.next_peer.fetch_add(1, Ordering::Relaxed);
        let length = peers.len();
        peers.rotate_left(turn.checked_rem(length)?);
        let free = peers.iter().find(|peer| peer.fetching.available_permits() > 0);
        free.or(peers.first()).cloned()
    }
}

pub(crate) fn parse(answer: &[u8]) -> Result<FetchResponse, NetError> {
    let misbehaved = |reason: String| NetError::Misbehaved { reason };
    match answer.split_first() {
        Some((&FOUND, body)) => {
            let response: FetchResponse =
                types::decode(body).map_err(|error| misbehaved(error.to_string()))?;
            match response.blocks.len() {
                blocks if blocks > FETCH_BLOCKS_MAX as usize => Err(misbehaved(format!("{blocks} blocks"))),
                _ => Ok(response),
            }
        }
        Some((&BUSY, _)) => Err(NetError::PeerBusy { reason: "too many requests in flight" }),
        Some((&UNAVAILABLE, _)) => Err(NetError::PeerBusy { reason: "it could not answer in time" }),
        Some((&MALFORMED, _)) => Err(misbehaved("it calls our request malformed".to_owned())),
        other => Err(misbehaved(format!("answer code {other:?}"))),
    }
}
