//! The control socket: HTTP/JSON on a Unix socket, for `offhost`, for scripts and for `curl --unix-socket`.
//!
//! Decides nothing: every request is a method of [`Daemon`]. What the bodies look like stands in [`protocol::control`].
//! Who may connect is the file system's business: the socket is open to its owner only.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use protocol::control::spec::Change;
use protocol::control::{
    Configuration, ErrorKind, ExportRequest, Failure, ImportRequest, MoverSettings, Saved, SnapshotEvent, SnapshotRequest, Status,
};
use serde::Serialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, to_text};
use crate::daemon::Daemon;
use crate::metrics;

/// Events a slow reader may leave unread before the snapshot waits for it.
const EVENTS_AHEAD: usize = 16;

/// Serves the socket until `shutdown`; the handle ends when the last request has.
///
/// # Errors
/// When the socket cannot be made: another target serves it, or the folder is not ours.
pub async fn serve(daemon: Arc<Daemon>, path: PathBuf, shutdown: CancellationToken) -> io::Result<JoinHandle<()>> {
    let listener = bind(&path).await?;
    let router = Router::new()
        .route("/status", get(status))
        .route("/snapshots", get(snapshots).post(make_snapshot))
        .route("/snapshots/{id}", delete(drop_snapshot))
        .route("/imports", post(import))
        .route("/exports", post(export))
        .route("/config", get(config))
        .route("/config.toml", get(config_text))
        .route("/changes", post(change))
        .route("/reload", post(reload))
        .route("/save", post(save))
        .route("/movers", get(movers).put(set_movers))
        .route("/metrics", get(tell_metrics))
        .fallback(|| async { refuse(ErrorKind::NotFound, "no such resource; protocol::control lists them") })
        .with_state(daemon);
    info!(socket = %path.display(), "control socket open");
    Ok(tokio::spawn(async move {
        // Streams of leased snapshots never end by themselves, so requests in flight are not waited for.
        tokio::select! {
            ended = async { axum::serve(listener, router).await } => {
                if let Err(error) = ended {
                    warn!(%error, "the control socket failed");
                }
            }
            () = shutdown.cancelled() => {}
        }
        let _ = std::fs::remove_file(path);
    }))
}

/// A socket file that nobody answers on is left over from a target that was killed.
async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Err(error) = tokio::net::UnixStream::connect(path).await {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            std::fs::remove_file(path)?;
        }
    } else {
        let why = format!("{}: another target serves this control socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    let said = |error: io::Error| io::Error::new(error.kind(), format!("control socket {}: {error}", path.display()));
    let listener = UnixListener::bind(path).map_err(said)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(said)?;
    Ok(listener)
}

async fn status(State(daemon): State<Arc<Daemon>>) -> Json<Status> {
    Json(daemon.status())
}

async fn movers(State(daemon): State<Arc<Daemon>>) -> Json<MoverSettings> {
    Json(daemon.movers().settings())
}

async fn set_movers(State(daemon): State<Arc<Daemon>>, Json(settings): Json<MoverSettings>) -> Response {
    match daemon.set_movers(settings).await {
        Ok(()) => Json(settings).into_response(),
        Err(failure) => refuse(failure.kind, &failure.error),
    }
}

async fn tell_metrics(State(daemon): State<Arc<Daemon>>) -> Response {
    ([("content-type", metrics::CONTENT_TYPE)], daemon.metrics()).into_response()
}

/// Tells metrics, and nothing else, over TCP until `shutdown`.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve_metrics(daemon: Arc<Daemon>, listen: SocketAddr, shutdown: CancellationToken) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("metrics at {listen}: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    info!(address = %listener.local_addr().map_err(failed)?, "metrics told over TCP");
    let router = Router::new().route("/metrics", get(tell_metrics)).with_state(daemon);
    tokio::spawn(async move {
        tokio::select! {
            ended = async { axum::serve(listener, router).await } => {
                if let Err(error) = ended {
                    warn!(%error, "metrics are no longer told over TCP");
                }
            }
            () = shutdown.cancelled() => {}
        }
    });
    Ok(())
}

