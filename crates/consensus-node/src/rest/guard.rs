//! Who may call: host names against DNS rebinding, origins for web pages of others.

use super::{Access, ApiError};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Names by which this machine may always be called.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Wraps the routes.
pub(super) fn protect(routes: Router, access: &Access) -> Router {
    let hosts = Arc::new(Hosts::new(access));
    let checked = routes.layer(from_fn(move |request, next| check_host(hosts.clone(), request, next)));
    match cors(&access.cors_origins) {
        Some(layer) => checked.layer(layer),
        None => checked,
    }
}

struct Hosts {
    any: bool,
    names: Vec<String>,
}

impl Hosts {
    fn new(access: &Access) -> Self {
        let own = match access.listen.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut names: Vec<String> = LOCAL_HOSTS.iter().map(|name| (*name).to_owned()).collect();
        names.push(own);
        names.extend(access.allowed_hosts.iter().map(|name| name.to_ascii_lowercase()));
        Self { any: access.allowed_hosts.iter().any(|name| name == "*"), names }
    }

    fn allows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        self.any || self.names.contains(&name)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colon may be inside a bracketed IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

async fn check_host(hosts: Arc<Hosts>, request: Request, next: Next) -> Response {
    // Browsers always send the header; only they can be tricked into calling a name that is not this machine's.
    let host = request.headers().get(header::HOST).map(HeaderValue::to_str);
    let refused = match host {
        None => false,
        Some(Ok(host)) => !hosts.allows(host),
        Some(Err(_)) => true,
    };
    if refused {
        let message = "this host name is not allowed; add it to rest_allowed_hosts";
        return ApiError { status: StatusCode::FORBIDDEN, message: message.into() }.into_response();
    }
    next.run(request).await
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    Some(CorsLayer::new().allow_methods([Method::GET]).allow_origin(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_and_listed_ones_are_allowed_with_any_port() {
        let access = Access {
            listen: ([192, 168, 1, 5], 5052).into(),
            allowed_hosts: vec!["Node.example.org".into()],
            cors_origins: Vec::new(),
        };
        let hosts = Hosts::new(&access);
        for host in [
            "localhost",
            "LOCALHOST:5052",
            "127.0.0.1:1",
            "[::1]:5052",
            "[::1]",
            "192.168.1.5",
            "node.example.org:80",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:5052", "", "[::2]:1"] {
            assert!(!hosts.allows(host), "{host}");
        }
        assert!(Hosts::new(&Access { allowed_hosts: vec!["*".into()], ..access }).allows("evil.example"));
    }
}
