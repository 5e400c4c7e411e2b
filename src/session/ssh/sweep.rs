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
/// anything, so what follows its last `) ` is taken. Without /proc, ps(1) gives process groups in
/// place of sessions and no start times.
const SCRIPT: &str = r#"sig=$1 tok=$2 old=" $3 " conn=$4 age=$5 as=$6 me=$$ up=$PPID
end() {
[ -z "$as" ] || eval "$as 'kill -s $1 $live'" >/dev/null 2>&1
kill -s "$1" $live 2>/dev/null
}
ticks=$(getconf CLK_TCK 2>/dev/null)
now=$(cut -d. -f1 /proc/uptime 2>/dev/null)
since=$(( (${now:-0} - age) * ${ticks:-100} ))
list() {
if [ -r /proc/self/stat ]; then
for f in /proc/[0-9]*/stat; do
t=
{ while IFS= read -r x || [ -n "$x" ]; do t="$t$x"; done <"$f"; } 2>/dev/null
[ -n "$t" ] || continue
p=${t%% *}
set -f; set -- ${t##*) }; set +f
echo "$p $2 $3 $4 ${20} $1"
done
else
ps -A -o pid= -o ppid= -o pgid= -o stat= | while read -r p q g s; do echo "$p $q $g $g 0 $s"; done
fi
}
same() {
[ -r "/proc/$1/environ" ] || return 0
e=$(tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep '^SSH_CONNECTION=')
[ "$e" = "SSH_CONNECTION=$SSH_CONNECTION" ] && return 0
[ -z "$e" ] && [ -z "$FANRUN_SANDBOX" ]
}
older() {
if [ -z "$lead" ] || [ "$1" -lt "$lead" ]; then lead=$1 first=${2#p}; fi
}
pass() {
all=$(list)
hits=" $(grep -lF "SSH_CONNECTION=${conn:-$SSH_CONNECTION}" /proc/[0-9]*/environ 2>/dev/null | tr -dc '0-9\n' | tr '\n' ' ') "
lead= first=0 past=" "
mine=$(echo "$all" | while read -r p q g s b z; do [ "$p" = "$me" ] && echo "$s"; done)
theirs=$(echo "$all" | while read -r p q g s b z; do [ "$p" = "$up" ] && echo "$s"; done)
want=" "
sess=" "
for w in $old; do
case $w in
s*) sess="$sess${w#s} ";;
p*) older "${w#*:}" "${w%%:*}";;
esac
done
while read -r p q g s b z; do
[ "$p" = "$me" ] && continue
[ "$p" = "$up" ] && continue
if [ -z "$conn" ] && [ "$q" = "$up" ] && same "$p"; then
want="$want$p "
older "$b" "$p"
if [ "$s" = "$p" ] && [ "$s" != "$mine" ] && [ "$s" != "$theirs" ]; then
case $sess in *" $p "*) ;; *) sess="$sess$p ";; esac
fi
fi
case $old in *" p$p:$b "*) [ "$b" = 0 ] || want="$want$p ";; esac
done <<E
$all
E
while read -r p q g s b z; do
case $hits in *" $p "*) ;; *) continue;; esac
case $p in "$me"|"$up") continue;; esac
[ "$q" = "$me" ] && continue
if [ "$b" -lt "${lead:-$since}" ] || { [ "$b" = "$lead" ] && [ "$p" -lt "$first" ]; }; then
past="$past$p "
continue
fi
case $past in *" $q "*|*" $s "*) past="$past$p "; continue;; esac
case $want in *" $p "*) ;; *) want="$want$p ";; esac
case $s in "$mine"|"$theirs") continue;; esac
case $sess in *" $s "*) ;; *) sess="$sess$s ";; esac
done <<E
$all
E
more=1
while [ "$more" = 1 ]; do
more=0
while read -r p q g s b z; do
[ "$p" = "$me" ] && continue
[ "$p" = "$up" ] && continue
case $want in *" $p "*) continue;; esac
case $sess in *" $s "*) want="$want$p "; more=1; continue;; esac
case $q in "$me"|"$up") continue;; esac
case $want in *" $q "*) want="$want$p "; more=1;; esac
done <<E
$all
E
done
n=0 ids=
for s in $sess; do ids="$ids s$s"; done
live=
while read -r p q g s b z; do
case $want in *" $p "*) ;; *) continue;; esac
case $z in Z*|X*) continue;; esac
n=$((n+1))
live="$live $p"
ids="$ids p$p:$b"
done <<E
$all
E
[ -z "$lead" ] || ids="$ids p$first:$lead"
}
pass
found=$n
if [ "$sig" != 0 ] && [ "$n" -gt 0 ]; then
end "$sig"
if [ "$sig" = KILL ]; then
for again in 1 2 3; do
old=" $ids "
pass
[ "$n" -gt 0 ] || break
end KILL
done
fi
fi
echo "$tok $found$ids"
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
