//! How much at once: the fanout that the descriptor limit allows, and the buffers that memory does.

/// Descriptors that fanrun itself needs: standard streams, runtime, report files, known_hosts,
/// agent connections, resolver.
const RESERVED: u64 = 24;
/// Descriptors one host can hold at once: a socket and a spill file; locally two pipes, a pidfd and
/// a spill file, and one more while the next is being started.
const PER_HOST: u64 = 5;

/// The sizes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Hosts worked on at once.
    pub fanout: usize,
    /// Whether all hosts' connections may stay open together.
    pub keep_open: bool,
    /// The channel window of a command, in bytes.
    pub window: u32,
    /// The largest message in a channel, in bytes.
    pub packet: u32,
    /// How much is read from a socket at once, in bytes.
    pub read_ahead: usize,
    /// Messages of at most `packet` bytes that may wait in one channel.
    pub channel_buffer: usize,
    /// Whether a host may have a second connection to share the load of large files.
    pub beside: bool,
    /// What each lane keeps in memory, in bytes, before it uses the disk.
    pub backlog_memory: usize,
}

/// Sizes a run for `hosts` hosts, a wanted fanout and `descriptors` descriptors.
#[must_use]
pub fn size(hosts: usize, fanout: usize, descriptors: u64) -> Sizes {
    let room =
        usize::try_from(descriptors.saturating_sub(RESERVED) / PER_HOST).unwrap_or(usize::MAX);
    let fanout = fanout.clamp(1, room.max(1));
    let at_once = fanout.min(hosts.max(1));
    // What one channel may hold back while nobody reads it. Together they stay below 32 MiB.
    let channel_buffer = (32 * 1024 / 32 / at_once).clamp(2, 32);
    // Several messages and read buffers of each session wait while nobody reads: where there are
    // many sessions they are smaller, at the price of more of them.
    let (window, packet, read_ahead) = match at_once {
        ..=256 => (2 << 20, 32 << 10, 64 << 10),
        _ => (256 << 10, 16 << 10, 16 << 10),
    };
    // One connection is the work of one core, on both sides. Where there are enough hosts to keep
    // ours busy, a second connection to each would only be one more to look after.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let beside = at_once == 1 || 2 * at_once <= cores;
    let backlog_memory = ((16 << 20) / at_once).clamp(8 << 10, 256 << 10);
    Sizes {
        fanout,
        keep_open: hosts <= room,
        window,
        packet,
        read_ahead,
        channel_buffer,
        beside,
        backlog_memory,
    }
}

/// Raises the soft limit of open descriptors to the hard limit and gives the result.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // More than this is never needed, and some systems have a hard limit of 2^30, which makes
    // programs that loop over all descriptors (ours and our children) slow.
    const ENOUGH: u64 = 65_536;
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(ENOUGH);
    let soft = limit.current.unwrap_or(ENOUGH);
    let wanted = hard.min(ENOUGH).max(soft);
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    if wanted > soft && setrlimit(Resource::Nofile, raised).is_ok() {
        wanted
    } else {
        soft
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_mean_fewer_hosts_at_once_but_never_none() {
        assert_eq!(size(300, 64, 64).fanout, 8);
        assert_eq!(size(300, 64, 10).fanout, 1);
        assert!(!size(300, 64, 64).keep_open);
    }

    #[test]
    fn plenty_of_descriptors_leave_the_wish_alone() {
        assert_eq!(size(300, 64, 65_536).fanout, 64);
        assert!(size(300, 64, 65_536).keep_open);
    }

    #[test]
    fn what_channels_hold_back_stays_bounded() {
        for at_once in [1, 8, 64, 100, 1000, 5000] {
            let sizes = size(at_once, at_once, 1 << 20);
            assert!(
                sizes.channel_buffer * 32 * at_once <= (64 << 10).max(at_once * 64),
                "{sizes:?}"
            );
        }
    }
}
