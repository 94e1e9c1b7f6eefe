//! Object storage for tests: a real implementation of S3 that checks signatures (`s3s`, over a directory), in this process, with faults
//! that tests put before it, request by request.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub const ACCESS_KEY: &str = "QUORATETESTKEY";
pub const SECRET_KEY: &str = "a secret/that+none=may see";
pub const BUCKET: &str = "backups";
/// Where a bucket may be part of the host's name.
pub const DOMAIN: &str = "s3.quorate.test";

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}?{}", self.method, self.path, self.query)
    }
}

/// A request that came.
#[derive(Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HashMap<String, String>,
}

impl Seen {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && format!("{}?{}", self.path, self.query).contains(part)
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This is answered, with an error's code and words, and further headers.
    Answer(u16, &'static str, &'static str, Vec<(&'static str, &'static str)>),
    /// The connection is closed after this many bytes of the answer's body.
    CutOff(usize),
    /// The connection is closed before anything is answered.
    Close,
    /// Nothing is ever answered, and no more is read.
    Silence,
    /// A byte a second.
    Drip,
    /// A byte of the answer's body is another one.
    Change(usize),
    /// It is taken, and the object is shorter then.
    KeepLess,
    /// Of several objects to delete, this one is kept by a lock.
    Locked(String),
    /// A page of a listing that says that there are more: with this many new objects on it, and after it the page of this name, or always
    /// another one.
    Page(usize, Option<&'static str>),
    /// What is answered has neither an ETag nor a checksum.
    NoEtag,
}

type When = Box<dyn Fn(&Seen) -> bool + Send>;

struct Rule {
    when: When,
    fault: Fault,
    /// How often, after the first N that pass.
    times: usize,
    passing: usize,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    /// Keys that objects were encrypted with, by path: they are not kept, but asked for.
    customers: Mutex<HashMap<String, String>>,
    /// From now on connections bring a byte a second after this many bytes, if that is not 0.
    sips: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    rules: Mutex<Vec<Rule>>,
}

/// A store.
pub struct Store {
    pub address: SocketAddr,
    pub root: TempDir,
    /// PEM of the CA of its certificate, if it speaks TLS.
    pub ca: Option<String>,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

impl Store {
    /// Plain HTTP.
    pub fn start() -> Self {
        Self::with(None, (ACCESS_KEY, SECRET_KEY))
    }

    /// With TLS, and a certificate for 127.0.0.1.
    pub fn start_tls() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let leaf = leaf.signed_by(&key, &ca).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(leaf.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self::with(Some((config, ca.pem())), (ACCESS_KEY, SECRET_KEY))
    }

    fn with(tls: Option<(ServerConfig, String)>, keys: (&str, &str)) -> Self {
        let root = tempfile::Builder::new().prefix("quorate-test-s3-").tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(keys.0, keys.1));
        builder.set_host(Hosts);
        let service = builder.build();
        let state = Arc::new(State { root: root.path().join(BUCKET), ..State::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, ca) = match tls {
            Some((config, ca)) => (Some(TlsAcceptor::from(Arc::new(config))), Some(ca)),
            None => (None, None),
        };
        let shared = state.clone();
        runtime.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (service, state, acceptor) = (service.clone(), shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, service, state).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, service, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, root, ca, state, _runtime: runtime }
    }

    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.ca.is_some() { "https" } else { "http" }, self.address)
    }

    /// As a configuration file has it.
    pub fn config(&self) -> String {
        let ca = self.ca.as_ref().map_or_else(String::new, |_| {
            let path = self.root.path().join("ca.pem");
            fs::write(&path, self.ca.as_deref().unwrap()).unwrap();
            format!("etcd-s3-endpoint-ca: {}\n", path.display())
        });
        format!(
            "etcd-s3: true\netcd-s3-endpoint: {}\netcd-s3-access-key: {ACCESS_KEY}\netcd-s3-secret-key: '{SECRET_KEY}'\n\
             etcd-s3-bucket: {BUCKET}\netcd-s3-folder: prod\netcd-s3-timeout: 2s\n{ca}",
            self.endpoint()
        )
    }

    /// The same without the lines that have `part` in them.
    pub fn config_without(&self, part: &str) -> String {
        self.config().lines().filter(|line| !line.contains(part)).map(|line| format!("{line}\n")).collect()
    }

    /// Where an object is kept.
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    /// Names of the objects that are not hidden in a folder.
    pub fn objects(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_file())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// From now on, `times` requests that are like this go wrong, after `passing` that do not.
    pub fn inject(&self, fault: Fault, passing: usize, times: usize, when: impl Fn(&Seen) -> bool + Send + 'static) {
        let rule = Rule { when: Box::new(when), fault, times, passing };
        self.state.rules.lock().unwrap().push(rule);
    }

    /// What is sent from now on arrives a byte a second, after this many bytes on a connection.
    pub fn sip(&self, after: usize) {
        self.state.sips.store(after, Ordering::Relaxed);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.sip(0);
        self.state.rules.lock().unwrap().clear();
    }

    /// The requests since this was asked last.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.seen.lock().unwrap())
    }
}

