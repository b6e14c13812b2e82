//! A lane: one long-lived stream in one direction that carries length-prefixed messages. Opened once per
//! connection, so that a message costs no negotiation; flushed whenever the queue runs empty.

use crate::control::{LinkStats, Stop, stopping};
use crate::frame::{FrameError, prefix, push_frame, read_body, read_length};
use crate::link::{Opener, ProtocolIndex};
use crate::outbox::Outbox;
use bytes::Bytes;
use futures::io::BufReader;
use futures::{AsyncRead, AsyncWriteExt};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Small messages that wait together travel in one write of up to this size: one frame of the multiplexer.
const WRITE_BYTES_MAX: usize = 16 << 10;

/// Sends everything that is put into `outbox` until told to stop; then closes the stream in order.
pub(crate) async fn send_all(
    opener: Opener,
    protocol: ProtocolIndex,
    outbox: Arc<Outbox>,
    mut stop: watch::Receiver<Stop>,
    stats: Arc<LinkStats>,
) -> Result<(), String> {
    let mut stream = opener.open(protocol).await.map_err(|error| error.to_string())?;
    let (mut batch, mut buffer) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            biased;
            () = stopping(&mut stop) => break,
            () = outbox.wait() => {}
        }
        outbox.take(&mut batch, WRITE_BYTES_MAX);
        let bytes = batch.iter().map(Bytes::len).sum();
        write_batch(&mut stream, &batch, &mut buffer).await.map_err(|error| error.to_string())?;
        stats.sent(batch.len(), bytes);
        batch.clear();
    }
    stream.close().await.map_err(|error| error.to_string())
}

/// A large message is written from where it lies, except for its first part, which travels with its length.
async fn write_batch(
    stream: &mut (impl futures::AsyncWrite + Unpin),
    batch: &[Bytes],
    buffer: &mut Vec<u8>,
) -> std::io::Result<()> {
    buffer.clear();
    if let [message] = batch
        && message.len() > WRITE_BYTES_MAX
    {
        let length = prefix(message.len());
        let (first, rest) = message.split_at(WRITE_BYTES_MAX - length.len());
        buffer.extend_from_slice(&length);
        buffer.extend_from_slice(first);
        stream.write_all(buffer).await?;
        stream.write_all(rest).await?;
    } else {
        batch.iter().for_each(|message| push_frame(buffer, message));
        stream.write_all(buffer).await?;
    }
    stream.flush().await
}

/// How much of a peer's messages may be in memory at once, in the reader and in the application together.
#[derive(Clone)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    least: u32,
}

impl Budget {
    /// `bytes` in total; a message counts at least `least`, which bounds their number.
    pub(crate) fn new(bytes: usize, least: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(bytes)), least }
    }
}

/// The receiving end of a lane.
pub(crate) struct LaneReader<S> {
    stream: BufReader<S>,
    budget: Budget,
    limit: usize,
}

/// A received message; its share of the sender's budget is given back when it is dropped.
pub(crate) struct Received {
    body: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Received {
    /// The message and its share separately, where the share is to be kept for another time than the bytes.
    pub(crate) fn split(self) -> (Vec<u8>, OwnedSemaphorePermit) {
        (self.body, self.permit)
    }
}

impl<S: AsyncRead + Unpin> LaneReader<S> {
    pub(crate) fn new(stream: S, budget: Budget, limit: usize) -> Self {
        Self { stream: BufReader::with_capacity(WRITE_BYTES_MAX, stream), budget, limit }
    }

    /// The next message. Waits, without reading on, while the peer's budget is used up: its stream then fills and
    /// the peer is slowed down, nobody else.
    pub(crate) async fn next(&mut self) -> Result<Received, FrameError> {
        let bytes = read_length(&mut self.stream, self.limit).await?;
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).max(self.budget.least);
        let permit = self.budget.permits.clone().acquire_many_owned(share).await;
        let permit = permit.map_err(|_| FrameError::End)?;
        let body = read_body(&mut self.stream, bytes).await?;
        Ok(Received { body, permit })
    }
}
