//! From a name to a connected socket: every address is tried, a slow one does not hold up the next.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::problem;
use crate::outcome::{Cause, HostProblem};
use crate::target::Dial;

/// How long one address is waited for before the next is tried beside it. RFC 8305 recommends
/// 250 ms ("Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);
/// Sent data that nobody acknowledges for this long ends the connection (tcp(7)).
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;

/// Looks the name up.
pub(super) async fn resolve(dial: &Dial) -> Result<Vec<SocketAddr>, HostProblem> {
    let found = tokio::net::lookup_host((dial.address.as_str(), dial.port)).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(addresses) => addresses.take(ADDRESSES).collect(),
        Err(e) => {
            let reason = problem::plain(&e);
            return Err(problem::new(
                Cause::Dns,
                format!("cannot resolve {}: {reason}", dial.address),
            ));
        }
    };
    if addresses.is_empty() {
        let message = format!("{} has no address", dial.address);
        return Err(problem::new(Cause::Dns, message));
    }
    Ok(addresses)
}

/// Connects to the first address that answers.
pub(super) async fn connect(
    addresses: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), HostProblem> {
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter().copied();
    let mut failures: Vec<(SocketAddr, io::Error)> = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move { (address, connect_one(address).await) });
        }
        let last = waiting.len() == 0;
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = tokio::time::sleep(STAGGER), if !last => continue,
        };
        match ended {
            Some(Ok((address, Ok(stream)))) => return Ok((stream, address)),
            Some(Ok((address, Err(e)))) => failures.push((address, e)),
            Some(Err(_)) => {}
            None => return Err(unreachable(&failures)),
        }
    }
}

async fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    // Both are refinements of what the SSH keepalive does anyway.
    let _ = sockopt::set_tcp_keepidle(&socket, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(&socket, 3);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(
        &socket,
        u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX),
    );
    socket.connect(address).await
}

/// The most telling failure: a refusal says more than a missing route, which says more than the
/// rest.
fn unreachable(failures: &[(SocketAddr, io::Error)]) -> HostProblem {
    let worst = failures.iter().min_by_key(|(_, e)| cause(e));
    let Some((address, error)) = worst else {
        return problem::new(Cause::Local, "no address could be tried");
    };
    let message = match cause(error) {
        Cause::ConnectionRefused => format!(
            "connection refused by {} port {}",
            address.ip(),
            address.port()
        ),
        _ => format!("cannot connect to {address}: {}", problem::plain(error)),
    };
    let mut problem = problem::new(cause(error), message);
    if failures.len() > 1 {
        let tried: Vec<String> = failures
            .iter()
            .map(|(address, e)| format!("{address} {}", problem::plain(e)))
            .collect();
        problem.details.push(("tried", tried.join(", ")));
    }
    problem
}

fn cause(error: &io::Error) -> Cause {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionRefused => Cause::ConnectionRefused,
        K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown => Cause::NoRoute,
        K::PermissionDenied => Cause::NoRoute,
        K::TimedOut => Cause::Timeout(crate::outcome::Phase::Connect),
        K::ConnectionReset | K::ConnectionAborted => Cause::Closed(crate::outcome::Phase::Connect),
        _ => Cause::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_address_is_tried_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (_, peer) = connect(&[closed, open]).await.unwrap();
        assert_eq!(peer, open);
        let problem = connect(&[closed, closed]).await.unwrap_err();
        assert_eq!(problem.cause, Cause::ConnectionRefused);
        assert!(problem.details.iter().any(|(label, _)| *label == "tried"));
    }
}
