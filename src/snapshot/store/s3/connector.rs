//! Connections to the store: TLS with the configured certificates, directly or through a proxy.
//!
//! Uses the connector of the AWS SDK, except for `etcd-s3-skip-ssl-verify`, for which there is a small one here.

use std::sync::Arc;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector as Tcp};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::config::s3::Target;
use crate::snapshot::store::s3::error::{S3Error, S3ErrorKind};
use crate::snapshot::store::s3::proxy::proxy;

/// The metadata addresses of instance and container roles: never through a proxy.
const METADATA_ADDRESSES: &str =
    "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23,localhost,127.0.0.1,::1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestTarget {
    Store,
    /// Credential providers; link-local ones without a proxy.
    Credentials,
}

/// An HTTP client for the store, or for credential providers.
pub(super) fn client(target: &Target, asked: RequestTarget) -> Result<SharedHttpClient, S3Error> {
    let proxy = proxy(target);
    if asked == RequestTarget::Store && target.skip_verify && !target.is_plain {
        return insecure(proxy.as_ref());
    }
    let mut trusted = TrustStore::empty().with_native_roots(has_system_roots());
    for pem in &target.cas {
        trusted.add_pem_certificate(pem.clone());
    }
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let tls = tls.map_err(|error| S3Error::set_up(target, S3ErrorKind::Tls, error.to_string()))?;
    let proxy = match &proxy {
        None => ProxyConfig::disabled(),
        Some(way) => {
            let set = ProxyConfig::all(way.uri().to_string());
            let set = set.map_err(|error| S3Error::set_up(target, S3ErrorKind::Proxy, error.to_string()))?;
            let set = match way.raw_auth() {
                Some((user, password)) => set.with_basic_auth(user, password),
                None => set,
            };
            if asked == RequestTarget::Credentials { set.no_proxy(METADATA_ADDRESSES) } else { set }
        }
    };
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().enable_tcp_nodelay(true).proxy_config(proxy.clone());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls.clone()).build()
    }))
}

/// A small machine may have no system roots, and a store with a private CA needs none.
fn has_system_roots() -> bool {
    !rustls_native_certs::load_native_certs().certs.is_empty()
}

fn insecure(proxy: Option<&Intercept>) -> Result<SharedHttpClient, S3Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| S3Error::tls(error.to_string()))?;
    let config =
        config.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(provider))).with_no_client_auth();
    let mut tcp = Tcp::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
    let connector = match proxy {
        None => SharedHttpConnector::new(InsecureConnector::new(https.wrap_connector(tcp))),
        Some(way) => {
            let tunnel = Tunnel::new(way.uri().clone(), tcp);
            let tunnel = match way.basic_auth() {
                Some(auth) => tunnel.with_auth(auth.clone()),
                None => tunnel,
            };
            SharedHttpConnector::new(InsecureConnector::new(https.wrap_connector(tunnel)))
        }
    };
    Ok(http_client_fn(move |_, _| connector.clone()))
}

#[derive(Clone, Debug)]
struct InsecureConnector<C>(Client<HttpsConnector<C>, SdkBody>);

impl<C> InsecureConnector<C>
where
    HttpsConnector<C>: Connect + Clone,
{
    fn new(connector: HttpsConnector<C>) -> Self {
        Self(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
    }
}

impl<C> HttpConnector for InsecureConnector<C>
where
    C: std::fmt::Debug + Clone + Send + Sync + 'static,
    HttpsConnector<C>: Connect + Clone + Send + Sync + 'static,
{
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Does not verify the server certificate. The signature of the handshake is still checked.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
