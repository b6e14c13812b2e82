//! `/consensus/v1/events`: server-sent events `head` and `finalized`.

use super::{ApiError, App, views};
use crate::feed::Notice;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream};
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;

/// A comment is sent when nothing else was for this long, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

const TOPICS: [&str; 2] = ["head", "finalized"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topics {
    /// Comma-separated; all when left out.
    topics: Option<String>,
}

pub(super) async fn stream(
    State(app): State<App>,
    query: Result<Query<Topics>, QueryRejection>,
    slots: Arc<Semaphore>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Query(Topics { topics }) = query.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let topics: Vec<String> =
        topics.as_deref().unwrap_or("head,finalized").split(',').map(str::to_owned).collect();
    if let Some(unknown) = topics.iter().find(|topic| !TOPICS.contains(&topic.as_str())) {
        return Err(ApiError::bad_request(format!(
            "unknown topic \"{unknown}\"; there are {}",
            TOPICS.join(", ")
        )));
    }
    let slot = slots.try_acquire_owned().map_err(|_| ApiError::unavailable("all event streams are taken"))?;
    let notices = app.0.feed.follow();
    let events = stream::unfold((notices, topics, slot), |(mut notices, topics, slot)| async move {
        loop {
            let event = match notices.recv().await {
                Ok(notice) => {
                    event_of(&notice).filter(|(topic, _)| topics.iter().any(|wanted| wanted == topic))
                }
                // The reader was too slow: tell it, so that it can fetch what it missed.
                Err(RecvError::Lagged(missed)) => Some(("lagged", json!({ "missed": missed }))),
                Err(RecvError::Closed) => return None,
            };
            if let Some((topic, data)) = event {
                let event = Event::default().event(topic).data(data.to_string());
                return Some((Ok(event), (notices, topics, slot)));
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn event_of(notice: &Notice) -> Option<(&'static str, serde_json::Value)> {
    Some(match notice {
        Notice::Head { height, view, block_hash } => {
            ("head", json!({ "height": height, "view": view, "hash": block_hash }))
        }
        Notice::Finalized(block) => ("finalized", views::summary(block)),
    })
}
