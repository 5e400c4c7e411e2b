//! What a long link costs: the round trips of a run, over a proxy that delays every byte.

use std::time::Duration;

use crate::fanrun::{Fanrun, holds};
use crate::proxy::Proxy;
use crate::sshd::Sshd;

/// Long against what a task costs by itself on a busy machine.
const ROUND_TRIP: Duration = Duration::from_millis(400);
/// Round trips that a further task may cost: its request and its status are one. Opening the channel
/// only then would make two; what lies between is room for a busy machine.
const ALLOWED: f64 = 1.6;
const FURTHER: usize = 10;

/// When each task ended, in seconds since the run began.
fn ends(events: &str) -> Vec<f64> {
    let events = events.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event
    });
    events
        .filter(|event| event["type"] == "task_end")
        .map(|event| event["t"].as_f64().unwrap())
        .collect()
}

#[test]
fn a_further_task_costs_one_round_trip() {
    let sshd = Sshd::start();
    let far = Proxy::to(sshd.port()).round_trip(ROUND_TRIP).start();
    let dir = sshd.directory();
    let known = dir.join("known_hosts_of_the_proxy");
    let key = sshd.host_key("ed25519");
    std::fs::write(&known, format!("[127.0.0.1]:{} {key}\n", far.port())).unwrap();
    let playbook = dir.join("tasks.yml");
    let tasks = "  - 'true'\n".repeat(1 + FURTHER);
    std::fs::write(&playbook, format!("hosts: all\ntasks:\n{tasks}")).unwrap();
    Fanrun::new(["run", playbook.to_str().unwrap(), "-i", "127.0.0.1,"])
        .options(["--port", &far.port().to_string(), "--user", sshd.user()])
        .options(["--identity", sshd.identity().to_str().unwrap()])
        .options(["--known-hosts", known.to_str().unwrap()])
        .options(["--format", "ndjson"])
        .expect(
            0,
            |events: &str| {
                let ends = ends(events);
                assert_eq!(ends.len(), 1 + FURTHER);
                let further = ends[FURTHER] - ends[0];
                let trips = further / FURTHER as f64 / ROUND_TRIP.as_secs_f64();
                assert!(trips < ALLOWED, "{trips:.2} round trips a task: {ends:?}");
                // Fewer than one would mean that the proxy did not delay.
                trips >= 1.0
            },
            holds([]),
        );
    assert_eq!(far.connections(), 1);
}
