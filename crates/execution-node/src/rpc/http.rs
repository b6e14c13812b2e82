//! What an HTTP request must look like before it reaches the dispatcher: whose page may send it (CORS), by
//! what name it may call this machine (DNS rebinding), how large and how slow it may be.

use super::{config::RpcConfig, connection::Connection, service::error_body};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use jsonrpsee::server::{HttpBody, HttpRequest, HttpResponse};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tower::{BoxError, Service};

/// Rules for requests, shared by all connections.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    origins: Vec<String>,
    hosts: Vec<String>,
    request_bytes_max: u64,
    request_time_max: Duration,
}

/// An oversized body up to this size is read to its end, so that the client gets to see the refusal instead
/// of a connection reset.
const DRAIN_BYTES_MAX: u64 = 64 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

const OVERSIZED_REQUEST_CODE: i32 = -32007;
const TIMEOUT_CODE: i32 = -32002;

impl Gatekeeper {
    pub(super) fn new(config: &RpcConfig) -> Self {
        Self {
            origins: config.cors_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            hosts: config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            request_bytes_max: config.request_bytes_max.into(),
            request_time_max: Duration::from_millis(config.request_ms_max),
        }
    }

    /// Answers one request of a connection, by `dispatcher` if it may pass.
    pub(super) async fn handle<S>(
        self: Arc<Self>,
        mut dispatcher: S,
        connection: Arc<Connection>,
        mut request: HttpRequest<Incoming>,
    ) -> Result<HttpResponse, Infallible>
    where
        S: Service<HttpRequest<Incoming>, Response = HttpResponse, Error = BoxError>,
    {
        if !self.host_allowed(request.headers().get(header::HOST), request.uri()) {
            let text = "Host header is not in the allowed list (rpc.hosts)\n";
            return Ok(plain(StatusCode::FORBIDDEN, text));
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let allowed_origin = origin.as_ref().and_then(|origin| self.allowed_origin(origin));
        let upgrade = is_upgrade(request.headers());
        // Browsers let any page open a WebSocket and leave the check to the server.
        if upgrade && origin.is_some() && allowed_origin.is_none() {
            let text = "this web origin is not in the allowed list (rpc.cors_origins)\n";
            return Ok(plain(StatusCode::FORBIDDEN, text));
        }
        if upgrade {
            connection.upgrade();
            request.extensions_mut().insert(connection);
        }
        let mut response = match *request.method() {
            Method::OPTIONS => preflight(request.headers(), allowed_origin.is_some()),
            Method::GET if !upgrade => {
                plain(StatusCode::OK, "Tandem JSON-RPC: send POST requests or open a WebSocket\n")
            }
            _ if declared_length(request.headers()) > self.request_bytes_max => {
                self.refuse_oversized(request).await
            }
            _ => match tokio::time::timeout(self.request_time_max, dispatcher.call(request)).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => json(StatusCode::INTERNAL_SERVER_ERROR, -32603, &error.to_string()),
                Err(_) => self.timed_out(),
            },
        };
        if let Some(origin) = allowed_origin {
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        Ok(response)
    }

    fn allowed_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let text = origin.to_str().ok()?;
        if self.origins.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)).then(|| origin.clone())
    }

    /// Requests without any host come from programs, not from browsers.
    fn host_allowed(&self, header: Option<&HeaderValue>, uri: &http::Uri) -> bool {
        let authority = match header {
            Some(value) => match value.to_str() {
                Ok(text) => text,
                Err(_) => return false,
            },
            None => uri.authority().map_or("", |authority| authority.as_str()),
        };
        let host = without_port(authority.trim());
        host.is_empty()
            || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(host))
    }

    async fn refuse_oversized(&self, request: HttpRequest<Incoming>) -> HttpResponse {
        let length = declared_length(request.headers());
        if length <= DRAIN_BYTES_MAX {
            let mut body = request.into_body();
            let drain = async { while !body.is_end_stream() && matches!(body.frame().await, Some(Ok(_))) {} };
            // Whether or not the client sent everything in time, the answer is the same.
            let _ = tokio::time::timeout(DRAIN_TIME_MAX, drain).await;
        }
        let text = format!("request has {length} bytes, at most {} are allowed", self.request_bytes_max);
        json(StatusCode::PAYLOAD_TOO_LARGE, OVERSIZED_REQUEST_CODE, &text)
    }

    fn timed_out(&self) -> HttpResponse {
        let text = format!("request timed out after {} ms", self.request_time_max.as_millis());
        json(StatusCode::OK, TIMEOUT_CODE, &text)
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn declared_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `name:port` or `[v6]:port` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') && authority.parse::<IpAddr>().is_err() => {
            &authority[..colon]
        }
        _ => authority,
    }
}

fn preflight(request: &HeaderMap, allowed: bool) -> HttpResponse {
    let mut response = plain(StatusCode::NO_CONTENT, "");
    if allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS"));
        let wanted = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let wanted = wanted.unwrap_or_else(|| HeaderValue::from_static("content-type"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Chrome asks before a public page talks to a private address.
        if request.contains_key("access-control-request-private-network") {
            headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
        }
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    with_body(status, "text/plain", HttpBody::from(text))
}

fn json(status: StatusCode, code: i32, message: &str) -> HttpResponse {
    with_body(status, "application/json; charset=utf-8", HttpBody::from(error_body(code, message)))
}

fn with_body(status: StatusCode, content_type: &'static str, body: HttpBody) -> HttpResponse {
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gatekeeper(origins: &[&str], hosts: &[&str]) -> Gatekeeper {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let config = RpcConfig { cors_origins: list(origins), hosts: list(hosts), ..RpcConfig::default() };
        config.check().unwrap();
        Gatekeeper::new(&config)
    }

    #[test]
    fn addresses_and_listed_names_are_allowed_and_other_names_refused() {
        let keeper = gatekeeper(&[], &["localhost", "node.example"]);
        let allowed = |host: &str| {
            keeper.host_allowed(Some(&HeaderValue::from_str(host).unwrap()), &http::Uri::from_static("/"))
        };
        for host in [
            "localhost",
            "LOCALHOST:8545",
            "127.0.0.1:8545",
            "[::1]:8545",
            "[::1]",
            "10.1.2.3",
            "node.example:1",
        ] {
            assert!(allowed(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8545", "localhost.evil.example", "127.0.0.1.evil.example", "]:1"]
        {
            assert!(!allowed(host), "{host}");
        }
        assert!(keeper.host_allowed(None, &http::Uri::from_static("/")));
        assert!(!keeper.host_allowed(None, &http::Uri::from_static("http://evil.example/")));
    }

    #[test]
    fn origins_are_echoed_only_when_listed() {
        let page = HeaderValue::from_static("http://localhost:3000");
        assert_eq!(gatekeeper(&["*"], &[]).allowed_origin(&page).unwrap(), "*");
        assert_eq!(gatekeeper(&["http://localhost:3000"], &[]).allowed_origin(&page).unwrap(), page);
        assert!(gatekeeper(&["http://localhost:3001"], &[]).allowed_origin(&page).is_none());
        assert!(gatekeeper(&[], &[]).allowed_origin(&page).is_none());
    }
}
