//! The threads that serve Flight's connections, each with a runtime of its own.
//!
//! A connection stays on one thread with all of its streams. On a runtime of several threads its HTTP/2 task and the
//! tasks of its streams would wake each other across cores for every frame, which takes longer than the frame.

use crate::adapters::serving::Connection;
use crate::ports::{Error, Result};
use futures::stream::{self, BoxStream, StreamExt};
use std::io;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The stream of connections that a thread serves.
pub type Connections = BoxStream<'static, io::Result<Connection>>;

/// All threads of a server. Dropped threads end with their connections.
#[derive(Debug)]
pub struct ConnectionThreads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    connections: mpsc::UnboundedSender<Connection>,
    /// Token that each of its connections holds: the number of strong references is the load.
    load: Arc<()>,
    ended: oneshot::Receiver<()>,
}

impl ConnectionThreads {
    /// Starts one thread for each core, which runs the future that `serve` makes of its connections.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the system refuses a thread.
    pub fn start<F: Future<Output = ()> + 'static>(
        serve: impl Fn(Connections) -> F + Clone + Send + 'static,
    ) -> Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: io::Result<Vec<_>> = (0..count).map(|_| Thread::start(serve.clone())).collect();
        threads.map(Self).map_err(|error| Error::unavailable("no thread for Flight").with_source(error))
    }

    /// Hands a connection to the thread that has the fewest.
    pub fn assign(&self, connection: Connection) {
        let serving = self.0.iter().filter(|thread| !thread.connections.is_closed());
        if let Some(thread) = serving.min_by_key(|thread| Arc::strong_count(&thread.load)) {
            // The thread has ended meanwhile: the server stops, so the connection is dropped.
            let _ = thread.connections.send(connection.with_load_token(thread.load.clone()));
        }
    }

    /// Waits until all of them have ended.
    pub async fn ended(self) {
        for thread in self.0 {
            drop(thread.connections);
            let _ = thread.ended.await;
        }
    }
}

impl Thread {
    fn start<F: Future<Output = ()> + 'static>(serve: impl Fn(Connections) -> F + Send + 'static) -> io::Result<Self> {
        let (connections, receiver) = mpsc::unbounded_channel::<Connection>();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("flight".into()).spawn(move || {
            let incoming = stream::unfold(receiver, async |mut receiver| {
                Some((receiver.recv().await?.onto_current_runtime(), receiver))
            });
            runtime.block_on(serve(incoming.boxed()));
            let _ = end.send(());
        })?;
        Ok(Self { connections, load: Arc::new(()), ended })
    }
}
