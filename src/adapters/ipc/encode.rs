//! Batches to messages.

use crate::adapters::ipc::split::split;
use crate::ports::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use bytes::Bytes;

/// One IPC message: a flatbuffer `Message`, and its body.
#[derive(Debug, Clone)]
pub struct Message {
    /// The flatbuffer.
    pub header: Bytes,
    /// The buffers.
    pub body: Bytes,
}

impl From<EncodedData> for Message {
    fn from(data: EncodedData) -> Self {
        Self { header: data.ipc_message.into(), body: data.arrow_data.into() }
    }
}

/// Writes the batches of one stream. A dictionary is sent once, and again when it changes.
pub struct Encoder {
    generator: IpcDataGenerator,
    tracker: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
    bytes_target: usize,
}

impl Encoder {
    /// An encoder of messages of up to `bytes_target`, and the message of the schema, which goes first.
    pub fn new(schema: &Schema, bytes_target: u64) -> (Self, Message) {
        let mut encoder = Self {
            generator: IpcDataGenerator::default(),
            tracker: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
            bytes_target: usize::try_from(bytes_target).unwrap_or(usize::MAX),
        };
        let first =
            encoder.generator.schema_to_bytes_with_dictionary_tracker(schema, &mut encoder.tracker, &encoder.options);
        (encoder, first.into())
    }

    /// The messages of `batch`: none where it has no rows.
    ///
    /// # Errors
    ///
    /// `Internal` for a column that IPC cannot carry.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        for piece in split(batch, self.bytes_target) {
            let (dictionaries, data) = self
                .generator
                .encode(&piece, &mut self.tracker, &self.options, &mut self.context)
                .map_err(|error| Error::internal("a batch could not be encoded").with_source(error))?;
            messages.extend(dictionaries.into_iter().chain([data]).map(Message::from));
        }
        Ok(messages)
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("bytes_target", &self.bytes_target).finish_non_exhaustive()
    }
}
