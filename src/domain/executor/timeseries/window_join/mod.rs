//! Window joins: for each row of the left side, aggregates of the rows of the right side that lie in a window around it.
//!
//! Both ends belong to the window. Every row of the left side stays, in its order; over an empty window an aggregate answers what it
//! answers for no rows. The row in force when the window opens belongs to it if it is asked for (kdb+, `wj`), and a row exactly at
//! the start is that row.

mod exec;
mod node;
mod ordered;
mod plan;

pub use exec::{WindowAggregate, WindowExprs, WindowJoinExec};
pub use node::WindowJoinNode;
pub use plan::window_join;
