//! Keeps web pages away from the server.
//!
//! A server on loopback is within reach of every page that its user opens: a form or a `text/plain` POST needs no
//! permission of the browser, and a name that is rebound to 127.0.0.1 reads answers too. There is no login yet, so the
//! headers that a browser adds decide. Programs (curl, pyarrow, drivers) send neither `Origin` nor `Sec-Fetch-Site`
//! and are not affected.
//!
//! Invariant: the check runs on the headers alone, before any route and before a byte of the body is read.
//! Sources: Fetch Standard (`Origin`, CORS), Fetch Metadata (`Sec-Fetch-Site`), RFC 9110 15.5.20 (421).

use crate::adapters::serving::BrowserPolicy;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL,
    CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use std::net::{IpAddr, Ipv6Addr};

/// The one route that any page may ask: it reveals nothing and changes nothing.
const PING: &str = "/ping";

/// Seconds that a browser may remember a preflight's answer.
const PREFLIGHT_MAX_AGE_S: &str = "600";

/// A request that is refused before any route.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The status of its answer.
    pub status: StatusCode,
    /// The name that stands in place of an error's kind.
    pub kind: &'static str,
    /// The message.
    pub message: String,
}

/// A request that may pass, as the guard knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// The foreign origin that settings allow; its answers carry CORS headers.
    origin: Option<HeaderValue>,
    /// Headers that a preflight asks for; the request is one where there is some list, however empty.
    preflight: Option<HeaderValue>,
}

impl Passed {
    /// Returns whether the request only asks what a later one may do.
    pub fn is_preflight(&self) -> bool {
        self.preflight.is_some()
    }
}

/// Checks who sent a request, by its headers.
///
/// # Errors
///
/// 400 for no usable `Host`, 421 for a host that is not this server, 403 for a page of another origin.
pub fn check<B>(request: &Request<B>, policy: &BrowserPolicy) -> Result<Passed, Refused> {
    let headers = request.headers();
    let host = host_of(request)?;
    // An absolute target overrides Host (RFC 9112 3.2.2), so both have to be ours.
    for authority in [host, request.uri().authority().map(|authority| authority.as_str())].into_iter().flatten() {
        if !is_own_host(authority, policy) {
            return Err(misdirected(authority));
        }
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    match headers.get(ORIGIN) {
        Some(origin) if headers.get_all(ORIGIN).iter().count() == 1 => {
            if is_same_origin(origin, host) {
                return Ok(Passed::default());
            }
            if !is_allowed_origin(origin, policy) {
                return Err(foreign(&format!("origin {:.80}", String::from_utf8_lossy(origin.as_bytes()))));
            }
            let is_preflight = request.method() == Method::OPTIONS;
            let asked = || headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
            let preflight = is_preflight.then(|| asked().unwrap_or_else(|| HeaderValue::from_static("")));
            Ok(Passed { origin: Some(origin.clone()), preflight })
        }
        Some(_) => Err(foreign("several origins")),
        None => match site {
            None | Some(b"same-origin") => Ok(Passed::default()),
            // An address that was typed, or a bookmark: no page chose it, but it may only read.
            Some(b"none") if matches!(*request.method(), Method::GET | Method::HEAD) => Ok(Passed::default()),
            Some(_) if request.uri().path() == PING => Ok(Passed::default()),
            Some(site) => Err(foreign(&format!("site {:.20}", String::from_utf8_lossy(site)))),
        },
    }
}

/// Returns the host that a request names; `None` where HTTP/1.0 leaves it out, which no browser does.
fn host_of<B>(request: &Request<B>) -> Result<Option<&str>, Refused> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let bad = |message: &str| Refused { status: StatusCode::BAD_REQUEST, kind: "BadRequest", message: message.into() };
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map(Some).map_err(|_| bad("the Host header is not text")),
        (None, _) if request.version() < http::Version::HTTP_11 => Ok(None),
        (None, _) => Err(bad("the request has no Host header")),
        (Some(_), Some(_)) => Err(bad("the request has several Host headers")),
    }
}

