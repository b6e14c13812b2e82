//! What happens around every call, whatever the transport: counting, back-pressure, and batches that neither
//! starve other connections nor build answers nobody may receive.

use super::{connection::Connection, metrics::RequestCounters};
use futures::{StreamExt, stream::FuturesOrdered};
use jsonrpsee::{
    core::middleware::{Batch, BatchEntry, BatchEntryErr, Extensions, Notification, Request, RpcServiceT},
    server::{BatchResponseBuilder, MethodResponse, middleware::rpc::RpcService},
    types::{ErrorObject, Id},
};
use std::{future::Future, sync::Arc};

/// Adds [`CallService`] around jsonrpsee's dispatcher.
#[derive(Clone, Debug)]
pub(super) struct CallLayer {
    pub(super) counters: Arc<RequestCounters>,
    pub(super) response_bytes_max: usize,
}

impl<S> tower::Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner, layer: self.clone() }
    }
}

/// The dispatcher with everything around it.
#[derive(Clone, Debug)]
pub(super) struct CallService<S = RpcService> {
    inner: S,
    layer: CallLayer,
}

/// Calls of one batch that wait at the same time.
const BATCH_CONCURRENCY: usize = 32;
/// Calls of a batch after which other tasks of the thread get a turn.
const BATCH_SLICE: usize = 16;

impl<S> RpcServiceT for CallService<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            BatchResponse = MethodResponse,
            NotificationResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let service = self.clone();
        async move {
            let connection = connection_of(&request.extensions);
            let _running = connection.as_ref().map(Connection::begin_call);
            let response = service.answer(request).await;
            if let Some(connection) = connection {
                connection.queued(response.as_ref().len());
            }
            response
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let service = self.clone();
        async move {
            let connection =
                batch.iter().flatten().next().and_then(|entry| connection_of(entry.extensions()));
            let _running = connection.as_ref().map(Connection::begin_call);
            let response = service.answer_all(batch).await;
            if let Some(connection) = connection {
                connection.queued(response.as_ref().len());
            }
            response
        }
    }

    fn notification<'a>(&self, _: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        std::future::ready(MethodResponse::error(Id::Null, no_id()))
    }
}

impl<S> CallService<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            BatchResponse = MethodResponse,
            NotificationResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    async fn answer(&self, request: Request<'_>) -> MethodResponse {
        let counters = self.layer.counters.clone();
        let method = request.method.clone();
        let needs_websocket = matches!(&*method, "eth_subscribe" | "eth_unsubscribe");
        let response = if needs_websocket && connection_of(&request.extensions).is_none() {
            MethodResponse::error(request.id, notifications_unsupported())
        } else {
            self.inner.call(request).await
        };
        counters.count(&method, response.as_error_code());
        response
    }

    /// Answers in the order of the batch. Calls start in that order too, so transactions sent in one batch
    /// reach the pool as given, but those that wait for something wait together.
    async fn answer_all(&self, batch: Batch<'_>) -> MethodResponse {
        let mut responses = BatchResponseBuilder::new_with_limit(self.layer.response_bytes_max);
        let mut silent = false;
        let (mut entries, mut running) = (batch.into_iter(), FuturesOrdered::new());
        let mut answered = 0_usize;
        loop {
            while running.len() < BATCH_CONCURRENCY
                && let Some(entry) = entries.next()
            {
                running.push_back(self.answer_entry(entry));
            }
            let Some(answer) = running.next().await else { break };
            answered += 1;
            if answered.is_multiple_of(BATCH_SLICE) {
                tokio::task::yield_now().await;
            }
            let Some(response) = answer else {
                silent = true;
                continue;
            };
            if let Err(too_large) = responses.append(response) {
                return too_large;
            }
        }
        if responses.is_empty() && silent {
            return MethodResponse::notification();
        }
        MethodResponse::from_batch(responses.finish())
    }

    /// `None` for what is not answered in the batch: notifications, and subscribing, whose answer goes ahead
    /// of its own notifications.
    async fn answer_entry(&self, entry: Result<BatchEntry<'_>, BatchEntryErr<'_>>) -> Option<MethodResponse> {
        match entry {
            Ok(BatchEntry::Call(request)) => {
                let response = self.answer(request).await;
                (!response.is_subscription()).then_some(response)
            }
            Ok(BatchEntry::Notification(_)) => None,
            Err(error) => {
                let (error, id) = error.into_parts();
                Some(MethodResponse::error(id, error))
            }
        }
    }
}

/// The WebSocket connection a call came by; calls by HTTP are bounded by their request.
fn connection_of(extensions: &Extensions) -> Option<Arc<Connection>> {
    extensions.get::<Arc<Connection>>().filter(|connection| connection.is_websocket()).cloned()
}

/// A request without an id asks for no answer, and no method here does anything else. But a request whose id the
/// dispatcher does not know (negative, fractional, too large) looks the same, and its sender waits.
fn no_id() -> ErrorObject<'static> {
    let text = "request was not executed: it has no id, or one that is neither a string nor a whole number from 0 to \
                2^64 - 1";
    ErrorObject::borrowed(-32600, text, None)
}

/// As geth says it.
fn notifications_unsupported() -> ErrorObject<'static> {
    ErrorObject::borrowed(-32601, "notifications not supported: subscribe over a WebSocket connection", None)
}

/// Answer to a request that is none.
pub(super) fn error_body(code: i32, message: &str) -> String {
    let response = MethodResponse::error(Id::Null, ErrorObject::owned(code, message, None::<()>));
    response.as_ref().to_owned()
}
