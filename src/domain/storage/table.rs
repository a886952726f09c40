//! One state of one table: its schema and its segments, in arrival order.
//!
//! States are values: an operation makes the next state and leaves this one as it is. Appends may happen at any time;
//! whatever rewrites segments (DELETE, UPDATE, ALTER, merging) holds the table's change lock, so the segments it began
//! with are still the first ones of the state that it replaces.

use crate::domain::storage::segment::Segment;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
use tokio::sync::Mutex;

/// One state of a table.
#[derive(Debug, Clone)]
pub struct Table {
    id: u64,
    schema: SchemaRef,
    segments: Vec<Arc<Segment>>,
    rows: u64,
    change_lock: Arc<Mutex<()>>,
}

impl Table {
    /// A new table. `id` tells it from earlier tables of the same name.
    pub fn new(id: u64, schema: SchemaRef, segments: Vec<Arc<Segment>>) -> Self {
        Self { id, schema, rows: count_rows(&segments), segments, change_lock: Arc::default() }
    }

    /// Which table this is a state of.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Its segments, in arrival order.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Number of its rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Memory that its segments hold, in bytes.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes()).sum()
    }

    /// Serialises what rewrites segments; shared by all states of the table.
    pub fn change_lock(&self) -> Arc<Mutex<()>> {
        self.change_lock.clone()
    }

    /// The state after `segments` arrived.
    pub fn appended(&self, segments: &[Arc<Segment>]) -> Self {
        let mut next = self.clone();
        next.rows += count_rows(segments);
        next.segments.extend_from_slice(segments);
        next
    }

    /// The state in which `base`'s segments are replaced by `segments`; what arrived since `base` stays.
    pub fn rewritten(&self, base: &Self, segments: Vec<Arc<Segment>>) -> Self {
        let kept = base.segments.len();
        assert!(
            self.segments.len() >= kept && self.segments.iter().zip(&base.segments).all(|(a, b)| Arc::ptr_eq(a, b)),
            "segments were rewritten without the change lock"
        );
        let mut next = self.clone();
        next.segments = segments;
        next.segments.extend_from_slice(&self.segments[kept..]);
        next.rows = count_rows(&next.segments);
        next
    }

    /// The same rows under another schema.
    pub fn reshaped(&self, schema: SchemaRef, segments: Vec<Arc<Segment>>) -> Self {
        let mut next = self.clone();
        next.schema = schema;
        next.segments = segments;
        next
    }
}

fn count_rows(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.rows() as u64).sum()
}
