//! Files, events and a table that tests of this crate need.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use attune_model::activity::{Activity, Observer};
use attune_model::status::PackEnvironmentStatus;
use attune_model::{PackEnvironmentId, WorkerId};
use attune_store::{EnvironmentOutcome, EnvironmentRow, EnvironmentStore, EnvironmentTarget, StoreError};

/// Writes an executable shell script and makes the folders above it.
pub(crate) fn program(path: &Path, script: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// Keeps what was observed, as text.
#[derive(Debug, Default)]
pub(crate) struct Events(Mutex<Vec<String>>);

impl Events {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Events {
    fn observe(&self, activity: Activity) {
        let text = match activity {
            Activity::EnvironmentStarted { runtime, step, .. } => {
                format!("started {runtime}: {step}")
            }
            Activity::EnvironmentFinished { runtime, error: None, .. } => format!("finished {runtime}"),
            Activity::EnvironmentFinished { runtime, error: Some(error), .. } => format!("finished {runtime}: {error}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

/// `pack_environment` with one row, whose claims do not expire.
#[derive(Debug, Default)]
pub(crate) struct TableOfOne(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    row: Option<EnvironmentRow>,
    history: Vec<String>,
    looks: usize,
}

impl Table {
    fn set(&mut self, status: PackEnvironmentStatus, claimed_by: Option<WorkerId>) {
        let row = self.row.as_mut().expect("the row was inserted");
        row.status = status;
        row.claimed_by = claimed_by;
        let by = claimed_by.map(|worker| format!(" by {worker}")).unwrap_or_default();
        self.history.push(format!("{}{by}", status.as_str()));
    }
}

impl TableOfOne {
    pub(crate) fn claimed_by(worker: WorkerId) -> Self {
        let row = EnvironmentRow { status: PackEnvironmentStatus::Installing, claimed_by: Some(worker), ..empty_row() };
        Self(Mutex::new(Table { row: Some(row), ..Table::default() }))
    }

    pub(crate) fn row(&self) -> EnvironmentRow {
        self.0.lock().unwrap().row.clone().unwrap()
    }

    pub(crate) fn history(&self) -> Vec<String> {
        self.0.lock().unwrap().history.clone()
    }

    pub(crate) fn looks(&self) -> usize {
        self.0.lock().unwrap().looks
    }
}

fn empty_row() -> EnvironmentRow {
    EnvironmentRow {
        id: PackEnvironmentId(1),
        status: PackEnvironmentStatus::Pending,
        manifest_checksum: None,
        claimed_by: None,
        claim_expires_at: None,
        claim_expired: false,
        install_error: None,
    }
}

#[async_trait::async_trait]
impl EnvironmentStore for TableOfOne {
    async fn upsert_environment(&self, target: &EnvironmentTarget) -> Result<EnvironmentRow, StoreError> {
        let mut table = self.0.lock().unwrap();
        if table.row.is_none() {
            table.row = Some(empty_row());
            table.set(PackEnvironmentStatus::Pending, None);
        }
        let row = table.row.as_mut().unwrap();
        row.manifest_checksum.clone_from(&target.manifest_checksum);
        Ok(row.clone())
    }

    async fn environment(&self, _id: PackEnvironmentId) -> Result<Option<EnvironmentRow>, StoreError> {
        let mut table = self.0.lock().unwrap();
        table.looks += 1;
        Ok(table.row.clone())
    }

    async fn claim_environment(
        &self,
        _id: PackEnvironmentId,
        worker: WorkerId,
        _lifetime: Duration,
    ) -> Result<bool, StoreError> {
        use PackEnvironmentStatus::{Failed, Outdated, Pending};
        let mut table = self.0.lock().unwrap();
        let free = matches!(table.row.as_ref().unwrap().status, Pending | Failed | Outdated);
        if free {
            table.set(PackEnvironmentStatus::Installing, Some(worker));
        }
        Ok(free)
    }

    async fn renew_environment_claim(
        &self,
        _id: PackEnvironmentId,
        worker: WorkerId,
        _lifetime: Duration,
    ) -> Result<bool, StoreError> {
        Ok(self.row().claimed_by == Some(worker))
    }

    async fn mark_environment_outdated(&self, _id: PackEnvironmentId) -> Result<(), StoreError> {
        self.0.lock().unwrap().set(PackEnvironmentStatus::Outdated, None);
        Ok(())
    }

    async fn finish_environment(
        &self,
        _id: PackEnvironmentId,
        worker: WorkerId,
        outcome: &EnvironmentOutcome,
    ) -> Result<bool, StoreError> {
        let mine = self.row().claimed_by == Some(worker);
        if mine {
            let status = match outcome {
                EnvironmentOutcome::Ready { .. } => PackEnvironmentStatus::Ready,
                EnvironmentOutcome::Failed { .. } => PackEnvironmentStatus::Failed,
            };
            self.0.lock().unwrap().set(status, None);
        }
        Ok(mine)
    }
}
