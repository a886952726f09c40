//! The client's half of a DoPut or DoExchange: a descriptor, a schema, batches.
//!
//! A call that is refused early is still read for a while, so that a client that is busy sending gets to see the error.

use crate::adapters::flight::grpc::incoming::{FlightData, Incoming};
use crate::adapters::flight::ticket::Handle;
use crate::adapters::ipc::{DecodeLimits, Decoder, batch_bytes, strip_sql_metadata};
use crate::adapters::serving::ServerOptions;
use crate::ports::{BatchSource, BatchStream, Error, MemoryAccount, Result};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow_flight::FlightDescriptor;
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the rest of a refused stream is read.
const DRAIN: Duration = Duration::from_secs(5);

/// The messages of a call, and their decoder.
pub struct CallStream {
    messages: Incoming,
    decoder: Decoder,
    bytes_max: u64,
    memory: MemoryAccount,
}

impl CallStream {
    /// Starts to read the messages of a call.
    pub fn new(messages: Incoming, options: &ServerOptions) -> Self {
        let ServerOptions { limits, memory, .. } = options;
        Self {
            messages: messages.read_ahead(),
            decoder: Decoder::new(DecodeLimits { memory: memory.clone(), ..DecodeLimits::from(limits) }),
            bytes_max: limits.message_bytes_max,
            memory: memory.clone(),
        }
    }

    /// Reads the descriptor, and the message that it came with.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` if there is none.
    pub async fn first(&mut self) -> Result<(FlightDescriptor, FlightData)> {
        let mut first =
            self.messages.flight_data().await?.ok_or_else(|| Error::invalid("the call came without a message"))?;
        let descriptor = first.descriptor.take().ok_or_else(|| {
            Error::invalid("the first message has no descriptor: it says which table, or which statement")
        })?;
        Ok((descriptor, first))
    }

    /// Reads up to the schema, which may be in the first message, and returns the first batch if that was read already.
    ///
    /// # Errors
    ///
    /// `InvalidQuery` if the call ends before its schema.
    pub async fn until_schema(&mut self, first: FlightData) -> Result<Option<RecordBatch>> {
        let mut batch = self.decode(first)?;
        while self.decoder.schema().is_none() {
            let next = self.messages.flight_data().await?;
            batch = self.decode(next.ok_or_else(|| Error::invalid("the call ended before its schema"))?)?;
        }
        Ok(batch)
    }

    /// Reads to the end, and returns `handle` with the batches as its parameters; unchanged if there are none.
    ///
    /// # Errors
    ///
    /// `LimitExceeded` if they are larger than a message may be.
    pub async fn bind(&mut self, handle: Handle, first: FlightData) -> Result<Handle> {
        let (mut batches, mut bytes, mut reserved) = (Vec::new(), 0, Vec::new());
        let mut next = self.decode(first)?;
        loop {
            let batch = match next.take() {
                Some(batch) => batch,
                None => match self.next_batch().await? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            // They are copied once to be put together; until then their messages stay in memory.
            reserved.push(self.memory.reserve(2 * batch_bytes(&batch) as u64)?);
            bytes += batch_bytes(&batch) as u64;
            if bytes > self.bytes_max {
                return Err(Error::limit(format!(
                    "the parameters take more than {} bytes (message_bytes_max); ingest them instead",
                    self.bytes_max
                )));
            }
            batches.push(batch);
        }
        let Some(schema) = self.decoder.schema().filter(|schema| !schema.fields().is_empty()) else {
            return Ok(handle);
        };
        let params = match batches.as_slice() {
            [one] => one.clone(),
            several => concat_batches(&schema, several)
                .map_err(|error| Error::invalid(format!("the parameters do not fit together: {error}")))?,
        };
        Ok(Handle { params: Some(params), ..handle })
    }

    /// Converts the call to its batches, `first` before all others.
    ///
    /// The receiver gets the rest of the call when the batches are dropped, so that it can be drained.
    ///
    /// # Errors
    ///
    /// `Internal` before the schema was read.
    pub fn into_batches(self, first: Option<RecordBatch>) -> Result<(BatchStream, oneshot::Receiver<Self>)> {
        let schema = self.decoder.schema().ok_or_else(|| Error::internal("a stream was begun without its schema"))?;
        let (give_back, given_back) = oneshot::channel();
        let batches = CallBatches { call: Some(self), give_back: Some(give_back) };
        Ok((strip_sql_metadata(BatchStream::from_source(schema, first, batches)), given_back))
    }

    /// Reads and discards the rest for a while: a client that is still sending sees the error only once it stops.
    pub async fn drain(mut self) {
        let _ = tokio::time::timeout(DRAIN, self.messages.skip()).await;
    }

    fn decode(&mut self, data: FlightData) -> Result<Option<RecordBatch>> {
        // A message may carry metadata alone.
        if data.header.is_empty() {
            return Ok(None);
        }
        self.decoder.decode(&data.header, data.body)
    }

    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(data) = self.messages.flight_data().await? {
            if let Some(batch) = self.decode(data)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

/// Lends a call to a stream of batches, and gives it back when that is dropped.
struct CallBatches {
    call: Option<CallStream>,
    give_back: Option<oneshot::Sender<CallStream>>,
}

#[async_trait]
impl BatchSource for CallBatches {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.call {
            Some(call) => call.next_batch().await,
            None => Ok(None),
        }
    }
}

impl Drop for CallBatches {
    fn drop(&mut self) {
        if let (Some(call), Some(give_back)) = (self.call.take(), self.give_back.take()) {
            // The receiver is gone if the call itself was dropped.
            let _ = give_back.send(call);
        }
    }
}
