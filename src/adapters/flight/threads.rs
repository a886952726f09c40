//! The threads that serve Flight's connections, one runtime each.
//!
//! A connection stays on one thread with all of its streams. On a runtime of several threads its HTTP/2 task and the tasks
//! of its streams would wake each other across cores for every frame, which takes longer than the frame.

use crate::adapters::listen::Connection;
use crate::ports::{Error, Result};
use futures::stream::{self, BoxStream, StreamExt};
use std::io;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Connections as a thread gets to see them.
pub type Connections = BoxStream<'static, io::Result<Connection>>;

/// All threads of a server. Those that are dropped end when their connections do.
#[derive(Debug)]
pub struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    connections: mpsc::UnboundedSender<Connection>,
    /// Held by each of its connections.
    load: Arc<()>,
    ended: oneshot::Receiver<()>,
}

impl Threads {
    /// Starts a thread for each core, each to run what `serve` makes of its connections.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the system gives no thread.
    pub fn start<F: Future<Output = ()> + 'static>(
        serve: impl Fn(Connections) -> F + Clone + Send + 'static,
    ) -> Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: io::Result<Vec<_>> = (0..count).map(|_| Thread::start(serve.clone())).collect();
        threads.map(Self).map_err(|error| Error::unavailable("no thread for Flight").with_source(error))
    }

    /// Gives a connection to the thread that has fewest.
    pub fn give(&self, connection: Connection) {
        let serving = self.0.iter().filter(|thread| !thread.connections.is_closed());
        if let Some(thread) = serving.min_by_key(|thread| Arc::strong_count(&thread.load)) {
            // A thread that is gone was told to stop, and so is this connection.
            let _ = thread.connections.send(connection.counted_by(thread.load.clone()));
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
            let incoming =
                stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?.moved(), receiver)));
            runtime.block_on(serve(incoming.boxed()));
            let _ = end.send(());
        })?;
        Ok(Self { connections, load: Arc::new(()), ended })
    }
}