/// The bucket is in the path, or in a name under [`DOMAIN`].
struct Hosts;

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> s3s::S3Result<VirtualHost<'a>> {
        let bucket = host.strip_suffix(DOMAIN).and_then(|bucket| bucket.strip_suffix('.'));
        Ok(match bucket {
            Some(bucket) => VirtualHost::new(DOMAIN).with_bucket(bucket),
            None => VirtualHost::new(host),
        })
    }
}

/// What brings a byte a second, once that is wanted.
struct Sipping<S> {
    stream: S,
    state: Arc<State>,
    came: usize,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Sipping<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let after = self.state.sips.load(Ordering::Relaxed);
        if after > 0 && self.came > after {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut one))?;
            buffer.put_slice(one.filled());
            self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_secs(1))));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.came += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sipping<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn serve<S>(stream: S, service: S3Service, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Sipping { stream, state: state.clone(), came: 0, pause: None };
    let handle = service_fn(move |request: Request<Incoming>| {
        let (service, state) = (service.clone(), state.clone());
        async move { answer(request, service, state).await }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), handle).await;
}

/// With a customer's key, an object is only for those who have it (Amazon S3 user guide, "SSE-C").
fn wrong_customer(seen: &Seen, state: &State) -> Option<Fault> {
    let given = seen.headers.get("x-amz-server-side-encryption-customer-key");
    let mut known = state.customers.lock().unwrap();
    match seen.method.as_str() {
        "GET" | "HEAD" => {
            let wanted = known.get(&seen.path)?;
            (Some(wanted) != given).then(|| Fault::Answer(400, "InvalidRequest", SSE_C, vec![]))
        }
        // A part is encrypted with the key of the upload, which has to be said again.
        "PUT" if seen.query.contains("uploadId=") => {
            (known.get(&seen.path) != given).then(|| Fault::Answer(400, "InvalidRequest", SSE_C, vec![]))
        }
        "PUT" | "POST" if seen.method == "PUT" || seen.query.starts_with("uploads") => {
            match given {
                Some(key) => known.insert(seen.path.clone(), key.clone()),
                None => known.remove(&seen.path),
            };
            None
        }
        _ => None,
    }
}

const SSE_C: &str = "The object was stored using a form of Server Side Encryption. The correct parameters must be \
                     provided to retrieve the object.";

