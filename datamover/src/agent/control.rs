//! The client of the target's control socket.
//!
//! One connection a request. A snapshot is taken on a lease: it lives while the connection that asked for it is open, so a
//! backup that is killed leaves none behind. What is said stands in [`protocol::control`].

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use protocol::control::spec::{Change, Effect};
use protocol::control::{
    Configuration, ErrorKind, ExportRequest, Exported, Failure, ImportRequest, Imported, MoverSettings, Saved, Snapshot,
    SnapshotEvent, SnapshotRequest, Status,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Longest answer, and longest line of a stream, that is taken: a status of thousands of LUNs.
const MAX_ANSWER: usize = 16 << 20;

/// Why the target did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody answers there.
    #[error("no target answers on control socket {}: start one, or run this where its offhost-data is, or name its socket with --control or OFFHOST_CONTROL", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The target says no.
    #[error("{}", .0.error)]
    Refused(Failure),
    /// The connection broke, or the answer is none.
    #[error("control socket: {0}")]
    Broken(String),
}

impl ControlError {
    /// What programs branch on, if the target gave it.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(failure) => Some(failure.kind),
            _ => None,
        }
    }

    fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Where a target listens that was started in this folder and told nothing else.
const HERE: &str = "offhost-data/control.sock";
/// Where that of the systemd unit listens.
const OF_THE_SERVICE: &str = "/run/offhost/control.sock";

/// A target, by its control socket.
#[derive(Debug, Clone)]
pub struct Control {
    socket: PathBuf,
}

/// Snapshots that live while this does.
#[derive(Debug)]
pub struct Lease {
    /// One per LUN asked for.
    pub snapshots: Vec<Snapshot>,
    /// The open connection; `None` for snapshots that stay.
    stream: Option<Lines>,
}

impl Lease {
    /// Ends the lease and waits for the target to hang up, which it does when the snapshots are gone.
    ///
    /// # Errors
    /// As every request: the snapshots are gone in any case when this process ends.
    pub async fn release(mut self, control: &Control) -> Result<(), ControlError> {
        for snapshot in std::mem::take(&mut self.snapshots) {
            control.drop_snapshot(snapshot.id).await?;
        }
        self.stream = None;
        Ok(())
    }
}

impl Control {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The target that is meant when nobody says which: one started in this folder, else the system's service.
    #[must_use]
    pub fn find() -> Self {
        let here = Path::new(HERE);
        // Also one that nobody listens on any more: another target's answer would be worse than none.
        Self::new(if here.exists() { here } else { Path::new(OF_THE_SERVICE) })
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn status(&self) -> Result<Status, ControlError> {
        answer(self.request(Method::GET, "/status", None::<&()>).await?).await
    }

    /// `GET /movers`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn movers(&self) -> Result<MoverSettings, ControlError> {
        answer(self.request(Method::GET, "/movers", None::<&()>).await?).await
    }

    /// `PUT /movers`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with what cannot be.
    pub async fn set_movers(&self, settings: &MoverSettings) -> Result<MoverSettings, ControlError> {
        answer(self.request(Method::PUT, "/movers", Some(settings)).await?).await
    }

