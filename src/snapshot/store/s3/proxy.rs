//! The proxy on the way to the store.

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::config::s3::{Proxy, Target};

/// The value of `etcd-s3-proxy`: a URL including secrets, or `none`.
#[must_use]
pub fn proxy_in_words(target: &Target) -> String {
    let Some(way) = proxy(target) else { return "none".into() };
    let url = way.uri().to_string();
    match (way.raw_auth(), url.split_once("://")) {
        (Some((user, password)), Some((scheme, rest))) => {
            format!("{scheme}://{}:{}@{rest}", escaped(user), escaped(password))
        }
        _ => url,
    }
}

/// The host of the proxy, for messages.
pub(super) fn proxy_host(target: &Target) -> Option<String> {
    proxy(target)?.uri().authority().map(|authority| authority.host().to_owned() + &port_of(authority.port_u16()))
}

fn port_of(port: Option<u16>) -> String {
    port.map(|port| format!(":{port}")).unwrap_or_default()
}

/// As it may stand in a URL.
fn escaped(text: &str) -> String {
    let one =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// The proxy for the store, if there is one.
pub(super) fn proxy(target: &Target) -> Option<Intercept> {
    let endpoint: Uri = match &target.endpoint {
        Some(url) => url.parse().ok()?,
        None => format!("https://s3.{}.amazonaws.com", target.region).parse().ok()?,
    };
    match &target.proxy {
        Proxy::None => None,
        Proxy::Environment => Matcher::from_env().intercept(&endpoint),
        Proxy::Url(url) => Matcher::builder().all(url.reveal().to_owned()).build().intercept(&endpoint),
    }
}
