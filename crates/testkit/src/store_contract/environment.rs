//! Who builds which shared environment.

use std::time::Duration;

use attune_model::status::{PackEnvironmentStatus as Status, WorkerRole};
use attune_model::{PackEnvironmentId, WorkerId};
use attune_store::{EnvironmentOutcome, EnvironmentRow, EnvironmentTarget};
use futures_util::future::join_all;

use super::Lab;
use super::seed::{LONG, World, worker};

/// A registered environment and two workers that may build it.
struct Site {
    world: World,
    id: PackEnvironmentId,
    one: WorkerId,
    other: WorkerId,
}

impl Site {
    async fn new(lab: &dyn Lab, checksum: Option<&str>) -> Self {
        let world = World::new(lab).await;
        let other = worker("other", WorkerRole::Action);
        let other = world.store.register_worker(&other).await.unwrap().id;
        let row = world.store.upsert_environment(&target(&world, checksum)).await;
        Self { id: row.unwrap().id, one: world.worker.id, other, world }
    }

    async fn upsert(&self, checksum: Option<&str>) -> EnvironmentRow {
        let target = target(&self.world, checksum);
        self.world.store.upsert_environment(&target).await.unwrap()
    }

    async fn claim(&self, worker: WorkerId, lifetime: Duration) -> bool {
        let claim = self.world.store.claim_environment(self.id, worker, lifetime);
        claim.await.unwrap()
    }

    async fn renew(&self, worker: WorkerId) -> bool {
        let renewal = self.world.store.renew_environment_claim(self.id, worker, LONG);
        renewal.await.unwrap()
    }

    async fn ready(&self, worker: WorkerId, checksum: Option<&str>) -> bool {
        let outcome =
            EnvironmentOutcome::Ready { manifest_checksum: checksum.map(str::to_owned), log: "installed".to_owned() };
        let end = self.world.store.finish_environment(self.id, worker, &outcome);
        end.await.unwrap()
    }

    async fn failed(&self, worker: WorkerId) -> bool {
        let outcome = EnvironmentOutcome::Failed { error: "no network".to_owned(), log: "tried".to_owned() };
        let end = self.world.store.finish_environment(self.id, worker, &outcome);
        end.await.unwrap()
    }

    async fn mark_outdated(&self) {
        let mark = self.world.store.mark_environment_outdated(self.id);
        mark.await.unwrap();
    }

    async fn row(&self) -> EnvironmentRow {
        self.world.store.environment(self.id).await.unwrap().unwrap()
    }

    async fn state(&self) -> (Status, Option<WorkerId>) {
        let row = self.row().await;
        (row.status, row.claimed_by)
    }
}

fn target(world: &World, checksum: Option<&str>) -> EnvironmentTarget {
    EnvironmentTarget {
        pack: world.pack.id,
        pack_ref: "demo".to_owned(),
        runtime: world.action.runtime.unwrap(),
        runtime_ref: "demo.python".to_owned(),
        version: None,
        env_path: "/envs/demo/python".to_owned(),
        manifest_checksum: checksum.map(str::to_owned),
    }
}

/// Registering it again finds the same row.
pub async fn a_new_environment_is_pending_and_has_one_row(lab: &dyn Lab) {
    let site = Site::new(lab, Some("c1")).await;
    let first = site.row().await;
    assert_eq!((first.status, first.claim_expired), (Status::Pending, false));
    assert_eq!((first.claimed_by, first.claim_expires_at), (None, None));
    assert_eq!(first.install_error, None);
    assert_eq!(first.manifest_checksum.as_deref(), Some("c1"));
    assert_eq!(site.upsert(Some("c1")).await, first);
    let unknown = site.world.store.environment(PackEnvironmentId(4711)).await;
    assert_eq!(unknown.unwrap(), None);
}

