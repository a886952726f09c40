//! Accepts connections, at most `connections_max` of them at a time.
//!
//! A connection holds a permit until it closes. While there is none, the next client waits in the listener's backlog,
//! as it would for a busy server. One machine gets no more than three quarters of the permits, so that it cannot keep all
//! others out; the server's own machine may have all of them. Nagle's algorithm is off everywhere: it holds back small
//! replies.

use crate::adapters::serving::connection_clock::{Activity, ConnectionClock, ConnectionTimes};
use crate::ports::Limits;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    machines: Arc<Machines>,
}

/// The connections of each machine.
#[derive(Debug)]
struct Machines {
    open: Mutex<HashMap<IpAddr, usize>>,
    share: usize,
}

/// One connection of a machine. Dropping it takes it off the count.
#[derive(Debug)]
struct Counted {
    machines: Arc<Machines>,
    machine: IpAddr,
}

impl Machines {
    /// Counts a connection; none where its machine has its share already.
    fn count(self: &Arc<Self>, machine: IpAddr) -> Option<Counted> {
        let mut open = self.lock();
        let own = open.entry(machine).or_default();
        if *own >= self.share && !machine.is_loopback() {
            return None;
        }
        *own += 1;
        Some(Counted { machines: self.clone(), machine })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.machines.lock();
        if let Some(own) = open.get_mut(&self.machine) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.machine);
            }
        }
    }
}

impl Listener {
    /// Wraps `listener` with the limit of `limits`.
    pub fn new(listener: TcpListener, limits: &Limits) -> Self {
        let permits = usize::try_from(limits.connections_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let share = (permits - permits / 4).max(1);
        let machines = Arc::new(Machines { open: Mutex::default(), share });
        Self { listener, permits: Arc::new(Semaphore::new(permits)), machines }
    }

    /// Waits for a permit, then accepts the next connection.
    pub async fn accept(&self) -> Connection {
        loop {
            // The permit first: a connection that was accepted without one would have to be held open unserved.
            let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(counted) = self.machines.count(peer.ip().to_canonical()) else {
                        tracing::debug!(%peer, "a machine has all the connections that it may have");
                        continue;
                    };
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection was gone before it began");
                    }
                    return Connection { stream, peer, clock: None, _permit: permit, _counted: counted, _load: None };
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
    clock: Option<ConnectionClock>,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
    /// Counts the connections of a thread, by its strong references.
    _load: Option<Arc<()>>,
}

impl Connection {
    /// Returns the address of the other side.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Has reading fail once the connection is open for too long without doing anything.
    #[must_use]
    pub fn with_times(self, times: ConnectionTimes) -> Self {
        Self { clock: Some(ConnectionClock::start(times)), ..self }
    }

    /// Returns the calls of the connection, which keep it open.
    pub fn activity(&self) -> Activity {
        self.clock.as_ref().map(|clock| clock.activity().clone()).unwrap_or_default()
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
        let before = buf.filled().len();
        let Self { stream, clock, .. } = &mut *self;
        match (Pin::new(stream).poll_read(cx, buf), clock) {
            (Poll::Pending, Some(clock)) => {
                clock.poll_expired(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the connection is idle")))
            }
            (read, Some(clock)) => {
                clock.received(buf.filled().len() - before);
                read
            }
            (read, None) => read,
        }
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

#[cfg(test)]
mod tests {
    use crate::adapters::serving::listener::Machines;
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_machine_has_no_more_than_its_share() {
        let machines = Arc::new(Machines { open: Mutex::default(), share: 2 });
        let [foreign, other, own]: [IpAddr; 3] = ["10.0.0.1", "10.0.0.2", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let first = machines.count(foreign).unwrap();
        let _second = machines.count(foreign).unwrap();
        assert!(machines.count(foreign).is_none() && machines.count(other).is_some());
        drop(first);
        let _third = machines.count(foreign).unwrap();
        let many: Vec<_> = (0..5).map(|_| machines.count(own)).collect();
        assert!(many.iter().all(Option::is_some));
        drop(many);
        assert_eq!(machines.lock().len(), 1);
    }
}