async fn answer(
    request: Request<Incoming>,
    service: S3Service,
    state: Arc<State>,
) -> Result<Response<Altered>, std::io::Error> {
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
    };
    let fault = {
        let mut rules = state.rules.lock().unwrap();
        let mut found = None;
        for rule in rules.iter_mut().filter(|rule| (rule.when)(&seen)) {
            if rule.passing > 0 {
                rule.passing -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                found = Some(rule.fault.clone());
                break;
            }
        }
        found
    };
    state.seen.lock().unwrap().push(seen.clone());
    let fault = fault.or_else(|| wrong_customer(&seen, &state));
    match &fault {
        Some(Fault::Answer(status, code, words, headers)) => {
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{words}</Message></Error>"
            );
            let mut response = Response::builder().status(StatusCode::from_u16(*status).unwrap());
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let text = if seen.method == "HEAD" || code.is_empty() { String::new() } else { text };
            return response.body(Altered::of(s3s::Body::from(text), None)).map_err(std::io::Error::other);
        }
        Some(Fault::Locked(key)) => {
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><DeleteResult><Error><Key>{key}</Key><Code>AccessDenied</Code>\
                 <Message>Access Denied because object protected by object lock.</Message></Error></DeleteResult>"
            );
            return Ok(Response::new(Altered::of(s3s::Body::from(text), None)));
        }
        Some(Fault::Page(objects, next)) => {
            let page = state.seen.lock().unwrap().len();
            let folder = seen.query.split("prefix=").nth(1).unwrap_or_default().split('&').next().unwrap_or_default();
            let folder = folder.replace("%2F", "/");
            let object = |number| {
                format!(
                    "<Contents><Key>{folder}x-{page}-{number}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>\"0\"</ETag><Size>1</Size></Contents>"
                )
            };
            let contents: String = (0..*objects).map(object).collect();
            let next = next.map_or_else(|| page.to_string(), str::to_owned);
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>true</IsTruncated>{contents}\
                 <NextContinuationToken>{next}</NextContinuationToken></ListBucketResult>"
            );
            return Ok(Response::new(Altered::of(s3s::Body::from(text), None)));
        }
        Some(Fault::Close) => return Err(std::io::Error::other("closed, as the test wants it")),
        Some(Fault::Silence) => std::future::pending().await,
        _ => {}
    }
    let response = service
        .call(request.map(s3s::Body::from))
        .await
        .map_err(|error| std::io::Error::other(format!("{error:?}")))?;
    if matches!(fault, Some(Fault::KeepLess)) {
        let file =
            fs::File::options().write(true).open(state.root.join(seen.path.trim_start_matches(&format!("/{BUCKET}/"))));
        let file = file.unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }
    let mut response = response;
    if matches!(fault, Some(Fault::NoEtag)) {
        response.headers_mut().insert("etag", "\"0123\"".parse().unwrap());
    }
    Ok(response.map(|body| Altered::of(body, fault)))
}

/// A body that something may be wrong with.
struct Altered {
    body: s3s::Body,
    fault: Option<Fault>,
    sent: usize,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    rest: Bytes,
}

impl Altered {
    fn of(body: s3s::Body, fault: Option<Fault>) -> Self {
        Self { body, fault, sent: 0, pause: None, rest: Bytes::new() }
    }
}

impl hyper::body::Body for Altered {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(std::io::Error::other(format!("{error:?}"))))),
                None => return Poll::Ready(None),
            }
        }
        let mut data = std::mem::take(&mut self.rest);
        match self.fault.clone() {
            Some(Fault::CutOff(after)) => {
                if self.sent >= after {
                    return Poll::Ready(Some(Err(std::io::Error::other("cut off, as the test wants it"))));
                }
                self.rest = data.split_off(data.len().min(after - self.sent));
            }
            Some(Fault::Drip) => {
                self.rest = data.split_off(data.len().min(1));
                self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_secs(1))));
            }
            Some(Fault::Change(at)) if (self.sent..self.sent + data.len()).contains(&at) => {
                let mut bytes = data.to_vec();
                bytes[at - self.sent] ^= 1;
                data = Bytes::from(bytes);
            }
            _ => {}
        }
        self.sent += data.len();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