async fn config(State(daemon): State<Arc<Daemon>>) -> Json<Configuration> {
    let Config { limits, discovery, remotes, portals, targets, .. } = daemon.config();
    Json(Configuration { limits, discovery, remotes, portals, targets })
}

async fn config_text(State(daemon): State<Arc<Daemon>>) -> Response {
    match to_text(&daemon.config()) {
        Ok(text) => ([("content-type", "application/toml")], text).into_response(),
        Err(error) => refuse(ErrorKind::Internal, &error.to_string()),
    }
}

async fn change(State(daemon): State<Arc<Daemon>>, changes: Result<Json<Vec<Change>>, JsonRejection>) -> Response {
    match changes {
        // A change that has begun is carried out, though whoever asked for it goes away.
        Ok(Json(changes)) => detached(async move { daemon.change(&changes).await }).await,
        Err(rejection) => refuse(ErrorKind::Invalid, &rejection.body_text()),
    }
}

async fn import(State(daemon): State<Arc<Daemon>>, request: Result<Json<ImportRequest>, JsonRejection>) -> Response {
    match request {
        Ok(Json(request)) => detached(async move { daemon.import(request).await }).await,
        Err(rejection) => refuse(ErrorKind::Invalid, &rejection.body_text()),
    }
}

async fn export(State(daemon): State<Arc<Daemon>>, request: Result<Json<ExportRequest>, JsonRejection>) -> Response {
    match request {
        Ok(Json(request)) => detached(async move { daemon.export(request).await }).await,
        Err(rejection) => refuse(ErrorKind::Invalid, &rejection.body_text()),
    }
}

async fn reload(State(daemon): State<Arc<Daemon>>) -> Response {
    detached(async move { daemon.reload().await }).await
}

async fn save(State(daemon): State<Arc<Daemon>>) -> Response {
    detached(async move { daemon.save().await.map(|path| Saved { path }) }).await
}

async fn detached<T: Serialize + Send + 'static>(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Response {
    match tokio::spawn(work).await {
        Ok(Ok(done)) => Json(done).into_response(),
        Ok(Err(failure)) => (code(failure.kind), Json(failure)).into_response(),
        Err(error) => refuse(ErrorKind::Internal, &error.to_string()),
    }
}

async fn snapshots(State(daemon): State<Arc<Daemon>>) -> Response {
    Json(daemon.status().snapshots).into_response()
}

/// Answers with a line a second while the disk is not quiet. Whoever asked may go away: then the wait ends, and a leased view
/// with it.
async fn make_snapshot(State(daemon): State<Arc<Daemon>>, Json(request): Json<SnapshotRequest>) -> Response {
    let (events, lines) = mpsc::channel::<SnapshotEvent>(EVENTS_AHEAD);
    tokio::spawn(async move {
        let asked_and_left = events.clone();
        let taken = tokio::select! {
            taken = daemon.snapshot(&request, &events) => taken,
            () = asked_and_left.closed() => return,
        };
        let last = match taken {
            Ok(snapshots) => SnapshotEvent::Made { snapshots },
            Err(failure) => SnapshotEvent::Failed { kind: failure.kind, error: failure.error },
        };
        let ids: Vec<u64> = match &last {
            SnapshotEvent::Made { snapshots } => snapshots.iter().map(|snapshot| snapshot.id).collect(),
            _ => Vec::new(),
        };
        let delivered = events.send(last).await.is_ok();
        if request.lease && delivered {
            events.closed().await;
        }
        if request.lease || !delivered {
            for id in ids {
                // Already gone when it was deleted by name.
                let _ = daemon.drop_snapshot(id).await;
            }
        }
    });
    let lines = ReceiverStream::new(lines).map(|event| serde_json::to_string(&event).map(|line| line + "\n"));
    ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn drop_snapshot(State(daemon): State<Arc<Daemon>>, UrlPath(id): UrlPath<u64>) -> Response {
    match daemon.drop_snapshot(id).await {
        Ok(()) => Json(serde_json::json!({})).into_response(),
        Err(failure) => (code(failure.kind), Json(failure)).into_response(),
    }
}

fn refuse(kind: ErrorKind, error: &str) -> Response {
    (code(kind), Json(Failure { kind, error: error.to_owned() })).into_response()
}

const fn code(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NeverQuiet | ErrorKind::HoldTooLong => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