/// They are built and fail independently.
pub async fn base_and_versions_have_rows_of_their_own(lab: &dyn Lab) {
    let site = Site::new(lab, None).await;
    let store = &site.world.store;
    let mut ids = vec![site.id];
    for version in store.runtime_versions().await.unwrap() {
        let mut target = target(&site.world, None);
        target.env_path = format!("/envs/demo/python-{}", version.version);
        target.version = Some((version.id, version.version));
        let row = store.upsert_environment(&target).await.unwrap();
        assert_eq!(store.upsert_environment(&target).await.unwrap().id, row.id);
        ids.push(row.id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// What is on disk was built from something else, or elsewhere.
pub async fn a_changed_manifest_or_path_makes_it_outdated(lab: &dyn Lab) {
    let site = Site::new(lab, None).await;
    let mut moved = target(&site.world, Some("c1"));
    moved.env_path.push_str("-elsewhere");
    let steps = [
        (None, target(&site.world, Some("c1"))),
        (Some("c1"), target(&site.world, None)),
        (None, target(&site.world, Some("c2"))),
        (Some("c1"), moved),
    ];
    for (built_from, changed) in steps {
        assert!(site.claim(site.one, LONG).await);
        assert!(site.ready(site.one, built_from).await);
        assert_eq!(site.state().await, (Status::Ready, None));
        let found = site.world.store.upsert_environment(&changed).await.unwrap();
        assert_eq!((found.id, found.status), (site.id, Status::Outdated), "{changed:?}");
        assert_eq!(found.manifest_checksum, changed.manifest_checksum);
    }
}

/// The builder finishes and the next look finds the difference.
pub async fn a_live_claim_is_left_alone_by_a_changed_manifest(lab: &dyn Lab) {
    let site = Site::new(lab, Some("c1")).await;
    assert!(site.claim(site.one, LONG).await);
    let found = site.upsert(Some("c2")).await;
    assert_eq!((found.status, found.claimed_by), (Status::Installing, Some(site.one)));
    assert!(found.claim_expires_at.is_some() && !found.claim_expired);
    assert!(site.ready(site.one, Some("c1")).await);
    assert_eq!(site.upsert(Some("c2")).await.status, Status::Outdated);

    // A claim that is over protects nothing.
    assert!(site.claim(site.one, Duration::ZERO).await);
    let found = site.upsert(Some("c3")).await;
    assert_eq!((found.status, found.claimed_by), (Status::Outdated, None));
    assert_eq!(found.claim_expires_at, None);
}

/// One builder at a time, across processes and hosts.
pub async fn of_twenty_builders_at_once_one_gets_the_claim(lab: &dyn Lab) {
    let site = Site::new(lab, None).await;
    let mut builders = Vec::new();
    for number in 0..20 {
        let builder = worker(&format!("builder-{number}"), WorkerRole::Action);
        builders.push(site.world.store.register_worker(&builder).await.unwrap().id);
    }
    let claims = join_all(builders.iter().map(|builder| site.claim(*builder, LONG))).await;
    let granted: Vec<_> = claims.iter().zip(builders).filter(|(granted, _)| **granted).collect();
    assert_eq!(granted.len(), 1);
    assert_eq!(site.state().await, (Status::Installing, Some(granted[0].1)));
}

/// Its builder died, or is too slow to be believed.
pub async fn an_expired_claim_is_taken_over_and_its_owner_has_lost_it(lab: &dyn Lab) {
    let site = Site::new(lab, None).await;
    assert!(site.claim(site.one, Duration::ZERO).await);
    assert!(site.row().await.claim_expired);
    assert!(site.claim(site.other, LONG).await);

    assert!(!site.renew(site.one).await);
    assert!(!site.ready(site.one, None).await);
    assert!(!site.failed(site.one).await);
    assert_eq!(site.state().await, (Status::Installing, Some(site.other)));
    assert!(!site.row().await.claim_expired);
    assert!(site.ready(site.other, None).await);
}

/// Every minute while it builds.
pub async fn a_claim_is_renewed_by_its_owner_only(lab: &dyn Lab) {
    let site = Site::new(lab, None).await;
    assert!(!site.renew(site.one).await, "not claimed yet");
    assert!(site.claim(site.one, Duration::from_micros(1)).await);
    assert!(site.renew(site.one).await);
    assert!(!site.renew(site.other).await);
    assert!(!site.claim(site.other, LONG).await, "it was renewed in time");
    let row = site.row().await;
    assert_eq!((row.claimed_by, row.claim_expired), (Some(site.one), false));
    let now = site.world.store.now().await.unwrap();
    assert!(row.claim_expires_at.unwrap() > now + LONG / 2);
    assert!(site.ready(site.one, None).await);
    assert!(!site.renew(site.one).await, "it is built");
}

/// One host without network must not keep the others from it.
pub async fn a_failed_build_may_be_tried_by_another_worker(lab: &dyn Lab) {
    let site = Site::new(lab, Some("c1")).await;
    assert!(site.claim(site.one, LONG).await);
    assert!(site.failed(site.one).await);
    let row = site.row().await;
    assert_eq!((row.status, row.claimed_by), (Status::Failed, None));
    assert_eq!(row.install_error.as_deref(), Some("no network"));
    assert_eq!(row.claim_expires_at, None);
    assert!(site.claim(site.other, LONG).await);
    assert!(site.ready(site.other, Some("c1")).await);
    let row = site.row().await;
    assert_eq!((row.status, row.claimed_by), (Status::Ready, None));
    assert_eq!((row.claim_expires_at, row.install_error), (None, None));
}

/// Usable somewhere is not usable here; but only what was built can be broken.
pub async fn a_broken_environment_is_built_again(lab: &dyn Lab) {
    let site = Site::new(lab, None).await;
    site.mark_outdated().await;
    assert_eq!(site.state().await, (Status::Pending, None));
    assert!(site.claim(site.one, LONG).await);
    site.mark_outdated().await;
    assert_eq!(site.state().await, (Status::Installing, Some(site.one)));
    assert!(site.ready(site.one, None).await);
    assert!(!site.claim(site.one, LONG).await, "it is ready");
    site.mark_outdated().await;
    assert_eq!(site.state().await, (Status::Outdated, None));
    assert!(site.claim(site.one, LONG).await);
}
