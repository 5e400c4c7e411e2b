//! Ending what a command left: its processes are found from a second channel of the same
//! connection and sent a signal.
//!
//! Nothing stands in front of the command for this. Both channels' programs are children of the
//! one server process that serves the connection, so the siblings of the sweeping shell are the
//! command; one whose environment names another connection is left alone, for servers (such as our
//! own sandbox) that serve several in one process. OpenSSH makes every command the leader of a session (`setsid` in session.c,
//! `do_exec_no_pty`), which also finds what has been orphaned; where the server does not,
//! descendants are taken. What has left both its parent and its session is known by the
//! connection in its environment, if neither it nor who started it is older than the command: an
//! earlier one may have left a daemon on purpose. A process is remembered by its number and start time, a session by its
//! leader's number, so that a later sweep still finds what the first one saw.
//!
//! A server that allows one channel only (`MaxSessions 1`) is swept over a second connection, which
//! knows the command by the `SSH_CONNECTION` in its environment.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg};

use crate::session::Sweep;
use crate::session::command::{in_any_shell, quote};
use crate::session::elevate::Rights;

/// How long one sweep may take, the opening of its channel included.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// Output that is read before a sweep is given up.
const OUTPUT: usize = 1 << 20;

/// What a sweep saw, passed to the next one.
#[derive(Debug, Default, Clone)]
pub(super) struct Memory(String);

/// POSIX sh. Arguments: the signal's name or `0`, a token, and what the last sweep printed
/// (`s<session>` and `p<pid>:<start>` words), the `SSH_CONNECTION` of the command where the
/// sweep comes over a connection of its own, how many seconds ago the command was begun, and what
/// runs a text as the account that the command runs as.
///
/// `list` prints `pid ppid pgrp session start state` of every process; a command name may hold
/// anything but has at most 15 bytes, so what follows its last `) ` is taken, with as many further
/// lines as make it whole. `having` gives those whose environment holds a text; not as a fixed
/// string (`-F`), for which BusyBox looks no further than the first variable. Without /proc, ps(1) gives process groups in place of sessions and no
/// start times. Numbers that may pass 2^31 (ticks since the boot) stay text in awk: mawk rounds
/// them. A list without a process is no answer.
const SCRIPT: &str = r#"sig=$1 tok=$2 old=$3 conn=$4 age=$5 as=$6 me=$$ up=$PPID
end() {
[ -z "$as" ] || eval "$as 'kill -s $1 $live'" >/dev/null 2>&1
kill -s "$1" $live 2>/dev/null
}
ticks=$(getconf CLK_TCK 2>/dev/null)
now=$(cut -d. -f1 /proc/uptime 2>/dev/null)
since=$(( (${now:-0} - age) * ${ticks:-100} ))
list() {
if [ -r /proc/self/stat ]; then
printf '%s\n' /proc/[0-9]*/stat | xargs cat 2>/dev/null | awk '{
t = t $0
rest = t
sub(/^.*\) /, "", rest)
if (split(rest, f, " ") < 20) { t = t " "; next }
print t + 0, f[2], f[3], f[4], f[20], f[1]
t = ""
}'
else
ps -A -o pid= -o ppid= -o pgid= -o stat= | awk '{ print $1, $2, $3, $3, 0, $4 }'
fi
}
having() {
sed 's,.*,/proc/&/environ,' | xargs grep -l$1 "$2" /dev/null 2>/dev/null | tr -dc '0-9\n' | tr '\n' ' '
}
pass() {
all=$(list)
hits=$(echo "$all" | cut -d' ' -f1 | having w "SSH_CONNECTION=${conn:-$SSH_CONNECTION}")
kids=$(echo "$all" | awk -v up="$up" '$2 == up { print $1 }')
if [ -z "$FANRUN_SANDBOX" ]; then others=$(echo "$kids" | having "" SSH_CONNECTION=); else others=$kids; fi
found=$(echo "$all" | awk -v me="$me" -v up="$up" -v since="$since" -v conn="$conn" \
-v old="$old" -v hits="$hits" -v others="$(echo $others)" '
function older(start, pid) {
if (lead == "" || start + 0 < lead + 0) { lead = start; first = pid }
}
BEGIN {
n = split(hits, w, " "); for (i = 1; i <= n; i++) hit[w[i]]
n = split(others, w, " "); for (i = 1; i <= n; i++) if (!(w[i] in hit)) other[w[i]]
n = split(old, w, " ")
for (i = 1; i <= n; i++) {
if (w[i] ~ /^s/) { sess[substr(w[i], 2)]; continue }
split(substr(w[i], 2), x, ":")
older(x[2], x[1])
if (x[2] != 0) seen[x[1] ":" x[2]]
}
}
NF == 6 {
p[++all] = $1; q[all] = $2; s[all] = $4; b[all] = $5; z[all] = $6
if ($1 == me) mine = $4
if ($1 == up) theirs = $4
}
END {
if (!all) exit 1
for (i = 1; i <= all; i++) {
if (p[i] == me || p[i] == up) continue
if (conn == "" && q[i] == up && !(p[i] in other)) {
want[p[i]]
older(b[i], p[i])
if (s[i] == p[i] && s[i] != mine && s[i] != theirs) sess[s[i]]
}
if ((p[i] ":" b[i]) in seen) want[p[i]]
}
from = lead == "" ? since : lead
for (i = 1; i <= all; i++) {
if (!(p[i] in hit) || p[i] == me || p[i] == up || q[i] == me) continue
if (b[i] + 0 < from + 0 || (lead != "" && b[i] == lead && p[i] + 0 < first + 0) || q[i] in past || s[i] in past) {
past[p[i]]
continue
}
want[p[i]]
if (s[i] != mine && s[i] != theirs) sess[s[i]]
}
do {
more = 0
for (i = 1; i <= all; i++) {
if (p[i] in want || p[i] == me || p[i] == up) continue
if (!(s[i] in sess) && (q[i] == me || q[i] == up || !(q[i] in want))) continue
want[p[i]]
more = 1
}
} while (more)
for (i in sess) ids = ids " s" i
for (i = 1; i <= all; i++) {
if (!(p[i] in want) || z[i] ~ /^[ZX]/) continue
n_live++
live = live " " p[i]
ids = ids " p" p[i] ":" b[i]
}
if (lead != "") ids = ids " p" first ":" lead
print n_live + 0
print live
print ids
}') || exit 1
{ read -r n; read -r live; read -r ids; } <<E
$found
E
}
pass
count=$n
if [ "$sig" != 0 ] && [ "$n" -gt 0 ]; then
end "$sig"
if [ "$sig" = KILL ]; then
for again in 1 2 3; do
old=$ids
pass
[ "$n" -gt 0 ] || break
end KILL
done
fi
fi
echo "$tok $count $ids"
"#;

/// The command that is swept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command<'a> {
    /// Its `SSH_CONNECTION`, when the sweep's channel is of another connection.
    pub(super) connection: Option<&'a str>,
    /// How long ago it was begun.
    pub(super) age: Duration,
    /// What may end it, where that is another account.
    pub(super) rights: Option<&'a Rights>,
}

