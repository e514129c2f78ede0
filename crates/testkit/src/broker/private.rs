//! A RabbitMQ of a test's own, to be stopped, killed and starved. Shared brokers are left alone.

#![expect(clippy::disallowed_methods, reason = "the broker is started and ended the way operators do it")]

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use attune_sys::{Pid, SIGKILL, SIGTERM, kill_group};
use tempfile::TempDir;

use super::TestBroker;
use crate::certificate;

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// Erlang takes its time on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(3);

/// A broker that runs in a folder of its own, on ports of its own.
#[derive(Debug)]
pub struct PrivateBroker {
    folder: TempDir,
    node: String,
    port: u16,
    management_port: u16,
    distribution_port: u16,
    tls_port: u16,
    child: Option<Child>,
}

impl PrivateBroker {
    /// Starts one and waits until it serves.
    pub fn start() -> Self {
        assert!(Path::new(SERVER).exists(), "{SERVER} is not there: run scripts/setup");
        let folder = tempfile::tempdir().expect("a folder for the broker");
        let [port, management_port, distribution_port, tls_port] = free_ports();
        let node = format!("attune-test-{port}@localhost");
        let mut broker = Self { folder, node, port, management_port, distribution_port, tls_port, child: None };
        broker.configure();
        broker.run();
        broker
    }

    /// A virtual host on it.
    pub fn vhost(&self) -> TestBroker {
        let (broker, management) = (self.authority(), format!("127.0.0.1:{}", self.management_port));
        TestBroker::at(&broker, "guest:guest", &management)
    }

    /// `host:port` where it listens.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` where it listens for TLS. Its certificate is good for `localhost` alone.
    pub fn tls_authority(&self) -> String {
        format!("localhost:{}", self.tls_port)
    }

    /// The certificate that vouches for it.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// Kills it, as a lost machine would.
    pub fn kill(&mut self) {
        self.end(SIGKILL);
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        self.end(SIGTERM);
    }

    /// Starts it again with what is on its disk, and waits until it serves.
    pub fn run(&mut self) {
        let log = File::create(self.folder.path().join("out.log")).expect("a log file");
        let mut command = self.command(SERVER);
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle of the log")).stderr(log);
        self.child = Some(command.spawn().expect("rabbitmq-server starts"));
        let begun = Instant::now();
        while !self.serves() {
            let log = || fs::read_to_string(self.folder.path().join("out.log")).unwrap_or_default();
            assert!(begun.elapsed() < START_LIMIT, "the broker does not start: {}", log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Makes it short of memory, so that it blocks publishers, or has enough again.
    pub fn starve(&self, starving: bool) {
        let watermark = if starving { "0.000001" } else { "0.4" };
        let mut command = self.command(CONTROL);
        command.args(["-n", &self.node, "set_vm_memory_high_watermark", watermark]);
        let output = command.output().expect("rabbitmqctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn configure(&self) {
        let folder = self.folder.path();
        let (port, management, tls) = (self.port, self.management_port, self.tls_port);
        let (certificate, key) = (self.ca_file(), folder.join("key.pem"));
        let config = format!(
            "listeners.tcp.local = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n\
             listeners.ssl.local = 127.0.0.1:{tls}\nssl_options.verify = verify_none\n\
             ssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            certificate.display(),
            key.display()
        );
        for (name, text) in
            [("rabbitmq.conf", config.as_str()), ("plugins", "[rabbitmq_management]."), ("env.conf", "")]
        {
            fs::write(folder.join(name), text).expect("a file for the broker");
        }
        certificate::make(Command::new("openssl"), &certificate, &key);
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(program);
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1");
        command
    }

    /// Whether broker and management answer.
    fn serves(&self) -> bool {
        [self.port, self.management_port].iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok())
    }

    fn end(&mut self, signal: i32) {
        let Some(mut child) = self.child.take() else { return };
        let group = Pid::new(child.id()).expect("a process id");
        kill_group(group, signal).expect("the broker's processes");
        child.wait().expect("the broker's end");
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        self.end(SIGKILL);
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its number").port())
}