    /// `GET /config`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn config(&self) -> Result<Configuration, ControlError> {
        answer(self.request(Method::GET, "/config", None::<&()>).await?).await
    }

    /// `POST /changes`: all or none are carried out.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with what cannot be.
    pub async fn change(&self, changes: &[Change]) -> Result<Vec<Effect>, ControlError> {
        answer(self.request(Method::POST, "/changes", Some(&changes)).await?).await
    }

    /// `POST /imports`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with why the cartridge is not in the library.
    pub async fn import(&self, request: &ImportRequest) -> Result<Imported, ControlError> {
        answer(self.request(Method::POST, "/imports", Some(request)).await?).await
    }

    /// `POST /exports`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with why the cartridge is still in the library.
    pub async fn export(&self, request: &ExportRequest) -> Result<Exported, ControlError> {
        answer(self.request(Method::POST, "/exports", Some(request)).await?).await
    }

    /// `POST /reload`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with what is wrong in the file.
    pub async fn reload(&self) -> Result<Vec<Effect>, ControlError> {
        answer(self.request(Method::POST, "/reload", None::<&()>).await?).await
    }

    /// `POST /save`.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the target cannot write its file.
    pub async fn save(&self) -> Result<Saved, ControlError> {
        answer(self.request(Method::POST, "/save", None::<&()>).await?).await
    }

    /// `DELETE /snapshots/{id}`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_snapshot(&self, id: u64) -> Result<(), ControlError> {
        answer::<serde_json::Value>(self.request(Method::DELETE, &format!("/snapshots/{id}"), None::<&()>).await?).await.map(drop)
    }

    /// `POST /snapshots`, telling each event as it comes.
    ///
    /// # Errors
    /// [`ControlError::Refused`] with the kind when no snapshot was taken; the others as everywhere.
    pub async fn snapshot(&self, request: &SnapshotRequest, mut tell: impl FnMut(&SnapshotEvent)) -> Result<Lease, ControlError> {
        let response = self.request(Method::POST, "/snapshots", Some(request)).await?;
        if !response.status().is_success() {
            return answer::<serde_json::Value>(response)
                .await
                .and_then(|_| Err(ControlError::broken("an error without a reason")));
        }
        let mut lines = Lines { body: response.into_body(), rest: BytesMut::new() };
        loop {
            let line =
                lines.next().await?.ok_or_else(|| ControlError::broken("the target hung up before the snapshot was taken"))?;
            let event: SnapshotEvent = serde_json::from_slice(&line).map_err(ControlError::broken)?;
            tell(&event);
            match event {
                SnapshotEvent::Waiting { .. } => {}
                SnapshotEvent::Made { snapshots } => {
                    return Ok(Lease { snapshots, stream: request.lease.then_some(lines) });
                }
                SnapshotEvent::Failed { kind, error } => return Err(ControlError::Refused(Failure { kind, error })),
            }
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, ControlError> {
        let unreachable = |source| ControlError::Unreachable { socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ControlError::broken)?;
        tokio::spawn(connection);
        let body = body.map(serde_json::to_vec).transpose().map_err(ControlError::broken)?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "offhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(ControlError::broken)?;
        sender.send_request(request).await.map_err(ControlError::broken)
    }
}

async fn answer<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ControlError> {
    let success = response.status().is_success();
    let status = response.status();
    let body =
        http_body_util::Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(ControlError::broken)?.to_bytes();
    if success {
        return serde_json::from_slice(&body).map_err(ControlError::broken);
    }
    match serde_json::from_slice::<Failure>(&body) {
        Ok(failure) => Err(ControlError::Refused(failure)),
        Err(_) => Err(ControlError::Broken(format!("{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])))),
    }
}

/// A body, line by line.
#[derive(Debug)]
struct Lines {
    body: Incoming,
    rest: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, ControlError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.split_to(end + 1).freeze()));
            }
            if self.rest.len() > MAX_ANSWER {
                return Err(ControlError::broken("a line without an end"));
            }
            match self.body.frame().await.transpose().map_err(ControlError::broken)? {
                Some(frame) => self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                None if self.rest.is_empty() => return Ok(None),
                None => return Ok(Some(self.rest.split().freeze())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// Answers one request with these bytes, then holds the connection until the other side closes it.
    async fn serve(answer: &'static str) -> (tempfile::TempDir, Control, tokio::task::JoinHandle<String>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let control = Control::new(&socket);
        (folder, control, server)
    }

    fn request(lease: bool) -> SnapshotRequest {
        SnapshotRequest { target: None, luns: vec![0], range: None, quiet_ms: 3000, timeout_ms: 80_000, lease }
    }

    /// An answer in these chunks, with or without its end.
    fn chunked(chunks: &[&str], ended: bool) -> &'static str {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        (head + &chunks + if ended { "0\r\n\r\n" } else { "" }).leak()
    }

    #[tokio::test]
    async fn events_come_one_by_one_though_lines_and_chunks_do_not_agree() {
        let waiting = ["{\"event\":\"waiting\",\"waited_ms\":", "5,\"quiet_for_ms\":0,\"writes_seen\":2}\n{\"event\":\"ma"];
        let answer = chunked(&[waiting[0], waiting[1], "de\",\"snapshots\":[]}\n"], false);
        let (_folder, control, server) = serve(answer).await;
        let mut told = Vec::new();
        let lease = control.snapshot(&request(true), |event| told.push(event.clone())).await.unwrap();
        assert_eq!(told.len(), 2);
        assert!(!server.is_finished(), "the lease holds the connection");
        drop(lease);
        let request = tokio::time::timeout(std::time::Duration::from_secs(5), server).await.unwrap().unwrap();
        assert!(request.starts_with("POST /snapshots HTTP/1.1"));
        assert!(request.contains("\"lease\":true"));
    }

    #[tokio::test]
    async fn a_disk_that_is_never_quiet_is_told_by_its_kind() {
        let answer = chunked(&["{\"event\":\"failed\",\"kind\":\"never-quiet\",\"error\":\"no pause\"}\n"], true);
        let (_folder, control, _server) = serve(answer).await;
        let error = control.snapshot(&request(false), |_| {}).await.unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::NeverQuiet));
    }

    #[tokio::test]
    async fn a_refusal_keeps_the_targets_words() {
        let body = r#"{"kind":"not-found","error":"no snapshot 7"}"#;
        let answer: &'static str = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len()).leak();
        let (_folder, control, _server) = serve(answer).await;
        assert_eq!(control.drop_snapshot(7).await.unwrap_err().to_string(), "no snapshot 7");
    }

    #[tokio::test]
    async fn a_socket_without_a_target_says_which_and_what_to_check() {
        let error = Control::new("/nonexistent/control.sock").status().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/control.sock"), "{error}");
    }
}
