//! The client of the control API, over the socket of this node's launcher.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::control::socket;
use crate::datadir::DataDir;
use crate::error::{Code, Diagnostic};

/// The maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no quorate server runs on the data directory {}", .0.display())]
    NotRunning(PathBuf),
    #[error("the control socket under {} may only be used by its owner", .0.display())]
    NotAllowed(PathBuf),
    /// The connection failed or timed out.
    #[error("the quorate server on {} does not answer", path.display())]
    NoAnswer { path: PathBuf, source: io::Error },
    #[error("the quorate server answered {status}: {text}")]
    Refused { status: u16, text: String },
}

impl Diagnostic for ControlError {
    fn code(&self) -> Code {
        match self {
            Self::NotRunning(_) => Code::NotRunning,
            Self::NotAllowed(_) => Code::ControlDenied,
            Self::NoAnswer { .. } => Code::NoAnswer,
            Self::Refused { .. } => Code::RequestRefused,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::NotRunning(_) => Some("start it (systemctl start quorate-server), or set its --data-dir".into()),
            Self::NotAllowed(_) => Some("run this as root, or as the user that runs the server".into()),
            Self::NoAnswer { .. } => Some("see its log: journalctl -u quorate-server -e".into()),
            Self::Refused { .. } => None,
        }
    }
}

/// GETs `path` from the launcher on `data` with a timeout; returns the body of a 200.
pub async fn get(data: &DataDir, path: &str, timeout: Duration) -> Result<Bytes, ControlError> {
    let root = data.root().to_path_buf();
    let stream = connect(data).await?;
    let no_answer = |source| ControlError::NoAnswer { path: root.clone(), source };
    let (status, body) = request(stream, path, timeout).await.map_err(no_answer)?;
    if status == StatusCode::OK { Ok(body) } else { Err(refused(status, &body)) }
}

fn refused(status: StatusCode, body: &[u8]) -> ControlError {
    let text = crate::text::escape_control(String::from_utf8_lossy(body).trim());
    ControlError::Refused { status: status.as_u16(), text }
}

/// POSTs `body` to `path` and passes on each line of the response. `stall` is the timeout of a line. # Errors If no
/// server is running, the response is not a 200, or the connection fails.
pub async fn post(
    data: &DataDir,
    path: &str,
    body: Vec<u8>,
    stall: Duration,
    mut line: impl FnMut(&[u8]),
) -> Result<(), ControlError> {
    let root = data.root().to_path_buf();
    let no_answer = |source| ControlError::NoAnswer { path: root.clone(), source };
    let stream = connect(data).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)
        .map_err(no_answer)?;
    let request = Request::post(path).header(hyper::header::HOST, "localhost").body(Full::new(Bytes::from(body)));
    let request = request.map_err(io::Error::other).map_err(no_answer)?;
    let driven = tokio::spawn(connection);
    let late = |_| no_answer(io::Error::from(io::ErrorKind::TimedOut));
    let answer = tokio::time::timeout(stall, sender.send_request(request)).await.map_err(late)?;
    let mut answer = answer.map_err(io::Error::other).map_err(no_answer)?;
    let status = answer.status();
    let mut waiting = Vec::new();
    loop {
        let frame = tokio::time::timeout(stall, answer.body_mut().frame()).await.map_err(late)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(io::Error::other).map_err(no_answer)?;
        waiting.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            if status == StatusCode::OK {
                line(&waiting[..end]);
                waiting.drain(..=end);
            } else {
                break;
            }
        }
        if waiting.len() > MAX_RESPONSE_BYTES {
            return Err(no_answer(io::Error::other("the response is too long")));
        }
    }
    driven.abort();
    if status == StatusCode::OK { Ok(()) } else { Err(refused(status, &waiting)) }
}

async fn connect(data: &DataDir) -> Result<tokio::net::UnixStream, ControlError> {
    let root = data.root().to_path_buf();
    socket::connect(&data.server()).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(root),
        io::ErrorKind::PermissionDenied => ControlError::NotAllowed(root),
        _ => ControlError::NoAnswer { path: root, source: error },
    })
}

/// One HTTP/1.1 GET over a stream, with a timeout.
pub async fn request<S>(stream: S, path: &str, timeout: Duration) -> io::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::get(path)
            .header(hyper::header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let driven = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), MAX_RESPONSE_BYTES).collect().await.map_err(io::Error::other)?.to_bytes();
        driven.abort();
        Ok((status, body))
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}
