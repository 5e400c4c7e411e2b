//! What processes write: bytes become blocks of whole lines ([`lines`]), wait without loss while
//! their reader is slow ([`backlog`]), and are kept for later tasks and for the end ([`capture`]).
//!
//! Nothing here waits, and nothing here knows where the bytes came from.

pub mod backlog;
pub mod capture;
pub mod lines;

pub use backlog::{Backlog, Full, SpillBudget};
pub use capture::Capture;
pub use lines::{MAX_BLOCK, Splitter};