/// Returns whether `authority` can only mean this server: rebinding needs a name, so addresses are safe.
fn is_own_host(authority: &str, policy: &BrowserPolicy) -> bool {
    let Some(host) = host_without_port(authority) else { return false };
    let is_address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()),
    };
    let is_named = |known: &str| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(authority);
    is_address || is_named("localhost") || policy.allowed_hosts.iter().any(|known| is_named(known))
}

/// Returns the host of `host[:port]`; `None` where the port is not a number. Docker maps ports, so they do not count.
fn host_without_port(authority: &str) -> Option<&str> {
    let colon = match authority.rfind(']') {
        Some(bracket) => authority[bracket..].find(':').map(|at| bracket + at),
        None => authority.find(':'),
    };
    let Some(colon) = colon else { return Some(authority) };
    let port = &authority[colon + 1..];
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(&authority[..colon])
}

/// Returns whether a page came from this server itself.
fn is_same_origin(origin: &HeaderValue, host: Option<&str>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let authority = origin.as_ref().and_then(Uri::authority).map(|authority| authority.as_str());
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn is_allowed_origin(origin: &HeaderValue, policy: &BrowserPolicy) -> bool {
    policy.allowed_origins.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

fn misdirected(authority: &str) -> Refused {
    let message = format!(
        "{authority:.80} is not a name of this server; ask for localhost or an address, or start it with --http-allowed-hosts"
    );
    Refused { status: StatusCode::MISDIRECTED_REQUEST, kind: "MisdirectedRequest", message }
}

fn foreign(what: &str) -> Refused {
    let message = format!(
        "a web page of another origin may not use this server ({what}); --http-allow-origins lists those that may"
    );
    Refused { status: StatusCode::FORBIDDEN, kind: "ForeignOrigin", message }
}

/// Adds the headers that every answer carries, and those of CORS where an allowed origin asked.
pub fn protect(headers: &mut HeaderMap, passed: &Passed) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = &passed.origin {
        // Without credentials: a page gets no more than an anonymous client.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
    if let Some(asked) = &passed.preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE_S));
        if !asked.is_empty() {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::http::guard::check;
    use crate::adapters::serving::BrowserPolicy;
    use http::Request;

    fn policy() -> BrowserPolicy {
        BrowserPolicy {
            allowed_hosts: vec!["ticks.example".into()],
            allowed_origins: vec!["https://desk.example".into()],
        }
    }

    /// The status for a request; 200 where it passes.
    fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match check(&request.body(()).unwrap(), &policy()) {
            Ok(_) => 200,
            Err(refused) => refused.status.as_u16(),
        }
    }

    #[test]
    fn only_addresses_localhost_and_listed_names_are_this_server() {
        for host in
            ["localhost", "LOCALHOST:8123", "127.0.0.1", "10.1.2.3:80", "[::1]", "[::1]:8123", "Ticks.example:9"]
        {
            assert_eq!(status("POST", "/", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "localhost:x",
            "a@localhost",
            "",
            "::1",
            "[evil]",
        ] {
            assert_eq!(status("GET", "/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status("GET", "http://evil.example/", &[("host", "localhost")]), 421, "an absolute target counts");
        assert_eq!(status("GET", "/", &[]), 400);
        assert_eq!(status("GET", "/", &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn pages_of_other_origins_are_refused_and_programs_are_not() {
        let host = ("host", "localhost:8123");
        for (origin, expected) in [
            ("http://localhost:8123", 200),
            ("https://desk.example", 200),
            ("http://localhost:3000", 403),
            ("https://evil.example", 403),
            ("null", 403),
            ("file://", 403),
            ("", 403),
        ] {
            assert_eq!(status("POST", "/", &[host, ("origin", origin)]), expected, "{origin}");
        }
        for (method, site, expected) in [
            ("GET", "same-origin", 200),
            ("POST", "same-origin", 200),
            ("GET", "none", 200),
            ("POST", "none", 403),
            ("GET", "same-site", 403),
            ("GET", "cross-site", 403),
            ("POST", "cross-site", 403),
        ] {
            assert_eq!(status(method, "/tables", &[host, ("sec-fetch-site", site)]), expected, "{method} {site}");
        }
        assert_eq!(status("GET", "/ping", &[host, ("sec-fetch-site", "cross-site")]), 200);
        assert_eq!(status("GET", "/ping", &[host, ("origin", "https://evil.example")]), 403);
    }
}
