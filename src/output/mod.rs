//! What processes write: bytes become blocks of whole lines ([`lines`]), wait without loss while
//! their reader is slow ([`backlog`]), are kept for later tasks ([`capture`]), and become rows where a
//! task asks for it ([`parse`]); secrets are found in them before they are shown ([`mask`]).
//!
//! Nothing here waits, and nothing here knows where the bytes came from.

pub mod backlog;
pub mod capture;
pub mod lines;
pub mod mask;
pub mod parse;

pub use backlog::{Backlog, Full, SpillBudget};
pub use capture::Capture;
pub use lines::{MAX_BLOCK, Splitter};
pub use mask::Mask;
pub use parse::Parser;
