//! What an operator asks this host to do.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use attune_model::SensorId;

use super::Dispatcher;
use crate::control::{Command, ControlReply, ControlRequest, SensorView};
use crate::log::CurrentFile;
use crate::notify::Stage;
use crate::supervisor::{Phase, Status, Wish};

impl Dispatcher {
    /// Answers at once from what this host knows, also while its store hangs. Stops and restarts are begun at once as well; a start
    /// is done by the comparison that follows. Says whether one is needed.
    pub(super) fn obey(&mut self, command: Command) -> bool {
        let Command { request, reply } = command;
        if reply.is_closed() {
            // Whoever asked was told that nothing was done.
            return false;
        }
        let answer = match request {
            _ if !self.has_read => ControlReply::Refused(format!(
                "nothing was done: this host has not read from its database yet which sensors there are{}",
                self.sight.problem().map(|problem| format!(" ({problem})")).unwrap_or_default()
            )),
            ControlRequest::List => ControlReply::Sensors(self.views()),
            ControlRequest::Start(sensor_ref) => self.with(&sensor_ref, Self::start),
            ControlRequest::Stop(sensor_ref) => self.with(&sensor_ref, Self::pause),
            ControlRequest::Restart(sensor_ref) => self.with(&sensor_ref, Self::restart),
        };
        let is_asked = matches!(answer, ControlReply::Accepted | ControlReply::Later(_));
        if is_asked {
            // The store does not know what was asked for here.
            self.compared = None;
        }
        // Whoever asked may be gone.
        drop(reply.send(answer));
        is_asked
    }

    fn with(&mut self, sensor_ref: &str, change: impl FnOnce(&mut Self, SensorId) -> ControlReply) -> ControlReply {
        match self.known.get(sensor_ref).copied() {
            Some(sensor) => change(self, sensor),
            None => ControlReply::Refused(format!("there is no enabled sensor {sensor_ref}")),
        }
    }

    fn pause(&mut self, sensor: SensorId) -> ControlReply {
        self.paused.insert(sensor);
        if let Some(owner) = self.owners.get(&sensor) {
            owner.wish.send_replace(Wish::Rest { active_rules: None });
        }
        ControlReply::Accepted
    }

    fn start(&mut self, sensor: SensorId) -> ControlReply {
        let is_wanted = self.owners.get(&sensor).is_some_and(|owner| owner.wish.borrow().target().is_some());
        self.paused.remove(&sensor);
        match self.sight.problem().filter(|_| !is_wanted) {
            None => ControlReply::Accepted,
            Some(problem) => ControlReply::Later(format!(
                "this host waits for its database ({problem}); it starts the sensor as soon as that answers, if it is still wanted"
            )),
        }
    }

    fn restart(&mut self, sensor: SensorId) -> ControlReply {
        let restarts = self.restarts.entry(sensor).or_default();
        *restarts += 1;
        let restarts = *restarts;
        if let Some(owner) = self.owners.get(&sensor) {
            owner.wish.send_if_modified(|wish| {
                let again = wish.target().map(|target| Arc::new(target.restarted(restarts)));
                again.map(|again| *wish = Wish::Run(again)).is_some()
            });
        }
        self.start(sensor)
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
