//! What this host needs of the packs of the installation: their files, where the folder is not shared, and the environments
//! that their actions run in, built before somebody waits for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use attune_http::PackSync;
use attune_lifecycle::spawn_blocking;
use attune_model::RuntimeId;
use attune_model::chain;
use attune_model::rows::{Action, Pack, Runtime, RuntimeVersion};
use attune_model::runtime_name::{fold, is_advertised, names_of};
use attune_runtime::environment::EnvironmentError;
use attune_store::StoreError;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::shared::Shared;

/// How long packs are fetched at the start. What is missing afterwards is fetched when it is needed.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Fetches the packs that are not here, before somebody needs them, and removes what killed lives left of others.
pub(crate) async fn fetch_missing(shared: &Arc<Shared>) {
    let Some(sync) = shared.pack_sync() else { return };
    let own = shared.clone();
    let swept = spawn_blocking(move || own.pack_sync().map_or(Ok(()), PackSync::sweep)).await;
    if let Ok(Err(error)) = swept {
        tracing::debug!(%error, "rests of packs could not be looked for");
    }
    let known = match shared.store.packs_with_actions(None).await {
        Ok(known) => known,
        Err(error) => {
            tracing::warn!(error = chain(&error), "packs cannot be read; they are fetched when they are needed");
            return;
        }
    };
    let fetching = async {
        for (pack, _) in &known {
            match sync.ensure(&pack.r#ref).await {
                Ok(()) => {}
                // An API that is away is asked again by whoever needs the pack.
                Err(error) => {
                    tracing::warn!(pack = pack.r#ref, error = chain(&error), "pack could not be fetched");
                }
            }
        }
    };
    let fetched = tokio::select! {
        () = shared.stop.soft().cancelled() => return,
        fetched = timeout(START_LIMIT, fetching) => fetched,
    };
    if fetched.is_err() {
        tracing::warn!(
            limit_s = START_LIMIT.as_secs(),
            "packs are still missing; they are fetched when they are needed"
        );
    }
}

/// Builds the environments of a pack, or of all packs, that this host can build and others have not built. Those of other
/// images are left to other hosts. Ends early, in order, at the soft stop.
pub(crate) async fn build_environments(shared: &Shared, pack_ref: Option<&str>) {
    match read(shared, pack_ref).await {
        Ok(Read { packs, runtimes, versions }) => {
            let mut patience = START_LIMIT;
            for (pack, actions) in &packs {
                if !is_here(shared, &pack.r#ref, &mut patience).await {
                    continue;
                }
                for (runtime, constraints) in needs(actions, &runtimes) {
                    build(shared, pack, (runtime, &versions), &constraints).await;
                }
            }
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "environments are built when they are needed: packs cannot be read");
        }
    }
}

/// Whether the files of a pack are here, fetched if need be: without its manifest its environments would be others.
async fn is_here(shared: &Shared, pack_ref: &str, patience: &mut Duration) -> bool {
    let Some(sync) = shared.pack_sync() else { return true };
    let begun = Instant::now();
    let fetched = tokio::select! {
        () = shared.stop.soft().cancelled() => return false,
        fetched = timeout(*patience, sync.ensure(pack_ref)) => fetched,
    };
    *patience = patience.saturating_sub(begun.elapsed());
    let problem = match fetched {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => chain(&error),
        Err(_elapsed) => "the API does not answer".to_owned(),
    };
    tracing::warn!(pack = pack_ref, problem, "environments are built when they are needed: the pack is not here");
    false
}

struct Read {
    packs: Vec<(Pack, Vec<Action>)>,
    runtimes: Vec<Runtime>,
    versions: Vec<RuntimeVersion>,
}

async fn read(shared: &Shared, pack_ref: Option<&str>) -> Result<Read, StoreError> {
    Ok(Read {
        packs: shared.store.packs_with_actions(pack_ref).await?,
        runtimes: shared.store.runtimes().await?,
        versions: shared.store.runtime_versions().await?,
    })
}

async fn build(
    shared: &Shared,
    pack: &Pack,
    (runtime, versions): (&Runtime, &[RuntimeVersion]),
    constraints: &[String],
) {
    let advertised = shared.executor.advertised();
    if !advertised.runtimes.is_empty() && !is_advertised(runtime, &advertised.runtimes) {
        return;
    }
    let Some(planner) = shared.executor.planner(&pack.r#ref) else { return };
    let own: Vec<&RuntimeVersion> = versions.iter().filter(|version| version.runtime == runtime.id).collect();
    for target in planner.environments(&pack.r#ref, runtime, &own, constraints) {
        let stop = shared.stop.soft();
        if stop.is_cancelled() {
            return;
        }
        let claims = shared.claims().of_pack(pack.id);
        match shared.executor.environments.ensure(&target, Some(claims), stop.cancelled()).await {
            Ok(_) => {}
            Err(EnvironmentError::Cancelled { .. }) => return,
            Err(error) => {
                tracing::warn!(
                    pack = pack.r#ref,
                    runtime = target.label,
                    error = chain(&error),
                    "environment is not ready"
                );
            }
        }
    }
}

/// The runtimes that the actions use, with the constraints on their versions; an empty one is none.
fn needs<'a>(actions: &[Action], runtimes: &'a [Runtime]) -> Vec<(&'a Runtime, Vec<String>)> {
    let mut needs: BTreeMap<RuntimeId, Vec<String>> = BTreeMap::new();
    for action in actions {
        if let Some(runtime) = action.runtime {
            needs.entry(runtime).or_default().push(action.runtime_version_constraint.clone().unwrap_or_default());
        }
        let required = action.required_worker_runtimes.as_object();
        for (name, constraint) in required.into_iter().flatten() {
            let name = fold(name);
            let text = constraint.as_str().filter(|text| *text != "*").unwrap_or_default();
            // A constraint that is no text fits no worker.
            if !matches!(constraint, Value::String(_)) {
                continue;
            }
            for runtime in runtimes.iter().filter(|runtime| names_of(runtime).contains(&name)) {
                needs.entry(runtime.id).or_default().push(text.to_owned());
            }
        }
    }
    runtimes.iter().filter_map(|runtime| Some((runtime, needs.remove(&runtime.id)?))).collect()
}