/// Runs one sweep on a fresh channel. `signal` is a name without `SIG`, or `0` to count only.
pub(super) async fn run(
    mut channel: Channel<Msg>,
    signal: &str,
    memory: &mut Memory,
    of: Command<'_>,
) -> Sweep {
    let token = format!("swept-{:016x}", RandomState::new().hash_one(signal));
    let command = in_any_shell(&format!(
        "set -- {} {} {} {} {} {}\n{SCRIPT}",
        quote(signal),
        quote(&token),
        quote(&memory.0),
        quote(of.connection.unwrap_or_default()),
        of.age.as_secs() + 1,
        quote(of.rights.map_or("", |rights| &rights.words)),
    ));
    let answer = async {
        channel.exec(true, command).await.ok()?;
        if let Some(input) = of.rights.and_then(Rights::input) {
            channel.data_bytes(input).await.ok()?;
        }
        channel.eof().await.ok()?;
        collect(&mut channel).await
    };
    let answer = tokio::time::timeout(DEADLINE, answer).await.ok().flatten();
    let _ = tokio::time::timeout(DEADLINE, channel.close()).await;
    match answer.as_deref().and_then(|text| parse(text, &token)) {
        // Behind address translation the server knows our connection by other numbers: to find
        // nothing says nothing before something has been found.
        Some((0, _)) if of.connection.is_some() && memory.0.is_empty() => Sweep::Unknown,
        Some((count, seen)) => {
            *memory = seen;
            Sweep::Signalled(count)
        }
        None => Sweep::Unknown,
    }
}

/// Everything that the shell printed, if it ended well.
async fn collect(channel: &mut Channel<Msg>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) if out.len() + data.len() <= OUTPUT => {
                out.extend_from_slice(&data);
            }
            Some(ChannelMsg::Data { .. } | ChannelMsg::Failure) => return None,
            Some(ChannelMsg::ExitStatus { exit_status: 0 }) => {}
            Some(ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. }) => return None,
            Some(ChannelMsg::Close) | None => return Some(out),
            // Replies, end of file, window changes, what a login script says on stderr.
            Some(_) => {}
        }
    }
}

fn parse(text: &[u8], token: &str) -> Option<(u32, Memory)> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix(token))?;
    let mut words = line.split_ascii_whitespace();
    let count = words.next()?.parse().ok()?;
    let seen: Vec<&str> = words.collect();
    let is_memory = |word: &&str| {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        match (word.strip_prefix('s'), word.strip_prefix('p')) {
            (Some(session), _) => digits(session),
            (_, Some(process)) => process
                .split_once(':')
                .is_some_and(|(pid, start)| digits(pid) && digits(start)),
            _ => false,
        }
    };
    seen.iter()
        .all(is_memory)
        .then(|| (count, Memory(seen.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_counts() {
        let (count, memory) = parse(b"motd\nT 2 s12 p12:99 p13:100\n", "T").unwrap();
        assert_eq!((count, memory.0.as_str()), (2, "s12 p12:99 p13:100"));
        assert!(parse(b"exec /bin/sh -c T '' x\n", "T").is_none());
        assert!(parse(b"T 2 ; rm\n", "T").is_none());
        assert!(parse(b"", "T").is_none());
    }
}
