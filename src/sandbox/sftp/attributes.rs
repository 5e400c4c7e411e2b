//! What is said of a file: attributes from the file system and back, and the line of `ls -l`
//! that version 3 puts beside every name of a listing.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, fchown, lchown};
use std::path::Path;
use std::time::SystemTime;

use russh_sftp::protocol::FileAttributes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY: i64 = 24 * 60 * 60;
/// Files younger than this show their time of day, older ones their year.
const RECENT: i64 = 365 * DAY / 2;

/// All that version 3 can say of a file. Times that an unsigned 32-bit number of seconds cannot
/// hold become the nearest that it can.
pub(super) fn of(metadata: &Metadata) -> FileAttributes {
    FileAttributes {
        size: Some(metadata.len()),
        uid: Some(metadata.uid()),
        gid: Some(metadata.gid()),
        permissions: Some(metadata.mode()),
        atime: Some(seconds(metadata.atime())),
        mtime: Some(seconds(metadata.mtime())),
        ..FileAttributes::empty()
    }
}

fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// What the attributes of a request are given to.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// What the path leads to.
    Path(&'a Path),
    /// What the path names, be it a link.
    Link(&'a Path),
    Open(&'a File),
}

/// Sets what the attributes hold, in OpenSSH's order (sftp-server.c, `process_setstat`): size,
/// mode, times, owner. All are tried; the error is the last one.
pub(super) fn set(target: Target<'_>, wanted: &FileAttributes) -> io::Result<()> {
    let steps = [
        wanted.size.map(|size| set_size(target, size)),
        wanted.permissions.map(|mode| set_mode(target, mode)),
        wanted
            .atime
            .zip(wanted.mtime)
            .map(|(accessed, modified)| set_times(target, accessed, modified)),
        wanted
            .uid
            .zip(wanted.gid)
            .map(|(user, group)| set_owner(target, user, group)),
    ];
    let failed = steps.into_iter().flatten().filter_map(Result::err).last();
    failed.map_or(Ok(()), Err)
}

fn set_size(target: Target<'_>, size: u64) -> io::Result<()> {
    match target {
        Target::Path(path) => {
            // Without NONBLOCK a FIFO that nobody reads would hold this thread for ever.
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            File::from(rustix::fs::open(path, flags, Mode::empty())?).set_len(size)
        }
        Target::Link(_) => Err(io::ErrorKind::InvalidInput.into()),
        Target::Open(file) => file.set_len(size),
    }
}

fn set_mode(target: Target<'_>, mode: u32) -> io::Result<()> {
    let mode = Permissions::from_mode(mode & 0o7777);
    match target {
        Target::Path(path) => fs::set_permissions(path, mode),
        // Linux cannot do it to a link, and says so of a file that is none as well.
        Target::Link(path) if path.is_symlink() => Err(io::ErrorKind::Unsupported.into()),
        Target::Link(path) => fs::set_permissions(path, mode),
        Target::Open(file) => file.set_permissions(mode),
    }
}

fn set_times(target: Target<'_>, accessed: u32, modified: u32) -> io::Result<()> {
    let at = |seconds: u32| Timespec {
        tv_sec: i64::from(seconds),
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: at(accessed),
        last_modification: at(modified),
    };
    match target {
        Target::Path(path) => rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?,
        Target::Link(path) => {
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Target::Open(file) => rustix::fs::futimens(file, &times)?,
    }
    Ok(())
}

fn set_owner(target: Target<'_>, user: u32, group: u32) -> io::Result<()> {
    match target {
        Target::Path(path) => chown(path, Some(user), Some(group)),
        Target::Link(path) => lchown(path, Some(user), Some(group)),
        Target::Open(file) => fchown(file, Some(user), Some(group)),
    }
}

/// Names of users and groups by number, as `/etc/passwd` and `/etc/group` have them.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    users: Vec<(u32, String)>,
    groups: Vec<(u32, String)>,
}

impl Accounts {
    /// Reads both files; one that cannot be read has no names, and numbers are shown instead.
    pub(super) fn read() -> Self {
        Self {
            users: names("/etc/passwd"),
            groups: names("/etc/group"),
        }
    }

    pub(super) fn user(&self, id: u32) -> Option<&str> {
        name_of(&self.users, id)
    }

    pub(super) fn group(&self, id: u32) -> Option<&str> {
        name_of(&self.groups, id)
    }
}

/// Both files have the name in the first and the number in the third field.
fn names(path: &str) -> Vec<(u32, String)> {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        })
        .collect()
}

fn name_of(names: &[(u32, String)], id: u32) -> Option<&str> {
    let found = names.iter().find(|(number, _)| *number == id);
    found.map(|(_, name)| name.as_str())
}

/// The line of `ls -l`, in the columns that clients cut it by (draft, section 7). Its time is UTC.
pub(super) fn long_name(name: &str, metadata: &Metadata, accounts: &Accounts) -> String {
    let numeric = |id: u32| id.to_string();
    let (user, group) = (metadata.uid(), metadata.gid());
    format!(
        "{} {:>4} {:<8} {:<8} {:>8} {} {name}",
        mode_text(metadata.mode()),
        metadata.nlink(),
        accounts
            .user(user)
            .map_or_else(|| numeric(user), str::to_owned),
        accounts
            .group(group)
            .map_or_else(|| numeric(group), str::to_owned),
        metadata.len(),
        time_text(metadata.mtime(), now()),
    )
}

fn now() -> i64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    passed.map_or(0, |passed| passed.as_secs().cast_signed())
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// `Feb 29 12:34`, or `Feb 29  2024` for what is old or yet to come.
fn time_text(time: i64, now: i64) -> String {
    let (year, month, day) = date(time.div_euclid(DAY));
    let month = usize::try_from(month - 1).map_or("???", |index| MONTHS[index % 12]);
    if (now - RECENT..=now).contains(&time) {
        let minutes = time.rem_euclid(DAY) / 60;
        format!("{month} {day:>2} {:02}:{:02}", minutes / 60, minutes % 60)
    } else {
        format!("{month} {day:>2}  {year}")
    }
}

/// Year, month and day of a day counted from 1970-01-01. The year is reckoned from March, so that
/// the leap day is its last, in cycles of 400 years, which all have 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (cycle, of_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_ls_writes_them() {
        let now = 1_709_210_096; // 2024-02-29 12:34:56
        assert_eq!(time_text(now, now), "Feb 29 12:34");
        assert_eq!(time_text(now + 1, now), "Feb 29  2024", "still to come");
        assert_eq!(time_text(now - RECENT - 1, now), "Aug 31  2023");
        assert_eq!(time_text(0, now), "Jan  1  1970");
        assert_eq!(time_text(-1, now), "Dec 31  1969");
        assert_eq!(time_text(951_782_400, now), "Feb 29  2000");
        assert_eq!(
            time_text(4_107_542_400, now),
            "Mar  1  2100",
            "no leap year"
        );
        assert_eq!(time_text(i64::from(u32::MAX), now), "Feb  7  2106");
    }

    #[test]
    fn modes_are_as_ls_writes_them() {
        let cases = [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "lrwxrwxrwx"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o010_000, "p---------"),
            (0o140_007, "s------rwx"),
            (0o020_620, "crw--w----"),
            (0o060_660, "brw-rw----"),
        ];
        for (mode, text) in cases {
            assert_eq!(mode_text(mode), text);
        }
    }

    #[test]
    fn a_time_outside_the_protocol_is_the_nearest_inside() {
        assert_eq!(seconds(-5), 0);
        assert_eq!(seconds(i64::MAX), u32::MAX);
        assert_eq!(seconds(7), 7);
    }
}
