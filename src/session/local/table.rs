//! The processes of this machine, as `/proc` tells of them (proc(5)): who descends from a child of
//! ours, and who holds a pipe open.
//!
//! A process is known by its number and its start time together, because numbers are used again.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal as OsSignal};

use super::super::Signal;
use super::os_signal;
use crate::text;

/// One process, told from any later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) pid: Pid,
    /// In clock ticks since the machine started. 0 where that is not known.
    started: u64,
}

/// All processes that are not zombies, at one moment.
#[derive(Debug)]
pub(super) struct Table(Vec<Row>);

/// What is needed of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    who: Who,
    zombie: bool,
    stopped: bool,
    parent: i32,
    group: i32,
    session: i32,
}

impl Who {
    /// A child that was just started.
    pub(super) fn leader(pid: Pid) -> Self {
        // Not read from /proc: nobody can take the number before the child is reaped, and starting
        // thousands of children has to be cheap.
        Self { pid, started: 0 }
    }

    /// Whether there is a process, or zombie, of this number.
    pub(super) fn pid_is_taken(self) -> bool {
        Path::new("/proc").join(self.number().to_string()).exists()
    }

    /// Sends the signal, and wakes a stopped process so that it can act on TERM.
    pub(super) fn signal(self, signal: Signal) {
        // An error means that it is gone, or not ours to signal; either way it has been counted.
        if let Some(number) = os_signal(signal) {
            let _ = self.send(number);
        }
        if signal == Signal::Term {
            let _ = self.send(OsSignal::CONT);
        }
    }

    /// Stops it until [`Self::go_on`].
    pub(super) fn stop(self) {
        // An error means that it is gone, or not ours to signal; then it runs on.
        let _ = self.send(OsSignal::STOP);
    }

    pub(super) fn go_on(self) {
        let _ = self.send(OsSignal::CONT);
    }

