//! Decorators: the same ports in, the same ports out, so that a gateway has them like an engine.

mod limited;
mod read_only;

pub use limited::Limited;
pub use read_only::ReadOnly;
