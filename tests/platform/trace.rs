//! What the kernel sees of the worker's sockets: nothing that it sends waits for a timer of the network.
//!
//! A small packet is held back (Nagle) while an earlier one is not confirmed, and the other side may wait 40 ms with its
//! confirmation; so sockets that two packets can follow each other on have `TCP_NODELAY`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{BINARY, Installation};

const STRACE: &str = "/usr/bin/strace";

/// One call of the traced program.
struct Call {
    /// Seconds since 1970, with a fraction: those of all threads are put in one order by it.
    at: f64,
    name: String,
    descriptor: u32,
    /// From the second argument on.
    rest: String,
    returned: i64,
}

impl Call {
    /// From `<time> <name>(<descriptor>, … = <number>…`.
    fn parse(line: &str) -> Option<Self> {
        let (at, call) = line.split_once(' ')?;
        let (name, arguments) = call.split_once('(')?;
        let (descriptor, rest) = arguments.split_once(", ")?;
        let (rest, returned) = rest.rsplit_once(") = ")?;
        Some(Self {
            at: at.parse().ok()?,
            name: name.to_owned(),
            descriptor: descriptor.parse().ok()?,
            rest: rest.to_owned(),
            returned: returned.split(' ').next()?.parse().ok()?,
        })
    }
}

/// All calls of all threads, in their order.
fn calls_in(folder: &Path) -> Vec<Call> {
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let mut calls: Vec<Call> =
        files.flat_map(|text| text.lines().filter_map(Call::parse).collect::<Vec<_>>()).collect();
    calls.sort_by(|a, b| a.at.total_cmp(&b.at));
    calls
}

/// The calls on each connection to `port`.
fn connections(calls: &[Call], port: &str) -> Vec<Vec<String>> {
    let to_port = format!("htons({port})");
    let mut open: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut all = Vec::new();
    for call in calls {
        if call.name == "connect" {
            all.extend(open.remove(&call.descriptor));
            if call.rest.contains(&to_port) {
                open.insert(call.descriptor, Vec::new());
            }
        } else if let Some(connection) = open.get_mut(&call.descriptor) {
            match &*call.name {
                "setsockopt" if call.rest.contains("TCP_NODELAY, [1]") => connection.push("no delay".to_owned()),
                "sendto" | "sendmsg" | "write" | "writev" if call.returned > 0 => connection.push("sent".to_owned()),
                "recvfrom" | "recvmsg" | "read" | "readv" if call.returned > 0 => {
                    connection.push("received".to_owned())
                }
                _ => {}
            }
        }
    }
    all.extend(open.into_values());
    all
}

fn port_of(url: &str) -> String {
    url::Url::parse(url).unwrap().port().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_worker_sends_waits_for_a_timer_of_the_network() {
    if !Path::new(STRACE).exists() {
        attune_testkit::lacking("tracing", "install strace (scripts/setup) and allow ptrace");
        return;
    }
    let installation = Installation::new().await;
    let row = "INSERT INTO worker (name, worker_role, worker_type, status, capabilities, last_heartbeat)
               VALUES ('worker-1', 'action', 'local', 'active', '{}', now())";
    installation.database.execute(row).await;
    let executions = "INSERT INTO execution (action, action_ref, config, status, worker)
                      SELECT action.id, action.ref, '{\"message\": \"hello\"}', 'scheduled', worker.id
                      FROM action, worker, generate_series(1, 40) WHERE action.ref = 'core.echo'";
    installation.database.execute(executions).await;
    let folder = installation.path("trace");
    fs::create_dir(&folder).unwrap();
    // The tracer is not the parent, so that signals go to the worker.
    let options = ["-D", "-f", "-ff", "-ttt", "-s", "0", "-e", "trace=network,read,write,readv,writev", "-o"];
    let mut command = installation.command_of(STRACE, &options);
    command.arg(folder.join("calls")).args([BINARY, "worker", "--name", "worker-1"]);
    let worker = installation.start_command("worker", command);
    let completed = "SELECT count(*) FROM execution WHERE status = 'completed'";
    installation.wait_for("they run", completed, |count| count == 40).await;
    worker.stop();

    let calls = calls_in(&folder);
    let broker = connections(&calls, &port_of(&installation.broker.url()));
    assert!(broker.iter().flatten().filter(|call| *call == "sent").count() > 40, "the trace has the announcements");
    let database = connections(&calls, &port_of(&installation.database.url()));
    assert!(database.iter().flatten().filter(|call| *call == "sent").count() > 80, "the trace has the statements");
    for connection in broker.iter().chain(&database) {
        let is_slow = |call: &String| call != "no delay";
        let before: Vec<_> = connection.iter().take_while(|call| is_slow(call)).map(String::as_str).collect();
        assert!(before.len() < connection.len(), "it has no TCP_NODELAY: {connection:?}");
        // A question before it does not matter, as long as nothing follows without its answer.
        assert!(!before.windows(2).any(|pair| pair == ["sent", "sent"]), "{connection:?}");
    }
}
