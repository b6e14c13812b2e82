//! The transport under gRPC: a Unix socket or a loopback TCP connection.

use crate::{Endpoint, EngineApiError};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) type BoxedStream = Box<dyn Stream>;

/// Connects to an endpoint.
pub(crate) async fn connect(endpoint: &Endpoint) -> io::Result<BoxedStream> {
    match endpoint {
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}

/// A bound endpoint.
pub(crate) enum Listener {
    Unix { listener: UnixListener, file: SocketFile },
    Tcp(TcpListener),
}

impl Listener {
    /// Binds, taking over a socket file only when nobody listens on it.
    pub(crate) async fn bind(endpoint: &Endpoint) -> Result<Self, EngineApiError> {
        endpoint.check()?;
        match endpoint {
            Endpoint::Unix(path) => bind_unix(endpoint, path).await,
            Endpoint::Tcp(address) => match TcpListener::bind(address).await {
                Ok(listener) => Ok(Self::Tcp(listener)),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    Err(EngineApiError::InUse(endpoint.clone()))
                }
                Err(error) => Err(EngineApiError::io("bind", endpoint, error)),
            },
        }
    }

    /// Where it really listens: a port 0 has become a number.
    pub(crate) fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Unix { file, .. } => Ok(Endpoint::Unix(file.path.clone())),
            Self::Tcp(listener) => listener.local_addr().map(Endpoint::Tcp),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<BoxedStream> {
        match self {
            Self::Unix { listener, .. } => Ok(Box::new(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// The socket file of a listener. Removed with it, unless someone else has put another one in its place.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Held while the socket is served, so that two starting processes cannot both take over a stale file.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| identity(&meta) == self.identity) {
            // A file that cannot be removed is a stale socket, which the next start takes over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds under a second name, makes it private and renames it: at no time can another user connect.
async fn bind_unix(endpoint: &Endpoint, path: &Path) -> Result<Listener, EngineApiError> {
    let io = |action| move |error| EngineApiError::io(action, endpoint, error);
    let lock = File::create(with_suffix(path, ".lk")).map_err(io("create the lock file of"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(EngineApiError::InUse(endpoint.clone())),
        Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io("look at")(error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(EngineApiError::NotASocket(path.into())),
        // Only "connection refused" proves that nobody listens; a busy or foreign listener stays untouched.
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            _ => return Err(EngineApiError::InUse(endpoint.clone())),
        },
    }
    let draft = with_suffix(path, ".new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("remove the old draft of")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&draft).map_err(io("bind"))?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600)).map_err(io("set the permissions of"))?;
    let meta = fs::symlink_metadata(&draft).map_err(io("look at"))?;
    fs::rename(&draft, path).map_err(io("rename"))?;
    let file = SocketFile { path: path.into(), identity: identity(&meta), _lock: lock };
    Ok(Listener::Unix { listener, file })
}

fn identity(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
