//! The names that copying makes up: temporary ones, and those of kept files. The same on both
//! sides. A name on disk has at most 255 bytes, so long ones are cut.

const LONGEST: usize = 255;

/// The name of a file that is not complete. `mark` is one of a kind for each task and host.
pub(super) fn temporary(name: &[u8], mark: &str) -> Vec<u8> {
    hidden(name, &format!(".fanrun-{mark}"))
}

/// The name of a part that a later attempt finds again.
pub(super) fn resumed(name: &[u8]) -> Vec<u8> {
    hidden(name, ".fanrun-part")
}

/// The name under which a file that is replaced is kept.
pub(super) fn backup(name: &[u8]) -> Vec<u8> {
    let mut kept = name[..name.len().min(LONGEST - 1)].to_vec();
    kept.push(b'~');
    kept
}

/// Names too long to carry `end` are told apart by a checksum in place of what is cut.
fn hidden(name: &[u8], end: &str) -> Vec<u8> {
    let room = LONGEST - 1 - end.len();
    let mut made = vec![b'.'];
    if name.len() <= room {
        made.extend_from_slice(name);
    } else {
        let sum = format!("{:016x}", checksum(name));
        made.extend_from_slice(&name[..room - sum.len()]);
        made.extend_from_slice(sum.as_bytes());
    }
    made.extend_from_slice(end.as_bytes());
    made
}

/// FNV-1a: the same on every machine and in every version, which a resumed part needs.
fn checksum(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |sum: u64, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Eight letters that nobody else has.
pub(super) fn mark() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    let letter = |at: u32| char::from(b'a' + ((random >> (5 * at)) % 26) as u8);
    (0..8).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_names_fit_and_differ() {
        for len in [1, 200, 230, 254, 255] {
            let (a, b) = (vec![b'a'; len], [vec![b'a'; len - 1], vec![b'b']].concat());
            for make in [resumed, backup, |name: &[u8]| temporary(name, "abcdefgh")] {
                assert!(make(&a).len() <= LONGEST);
                assert_ne!(make(&a), a);
            }
            assert_ne!(resumed(&a), resumed(&b));
        }
    }

    #[test]
    fn marks_differ() {
        assert_ne!(mark(), mark());
    }
}
