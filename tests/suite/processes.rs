//! Finding processes: by a marker in their command line or environment, and by descent.
//!
//! Every wait here is a poll with a deadline, and its failure names what was still there.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// One process as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub state: char,
    /// Arguments joined with spaces; empty for a zombie.
    pub command: String,
}

/// A word that no other test, run or machine puts into a command line.
pub fn marker(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("fanrun-{what}-{}-{next}-{nanos:x}", std::process::id())
}

/// Every process that can be read now; those that vanish while we look are left out.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect()
}

fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold spaces and parentheses itself.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&raw).replace('\0', " ");
    Some(Process {
        pid,
        parent,
        state,
        command: command.trim_end().to_owned(),
    })
}

/// Processes, ourselves excepted, whose command line holds `marker`.
pub fn with_command(marker: &str) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap();
    all()
        .into_iter()
        .filter(|process| process.pid != own && process.command.contains(marker))
        .collect()
}

/// Processes, ourselves excepted, whose environment at their start held `marker`.
pub fn with_environment(marker: &str) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap();
    all()
        .into_iter()
        .filter(|process| process.pid != own && environment_holds(process.pid, marker))
        .collect()
}

fn environment_holds(pid: i32, marker: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|raw| String::from_utf8_lossy(&raw).contains(marker))
}

/// All processes below `root`, children before grandchildren; `root` itself is not in it.
pub fn descendants(root: i32) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        next.extend(below.iter().map(|process| process.pid));
        found.extend(below);
    }
    found
}

/// Waits until `find` gives something, or fails with `what` after `limit`.
pub fn await_some<T>(what: &str, limit: Duration, find: impl FnMut() -> Option<T>) -> T {
    poll(limit, find).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}

/// Polls `find` every few milliseconds until it gives something or `limit` is over.
pub fn poll<T>(limit: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = find() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a process with `marker` in its command line runs, and gives it.
pub fn await_running(marker: &str, limit: Duration) -> Vec<Process> {
    let what = format!("no process with {marker} in its command line came up");
    await_some(&what, limit, || {
        // The program under test has the marker in its own arguments.
        let own = env!("CARGO_BIN_EXE_fanrun");
        let mut found = with_command(marker);
        found.retain(|process| !process.command.contains(own));
        (!found.is_empty()).then_some(found)
    })
}

/// Waits until no process with `marker` in its command line is left; fails with those that are.
pub fn await_gone(marker: &str, limit: Duration) {
    let gone = poll(limit, || with_command(marker).is_empty().then_some(()));
    assert!(
        gone.is_some(),
        "still running after {limit:?}: {:#?}",
        with_command(marker)
    );
}

/// Sends `signal` to one process; one that is gone already is what we wanted.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends what a server has started, in the order in which each process still has its parent to
/// reap it: commands, then sessions. Not every init reaps, and zombies would pile up under it.
/// The listener itself, `root`, is left to whoever started it.
pub fn end_sessions(root: i32, server: &str) {
    let (sessions, commands): (Vec<Process>, Vec<Process>) = descendants(root)
        .into_iter()
        .partition(|process| process.command.starts_with(server));
    for process in commands {
        signal(process.pid, Signal::KILL);
    }
    for session in sessions.iter().filter(|session| session.parent == root) {
        signal(session.pid, Signal::TERM);
    }
    let limit = Duration::from_secs(1);
    if poll(limit, || descendants(root).is_empty().then_some(())).is_none() {
        for process in descendants(root) {
            signal(process.pid, Signal::KILL);
        }
    }
}
