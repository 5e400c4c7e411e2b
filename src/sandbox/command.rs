//! One session channel: waits for its command, runs it, carries bytes both ways, and tells how it
//! ended. The order is sshd's (session.c): the exit message goes out when the process ends; the
//! channel closes when its pipes have ended too, which a background child can delay.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::{Ground, Member, end_group, sftp};

/// Where a connection's commands run.
pub(super) struct Place {
    pub(super) member: Member,
    pub(super) peer: SocketAddr,
    pub(super) ended: CancellationToken,
    pub(super) ground: Arc<Ground>,
}

/// Serves one channel until it is closed, or its connection has ended.
pub(super) async fn serve(channel: Channel<Msg>, handle: Handle, place: Arc<Place>) {
    let ended = place.ended.clone();
    tokio::select! {
        () = ended.cancelled() => {}
        () = converse(channel, handle, place) => {}
    }
}

async fn converse(channel: Channel<Msg>, handle: Handle, place: Arc<Place>) {
    let (mut read, write) = channel.split();
    let (text, env) = match await_command(&mut read).await {
        Some(Wanted::Command(text, env)) => (text, env),
        Some(Wanted::Sftp) => return sftp::serve(read, write, handle, &place).await,
        None => return,
    };
    let spawned = prepare(&text, &env, &place).spawn();
    match spawned {
        Ok(child) => run(child, read, write, handle, &place).await,
        Err(error) => refuse(&error, &write, &handle).await,
    }
}

type Env = Vec<(String, String)>;

/// What a channel is for.
enum Wanted {
    Command(Vec<u8>, Env),
    Sftp,
}

async fn await_command(read: &mut ChannelReadHalf) -> Option<Wanted> {
    let mut env = Vec::new();
    loop {
        match read.wait().await {
            Some(ChannelMsg::Exec { command, .. }) => {
                return Some(Wanted::Command(command, env));
            }
            Some(ChannelMsg::RequestSubsystem { name, .. }) if name == sftp::NAME => {
                return Some(Wanted::Sftp);
            }
            Some(ChannelMsg::SetEnv {
                variable_name,
                variable_value,
                ..
            }) => env.push((variable_name, variable_value)),
            Some(ChannelMsg::Close) | None => return None,
            // Refused by the connection, or without a meaning before there is a command.
            Some(_before_command) => {}
        }
    }
}

fn prepare(text: &[u8], env: &Env, place: &Place) -> Command {
    let shell = std::env::var_os("SHELL")
        .filter(|shell| !shell.is_empty())
        .unwrap_or_else(|| "/bin/sh".into());
    let Place { member, peer, .. } = place;
    let (ip, from, port) = (peer.ip(), peer.port(), member.port);
    let user = place.ground.user.as_str();
    let mut command = Command::new(&shell);
    command.arg("-c").arg(OsStr::from_bytes(text)).env_clear();
    let usable = |(name, _): &&(String, String)| !name.is_empty() && !name.contains('=');
    command.envs(env.iter().filter(usable).map(|(name, value)| (name, value)));
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin:/usr/sbin:/sbin".into());
    command
        .env("HOME", &member.home)
        .env("PWD", &member.home)
        .env("USER", user)
        .env("LOGNAME", user)
        .env("SHELL", &shell)
        .env("PATH", path)
        .env("SSH_CLIENT", format!("{ip} {from} {port}"))
        .env("SSH_CONNECTION", format!("{ip} {from} 127.0.0.1 {port}"))
        .env("FANRUN_SANDBOX", member.name.as_str())
        .env("FANRUN_SANDBOX_ROOT", &place.ground.directory)
        .current_dir(&member.home)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// sshd's child that cannot run the shell says so and exits with 1.
async fn refuse(error: &std::io::Error, write: &ChannelWriteHalf<Msg>, handle: &Handle) {
    let text = format!("sandbox: cannot start the command: {error}\n");
    // The connection is gone if any of these fails, and then nobody is left to be told.
    let _ = write.extended_data_bytes(1, text).await;
    let _ = handle.exit_status_request(write.id(), 1).await;
    let _ = write.eof().await;
    let _ = write.close().await;
}

async fn run(
    mut child: Child,
    mut read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    place: &Arc<Place>,
) {
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(leader), (Some(stdin), Some(stdout), Some(stderr))) = (leader, pipes) else {
        return;
    };
    place.ground.adopt(leader);
    let (tell, told) = oneshot::channel();
    let waiting = reap(child, leader, Arc::clone(place), tell);
    place.ground.tasks.spawn(waiting);
    let out = async {
        tokio::join!(
            carry(stdout, &write, None),
            carry(stderr, &write, Some(1)),
            announce(told, write.id(), &handle),
        );
        // The connection is gone if one fails, and then nobody is left to be told.
        let _ = write.eof().await;
        let _ = write.close().await;
    };
    let signal = |signal: &Sig| deliver(signal, leader, place);
    tokio::select! {
        () = out => {}
        () = feed(&mut read, stdin, &place.ground.directory, signal) => {}
    }
}

