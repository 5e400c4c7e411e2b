//! The one integration test binary: real servers, the real program.
//!
//! Fixtures (each ends exactly the processes it started, and removes what it wrote):
//! `sshd` and `dropbear` are real servers on loopback with keys of their own; `proxy` delays,
//! cuts and corrupts a TCP stream; `evil` speaks anything but good SSH; `sftp_servers` are the SFTP
//! servers of the field, `evil_sftp` is one that lies; `fanrun` runs the program and compares
//! stdout, stderr and status every time; `places` run one
//! playbook on the sandbox and over sshd; `processes` finds what was left running.
//!
//! Tests stand in files of their own beside the fixtures. A server that is not installed fails
//! its tests with the line that installs it: a skipped test would look like a passed one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy's leave for tests covers #[test] functions, not the fixtures they call"
)]
#![allow(
    dead_code,
    reason = "a fixture offers what several test files need; not each needs all"
)]

mod dropbear;
mod evil;
mod evil_sftp;
mod fanrun;
mod places;
mod processes;
mod proxy;
mod sftp_servers;
mod sshd;

mod accounts;
mod architecture;
mod config_oracle;
mod endings;
mod examples;
mod facts;
mod fixtures;
mod identity;
mod known_oracle;
mod language;
mod links;
mod ls;
mod ls_servers;
mod mistakes;
mod round_trips;
mod rows;
mod runs;
mod schemas;
mod second;
mod secrets;
mod session;
mod sftp_fixtures;
mod sftp_lies;
mod shells;
mod stops;
mod streams;
mod transfers;
