//! Checksums by a tool of the host, for copies that are verified: reading a file back costs as much
//! as sending it, a tool costs a line. Where there is no shell or no tool there is no answer, and
//! whoever asked reads the file back.

use std::time::Duration;

use tokio::sync::mpsc;

use super::follow::aside_within;
use super::lane::{in_sh, quote};
use crate::session::{Session, Stdin};
use crate::sftp::SumAsk;

/// Paths of one command, in bytes: it must stay shorter than what every server takes.
const MOST: usize = 4 << 10;
/// How long one command may take. Many gigabytes are read in it.
const TIME: Duration = Duration::from_secs(600);
/// A line for each path: 64 digits, two characters, the path.
const OUTPUT: usize = 64 << 10;

/// Answers the first, and with it what else was asked by now.
pub(super) async fn answer(
    session: &mut Session,
    first: SumAsk,
    asks: &mut mpsc::Receiver<SumAsk>,
) {
    let mut len = first.path.as_bytes().len();
    let mut batch = vec![first];
    while len < MOST
        && let Ok(ask) = asks.try_recv()
    {
        len += ask.path.as_bytes().len() + 80;
        batch.push(ask);
    }
    let sums = sums(session, &batch).await;
    for (at, ask) in batch.into_iter().enumerate() {
        // Whoever stopped waiting needs no answer.
        let _ = ask.answer.send(sums.as_ref().map(|sums| sums[at]));
    }
}

/// One checksum for each path, or none at all.
async fn sums(session: &mut Session, batch: &[SumAsk]) -> Option<Vec<[u8; 32]>> {
    let mut files = String::new();
    for ask in batch {
        files.push(' ');
        files.push_str(&quote(std::str::from_utf8(ask.path.as_bytes()).ok()?));
    }
    let text = format!(
        "if command -v sha256sum >/dev/null 2>&1; then sha256sum --{files}; \
         else shasum -a 256 --{files}; fi"
    );
    let said = aside_within(session, in_sh(text, Stdin::Closed), TIME, OUTPUT).await;
    let sums: Vec<[u8; 32]> = said.ok()?.lines().filter_map(sum).collect();
    (sums.len() == batch.len()).then_some(sums)
}

/// The checksum that a line of sha256sum(1) begins with. A backslash before it says that the name
/// behind it is escaped.
fn sum(line: &str) -> Option<[u8; 32]> {
    let line = line.strip_prefix('\\').unwrap_or(line);
    let (digits, rest) = line.split_at_checked(64)?;
    if !rest.starts_with(' ') || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut sum = [0; 32];
    for (byte, at) in sum.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn lines_of_the_tool_and_nothing_else() {
        let digits = "0f".repeat(32);
        for line in [
            format!("{digits}  a file"),
            format!("{digits} *a file"),
            format!("\\{digits}  a\\nfile"),
        ] {
            assert_eq!(sum(&line), Some([0x0f; 32]), "{line}");
        }
        for line in ["", "welcome!", &digits, &format!("{}zz  x", &digits[2..])] {
            assert_eq!(sum(line), None, "{line}");
        }
        assert_eq!(sum(&"é".repeat(64)), None);
    }
}
