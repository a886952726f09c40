//! `ORDER BY … WITH FILL [FROM …] [TO …] [STEP …]` (ClickHouse): rows that are missing between others, in their order.
//!
//! A filled row has NULL in every column but the filled one and those before it in ORDER BY, which are its group.

mod exec;
mod node;
mod steps;

pub use exec::{FillOrder, WithFill, WithFillExec};
pub use node::WithFillNode;
pub use steps::Steps;
