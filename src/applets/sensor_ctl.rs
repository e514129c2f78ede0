//! `attune-agents sensor ctl`: asks a running sensor host, over its control socket.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use argh::FromArgs;
use attune_config::default_run_folder;
use attune_sensor::{CONTROL_SOCKET, ControlReply, ControlRequest, SensorView, ask_host};
use tokio::time::sleep;

use crate::call::Call;
use crate::exit::{Exit, Failure};
use crate::output::{self, Output};
use crate::rt;

/// Between two looks at a log that is followed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How much of a log is shown at first.
const SHOWN_BYTES: u64 = 16 * 1024;

/// Asks or controls the sensor host on this machine, without restarting it.
/// COMMAND is `list`, `start`, `stop`, `restart` or `logs`; all but the first need the ref of a sensor.
#[derive(Debug, FromArgs)]
struct CtlArguments {
    /// what to do
    #[argh(positional)]
    command: String,
    /// ref of the sensor
    #[argh(positional)]
    sensor: Option<String>,
    /// with `logs`: go on as the sensor writes, until Ctrl-C
    #[argh(switch)]
    follow: bool,
    /// with `logs`: `stdout` or `stderr` (default: both)
    #[argh(option)]
    stream: Option<String>,
    /// print JSON
    #[argh(switch)]
    json: bool,
    /// control socket of the host (default: control.sock in its run folder)
    #[argh(option)]
    socket: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(call: Call) -> Result<Exit, Failure> {
    call.with(|arguments: CtlArguments| {
        let socket = arguments.socket.clone().unwrap_or_else(|| default_run_folder().join(CONTROL_SOCKET));
        let sensor = || arguments.sensor.clone().ok_or_else(|| Failure::usage("name the sensor by its ref"));
        let runtime = rt::one_thread()?;
        let change = |request| runtime.block_on(changed(&socket, &request));
        match arguments.command.as_str() {
            "list" => output::print(&listed(&runtime.block_on(views(&socket))?, arguments.json)?),
            "start" => change(ControlRequest::Start(sensor()?)),
            "stop" => change(ControlRequest::Stop(sensor()?)),
            "restart" => change(ControlRequest::Restart(sensor()?)),
            "logs" => runtime.block_on(logs(&socket, &sensor()?, &arguments)),
            other => Err(Failure::usage(format!("expected list, start, stop, restart or logs, not {other:?}"))),
        }
    })
}

async fn asked(socket: &Path, request: &ControlRequest) -> Result<ControlReply, Failure> {
    match ask_host(socket, request).await {
        Ok(ControlReply::Refused(reason)) => Err(Failure::message(Exit::Failed, reason)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(Failure::new(Exit::Unavailable, error)),
    }
}

async fn changed(socket: &Path, request: &ControlRequest) -> Result<Exit, Failure> {
    match asked(socket, request).await? {
        ControlReply::Later(what) => output::print(&format!("{what}\n")),
        _accepted => Ok(Exit::Success),
    }
}

async fn views(socket: &Path) -> Result<Vec<SensorView>, Failure> {
    match asked(socket, &ControlRequest::List).await? {
        ControlReply::Sensors(views) => Ok(views),
        ControlReply::Accepted | ControlReply::Later(_) | ControlReply::Refused(_) => {
            Err(Failure::message(Exit::Internal, "the sensor host answered something else"))
        }
    }
}

fn listed(views: &[SensorView], json: bool) -> Result<String, Failure> {
    if json {
        let text = serde_json::to_string(views).map_err(|error| Failure::new(Exit::Internal, error))?;
        return Ok(text + "\n");
    }
    let width = views.iter().map(|view| view.sensor.len()).max().unwrap_or(0);
    let line = |view: &SensorView| {
        let pid = view.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
        let ready = if view.ready { " ready" } else { "" };
        let failures = if view.failures > 0 { format!(" failures {}", view.failures) } else { String::new() };
        let words: Vec<&str> = view.status.iter().chain(&view.reason).map(String::as_str).collect();
        let words = if words.is_empty() { String::new() } else { format!(": {}", words.join(": ")) };
        format!("{:width$}  {:8} rules {}{pid}{ready}{failures}{words}\n", view.sensor, view.state, view.rules)
    };
    Ok(views.iter().map(line).collect())
}

/// One stream that is shown.
struct Tail {
    is_stderr: bool,
    path: Option<PathBuf>,
    file: Option<File>,
}

async fn logs(socket: &Path, sensor: &str, arguments: &CtlArguments) -> Result<Exit, Failure> {
    let wanted = |name: &str| arguments.stream.as_deref().is_none_or(|stream| stream == name);
    if !wanted("stdout") && !wanted("stderr") {
        return Err(Failure::usage("--stream is `stdout` or `stderr`"));
    }
    let tail = |is_stderr| Tail { is_stderr, path: None, file: None };
    let streams = [("stdout", false), ("stderr", true)];
    let mut output = Output::open()?;
    let mut tails: Vec<Tail> = streams.iter().filter(|(name, _)| wanted(name)).map(|(_, is)| tail(*is)).collect();
    loop {
        let view = views(socket).await?.into_iter().find(|view| view.sensor == sensor);
        let view =
            view.ok_or_else(|| Failure::message(Exit::Failed, format!("there is no enabled sensor {sensor}")))?;
        for tail in &mut tails {
            let path = if tail.is_stderr { &view.stderr } else { &view.stdout };
            let new = tail.read(path.as_deref()).map_err(|error| {
                Failure::message(Exit::Failed, format!("failed to read the log of {sensor}: {error}"))
            })?;
            output.bytes(&new)?;
            output.flush()?;
        }
        if !arguments.follow {
            return Ok(Exit::Success);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

impl Tail {
    /// What is new in the file, and then in the one that has taken its place.
    fn read(&mut self, path: Option<&Path>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.rest(&mut bytes)?;
        if path.is_some() && path != self.path.as_deref() {
            let is_first = self.path.is_none();
            self.path = path.map(Path::to_owned);
            self.file = path.map(File::open).transpose()?;
            if let Some(file) = self.file.as_mut().filter(|_| is_first) {
                let size = file.metadata()?.len();
                file.seek(SeekFrom::Start(size.saturating_sub(SHOWN_BYTES)))?;
            }
            self.rest(&mut bytes)?;
        }
        Ok(bytes)
    }

    fn rest(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.read_to_end(bytes).map(drop),
            None => Ok(()),
        }
    }
}
