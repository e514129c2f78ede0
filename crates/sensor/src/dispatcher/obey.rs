//! What an operator asks this host to do.

use std::path::PathBuf;
use std::sync::PoisonError;

use attune_model::SensorId;

use super::Dispatcher;
use crate::control::{Command, ControlReply, ControlRequest, SensorView};
use crate::log::CurrentFile;
use crate::notify::Stage;
use crate::supervisor::{Phase, Status};

impl Dispatcher {
    /// Answers at once; what was asked for is done by the comparison that follows. Says whether one is needed.
    pub(super) fn obey(&mut self, command: Command) -> bool {
        let Command { request, reply } = command;
        let answer = match request {
            ControlRequest::List => ControlReply::Sensors(self.views()),
            ControlRequest::Start(sensor_ref) => self.with(&sensor_ref, |host, sensor| {
                host.paused.remove(&sensor);
            }),
            ControlRequest::Stop(sensor_ref) => self.with(&sensor_ref, |host, sensor| {
                host.paused.insert(sensor);
            }),
            ControlRequest::Restart(sensor_ref) => self.with(&sensor_ref, |host, sensor| {
                host.paused.remove(&sensor);
                *host.restarts.entry(sensor).or_default() += 1;
            }),
        };
        let is_accepted = answer == ControlReply::Accepted;
        if is_accepted {
            // The store does not know what was asked for here.
            self.compared = None;
        }
        // Whoever asked may be gone.
        drop(reply.send(answer));
        is_accepted
    }

    fn with(&mut self, sensor_ref: &str, change: impl FnOnce(&mut Self, SensorId)) -> ControlReply {
        let Some(sensor) = self.known.get(sensor_ref).copied() else {
            return ControlReply::Refused(format!("there is no enabled sensor {sensor_ref}"));
        };
        change(self, sensor);
        ControlReply::Accepted
    }

    fn views(&self) -> Vec<SensorView> {
        self.known.iter().map(|(sensor_ref, sensor)| self.view(sensor_ref, *sensor)).collect()
    }

    fn view(&self, sensor_ref: &str, sensor: SensorId) -> SensorView {
        let paused = self.paused.contains(&sensor);
        let mut view = match self.owners.get(&sensor) {
            Some(owner) => view_of(&owner.status.borrow()),
            None => SensorView { state: "idle".to_owned(), ..SensorView::default() },
        };
        sensor_ref.clone_into(&mut view.sensor);
        if paused && view.pid.is_none() {
            "stopped".clone_into(&mut view.state);
            view.reason = Some("an operator stopped it".to_owned());
        } else if let Some(reason) = self.refused.get(&sensor) {
            view.reason = Some(reason.clone());
        }
        view
    }
}

fn view_of(status: &Status) -> SensorView {
    let state = match status.phase {
        Phase::Idle => "idle",
        Phase::Waiting => "waiting",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Backoff => "backoff",
    };
    SensorView {
        sensor: String::new(),
        state: state.to_owned(),
        pid: status.pid,
        ready: status.said.stage == Stage::Ready,
        status: status.said.status.clone(),
        failures: status.failures,
        rules: status.active_rules,
        reason: status.reason.clone(),
        stdout: path(&status.logs.0),
        stderr: path(&status.logs.1),
    }
}

fn path(file: &CurrentFile) -> Option<PathBuf> {
    file.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