    /// The pidfd holds on to the process while we make sure that it is the one we mean.
    #[cfg(target_os = "linux")]
    fn send(self, signal: OsSignal) -> rustix::io::Result<()> {
        use rustix::process::{PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};
        let handle = match pidfd_open(self.pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::NOSYS) => return kill_process(self.pid, signal),
            handle => handle?,
        };
        match row(self.number()) {
            Ok(row) if row.who == self => pidfd_send_signal(handle, signal),
            _ => Err(rustix::io::Errno::SRCH),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn send(self, signal: OsSignal) -> rustix::io::Result<()> {
        rustix::process::kill_process(self.pid, signal)
    }

    fn number(self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

impl Table {
    /// Reads all of `/proc`: about 10 microseconds a process.
    pub(super) fn read() -> io::Result<Self> {
        let rows = numbers()?
            .filter_map(|pid| row(pid).ok())
            .filter(|row| !row.zombie);
        Ok(Self(rows.collect()))
    }

    pub(super) fn is_alive(&self, who: Who) -> bool {
        self.0.iter().any(|row| row.who == who)
    }

    /// `leader`, its group, `known`, and all that descend from any of them or belong to a group or
    /// session that one of them leads. Never this process.
    ///
    /// Once `leader` is `reaped`, a process of its number is another's, and so is its group: a
    /// number is not given out again while a group of that number has members.
    pub(super) fn family(&self, leader: Who, reaped: bool, known: &[Who]) -> Vec<Who> {
        let root = leader.number();
        let mut ids: HashSet<i32> = known.iter().map(|who| who.number()).collect();
        if !(reaped && leader.pid_is_taken()) {
            ids.insert(root);
        }
        self.kin(ids).map(|row| row.who).collect()
    }

    /// All that descend from this process, or belong to a group or session that one of them
    /// leads, and are not stopped. Never this process, nor others of its group.
    pub(super) fn ours_that_run(&self) -> Vec<Who> {
        let children = self.0.iter().filter(|row| row.parent == own_number());
        let ids = children.map(|row| row.who.number()).collect();
        let run = self.kin(ids).filter(|row| !row.stopped);
        run.map(|row| row.who).collect()
    }

    /// Those of `ids`, and all that descend from any of them or belong to a group or session that
    /// one of them leads.
    fn kin(&self, mut ids: HashSet<i32>) -> impl Iterator<Item = &Row> {
        // Each round finds at least one more, or ends it.
        loop {
            let before = ids.len();
            for row in &self.0 {
                let kin = [row.parent, row.group, row.session];
                if row.is_eligible() && kin.iter().any(|id| ids.contains(id)) {
                    ids.insert(row.who.number());
                }
            }
            if ids.len() == before {
                break;
            }
        }
        let members = move |row: &&Row| row.is_eligible() && ids.contains(&row.who.number());
        self.0.iter().filter(members)
    }
}

impl Row {
    fn is_eligible(&self) -> bool {
        let number = self.who.number();
        number != own_number() && number > 1
    }
}

fn own_number() -> i32 {
    std::process::id().cast_signed()
}

/// The numbers of all processes.
fn numbers() -> io::Result<impl Iterator<Item = i32>> {
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

fn row(pid: i32) -> io::Result<Row> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `123 (name) S parent group session ...`; field 22 is the start time. The name may hold spaces
/// and parentheses, so fields are counted from the last `)`.
fn parse_stat(stat: &[u8]) -> Option<Row> {
    let close = memchr::memrchr(b')', stat)?;
    let pid = std::str::from_utf8(stat.split(|&b| b == b' ').next()?).ok()?;
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
    Some(Row {
        who: Who {
            pid: Pid::from_raw(pid.parse().ok()?)?,
            started: fields.get(19)?.parse().ok()?,
        },
        zombie: matches!(*fields.first()?, "Z" | "X"),
        stopped: matches!(*fields.first()?, "T" | "t"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
    })
}

/// One line that names the processes, other than this one, that hold one of `pipes` open. Those of
/// other users cannot be looked into.
pub(super) fn who_holds(pipes: &[Option<u64>]) -> String {
    let links: Vec<String> = pipes
        .iter()
        .flatten()
        .map(|inode| format!("pipe:[{inode}]"))
        .collect();
    let holders: Vec<i32> = numbers()
        .into_iter()
        .flatten()
        .filter(|&pid| pid != own_number() && holds(pid, &links))
        .collect();
    match holders[..] {
        [] => "a process left behind kept the output open".to_owned(),
        [one] => format!("{} kept the output open", named(one)),
        [first, _] => format!("{} and 1 other kept the output open", named(first)),
        [first, ref rest @ ..] => {
            let others = rest.len();
            format!("{} and {others} others kept the output open", named(first))
        }
    }
}

fn holds(pid: i32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

fn named(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    match text::printable(name.trim_ascii_end()) {
        name if name.is_empty() => format!("pid {pid}"),
        name => format!("{name} (pid {pid})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(pid: i32, parent: i32, group: i32, session: i32) -> Row {
        Row {
            who: Who {
                pid: Pid::from_raw(pid).unwrap(),
                started: 7,
            },
            zombie: false,
            stopped: false,
            parent,
            group,
            session,
        }
    }

    #[test]
    fn a_name_cannot_forge_the_fields() {
        let mut stat = b"42 (a) Z 1 1 (b) S 5 6 7".to_vec();
        stat.extend_from_slice(&b" 0".repeat(15));
        stat.extend_from_slice(b" 99 0 0\n");
        let row = parse_stat(&stat).unwrap();
        assert_eq!((row.parent, row.group, row.session), (5, 6, 7));
        assert_eq!(
            (row.who.number(), row.who.started, row.zombie),
            (42, 99, false)
        );
        assert_eq!(parse_stat(b"42 (a) Z 1"), None);
    }

    #[test]
    fn a_family_is_found_through_parents_groups_and_sessions() {
        // Above 2^22, the most that Linux gives out, so that no such process exists.
        let us = own_number();
        let leader = Who::leader(Pid::from_raw(5_000_000).unwrap());
        let table = Table(vec![
            row_of(us, 1, us, us),
            row_of(5_000_005, 5_000_004, 5_000_005, 5_000_004),
            row_of(5_000_000, us, 5_000_000, us),
            row_of(5_000_001, 1, 5_000_000, us),
            row_of(5_000_004, 5_000_001, 5_000_004, 5_000_004),
            row_of(5_000_006, 1, 5_000_006, 5_000_004),
            row_of(5_000_009, us, 5_000_009, us),
        ]);
        let mut found: Vec<i32> = table
            .family(leader, true, &[])
            .iter()
            .map(|w| w.number())
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [5_000_000, 5_000_001, 5_000_004, 5_000_005, 5_000_006]
        );
    }

    #[test]
    fn what_stops_with_us_descends_from_us_and_runs() {
        let us = own_number();
        let mut table = Table(vec![
            row_of(us, 5_000_000, 5_000_000, 5_000_000),
            // Our parent, and the next one in our pipeline.
            row_of(5_000_000, 1, 5_000_000, 5_000_000),
            row_of(5_000_001, 5_000_000, us, us),
            row_of(5_000_002, us, 5_000_002, 5_000_000),
            row_of(5_000_003, 1, 5_000_002, 5_000_000),
            row_of(5_000_004, 5_000_003, 5_000_004, 5_000_004),
            row_of(5_000_005, us, 5_000_005, 5_000_000),
        ]);
        table.0[6].stopped = true;
        let found: Vec<i32> = table.ours_that_run().iter().map(|w| w.number()).collect();
        assert_eq!(found, [5_000_002, 5_000_003, 5_000_004]);
    }

    #[test]
    fn a_number_used_again_is_not_ours() {
        // Our own number is certainly taken. The second row stands for a member of its group.
        let leader = Who::leader(Pid::from_raw(own_number()).unwrap());
        let member = row_of(5_000_001, 1, own_number(), 1);
        let table = Table(vec![member]);
        assert_eq!(table.family(leader, true, &[]), []);
        assert_eq!(table.family(leader, false, &[]), [member.who]);
    }
}
