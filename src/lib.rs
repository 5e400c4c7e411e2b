//! fanrun runs commands on many hosts over SSH, streams their output in whole lines, and says
//! honestly how every one ended.
//!
//! # The map
//!
//! | floor | rooms | what is there |
//! |---|---|---|
//! | 0 | [`job`] [`target`] [`outcome`] [`event`] [`listing`] [`transfer`] [`recap`] [`rows`] [`diagnostic`] [`text`] [`secret`] | plain words: no I/O, no runtime |
//! | 1 | [`playbook`] [`inventory`] [`session`] [`sftp`] [`output`] [`sandbox`] | areas that know the words and nothing of each other |
//! | 2 | [`plan`] [`report`] [`journal`] | what will be done; how it is told |
//! | 3 | [`engine`] | the run loop, lanes, endings |
//! | 4 | [`cli`] | arguments, commands, exit codes |
//!
//! Imports go downward only; `tests/suite/architecture.rs` fails on any other arrow.

pub mod cli;
pub mod diagnostic;
pub mod engine;
pub mod event;
pub mod inventory;
pub mod job;
pub mod journal;
pub mod listing;
pub mod outcome;
pub mod output;
pub mod plan;
pub mod playbook;
pub mod recap;
pub mod report;
pub mod rows;
pub mod sandbox;
pub mod secret;
pub mod session;
pub mod sftp;
pub mod target;
pub mod text;
pub mod transfer;
