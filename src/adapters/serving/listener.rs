//! Accepts connections, at most `connections_max` of them at a time.
//!
//! A connection holds a permit until it closes. While there is none, the next client waits in the listener's backlog,
//! as it would for a busy server. Nagle's algorithm is off everywhere: it holds back small replies.

use crate::ports::Limits;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A listener that accepts no more than `connections_max` connections at a time.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener {
    /// Wraps `listener` with the limit of `limits`.
    pub fn new(listener: TcpListener, limits: &Limits) -> Self {
        let permits = usize::try_from(limits.connections_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { listener, permits: Arc::new(Semaphore::new(permits)) }
    }

    /// Waits for a permit, then accepts the next connection.
    pub async fn accept(&self) -> Connection {
        loop {
            // The permit first: a connection that was accepted without one would have to be held open unserved.
            let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection was gone before it began");
                    }
                    return Connection { stream, peer, _permit: permit, _load: None };
                }
                Err(error) => {
                    // Most likely there are no file descriptors left; some will be free again.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// A connection with its permit.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
    /// Counts the connections of a thread, by its strong references.
    _load: Option<Arc<()>>,
}

impl Connection {
    /// Returns the address of the other side.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Makes the connection hold `load` for as long as it is open.
    #[must_use]
    pub fn with_load_token(self, load: Arc<()>) -> Self {
        Self { _load: Some(load), ..self }
    }

    /// Moves the connection to the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn onto_current_runtime(self) -> io::Result<Self> {
        let stream = TcpStream::from_std(self.stream.into_std()?)?;
        Ok(Self { stream, ..self })
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