/// Waits for the process whether or not its channel lives: sshd does not end a command whose
/// channel was closed. The end of the connection does.
async fn reap(mut child: Child, leader: Pid, place: Arc<Place>, tell: oneshot::Sender<ExitStatus>) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = place.ended.cancelled() => {
            end_group(leader);
            child.wait().await
        }
    };
    place.ground.release(leader);
    if let Ok(status) = status {
        // Nobody listens when the channel is closed.
        let _ = tell.send(status);
    }
}

async fn announce(told: oneshot::Receiver<ExitStatus>, id: ChannelId, handle: &Handle) {
    let Ok(status) = told.await else { return };
    let sent = match (status.code(), status.signal()) {
        (Some(code), _) => {
            handle
                .exit_status_request(id, u32::from_ne_bytes(code.to_ne_bytes()))
                .await
        }
        (None, Some(signal)) => {
            let (name, core) = (signal_name(signal), status.core_dumped());
            handle
                .exit_signal_request(id, name, core, String::new(), String::new())
                .await
        }
        (None, None) => Err(()),
    };
    if sent.is_err() {
        tracing::debug!("sandbox: no one to tell how a command ended");
    }
}

/// Sends what the pipe gives, until it ends or nobody takes it any more.
pub(super) async fn carry(
    mut pipe: impl AsyncRead + Unpin,
    write: &ChannelWriteHalf<Msg>,
    extended: Option<u32>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(32 << 10);
        match pipe.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let block = buffer.split().freeze();
        let sent = match extended {
            None => write.data_bytes(block).await,
            Some(code) => write.extended_data_bytes(code, block).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Takes what the client sends; returns when the channel is closed.
/// `directory` is where input waits that has not been read yet.
pub(super) async fn feed(
    read: &mut ChannelReadHalf,
    stdin: impl AsyncWrite + Unpin,
    directory: &Path,
    on_signal: impl Fn(&Sig),
) {
    let mut stdin = Some(stdin);
    let mut backlog = Backlog::default();
    let mut current = Bytes::new();
    let mut eof = false;
    loop {
        if current.is_empty() {
            match backlog.pop() {
                Ok(Some(next)) => current = next,
                Ok(None) if eof => stdin = None,
                Ok(None) => {}
                Err(error) => return lose(&error),
            }
        }
        tokio::select! {
            message = read.wait() => match message {
                Some(ChannelMsg::Data { data }) if stdin.is_some() => {
                    if let Err(error) = backlog.push(data, directory) {
                        return lose(&error);
                    }
                }
                Some(ChannelMsg::Eof) => eof = true,
                Some(ChannelMsg::Signal { signal }) => on_signal(&signal),
                Some(ChannelMsg::Close) | None => return,
                // Input that the command has closed its eyes to, and requests refused already.
                Some(_without_meaning_here) => {}
            },
            written = write_some(&mut stdin, &current), if stdin.is_some() && !current.is_empty() => {
                match written {
                    Ok(count) => drop(current.split_to(count)),
                    Err(_closed_by_command) => {
                        stdin = None;
                        current = Bytes::new();
                        backlog = Backlog::default();
                    }
                }
            }
        }
    }
}

fn lose(error: &std::io::Error) {
    tracing::warn!(%error, "sandbox: input of a command could not be kept");
}

async fn write_some(
    stdin: &mut Option<impl AsyncWrite + Unpin>,
    data: &[u8],
) -> std::io::Result<usize> {
    match stdin {
        Some(pipe) => pipe.write(data).await,
        None => Ok(0),
    }
}

/// To the whole group, as sshd does (session.c, `session_signal_req`); never to a group whose
/// leader was reaped, since its number may be another's by now.
fn deliver(signal: &Sig, leader: Pid, place: &Place) {
    let groups = place.ground.groups();
    if let Some(signal) = signal_of(signal).filter(|_| groups.contains(&leader)) {
        // Gone meanwhile is as good.
        let _ = rustix::process::kill_process_group(leader, signal);
    }
}

fn signal_of(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(name) if name == "USR2" => Signal::USR2,
        Sig::Custom(_) => return None,
    })
}

fn signal_name(number: i32) -> Sig {
    let named = [
        Sig::ABRT,
        Sig::ALRM,
        Sig::FPE,
        Sig::HUP,
        Sig::ILL,
        Sig::INT,
        Sig::KILL,
        Sig::PIPE,
        Sig::QUIT,
        Sig::SEGV,
        Sig::TERM,
        Sig::USR1,
        Sig::Custom("USR2".into()),
    ];
    let known = named
        .into_iter()
        .find(|sig| signal_of(sig).is_some_and(|s| s.as_raw() == number));
    // sshd's word for a signal that RFC 4254 6.10 has no name for (session.c, `sig2name`).
    known.unwrap_or_else(|| Sig::Custom("SIG@openssh.com".into()))
}
