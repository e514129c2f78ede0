//! Artifacts and their versions, as the API keeps them.

use std::sync::Arc;

use attune_model::rows::Artifact;
use attune_model::status::{ArtifactType, ArtifactVisibility, OwnerType, RetentionPolicy};
use attune_model::{ArtifactId, ArtifactVersionId, ExecutionId};
use attune_store::{ArtifactChange, LogArtifact, NewArtifact, NewVersion, PageRequest, VersionContent, VersionNumber};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Lab, Store};

const NOBODY: ArtifactId = ArtifactId(4711);

const FIRST: PageRequest = PageRequest { page: 1, page_size: 50 };

fn new(r#ref: &str, limit: i32) -> NewArtifact {
    NewArtifact {
        r#ref: r#ref.to_owned(),
        scope: OwnerType::Action,
        owner: "demo.echo".to_owned(),
        r#type: ArtifactType::FileText,
        visibility: ArtifactVisibility::Private,
        name: Some("Report".to_owned()),
        description: None,
        content_type: None,
        data: None,
        retention_policy: RetentionPolicy::Versions,
        retention_limit: limit,
    }
}

fn version(content: VersionContent) -> NewVersion {
    NewVersion {
        execution: Some(ExecutionId(7)),
        content_type: Some("text/csv".to_owned()),
        content,
        meta: Some(json!({"rows": 2})),
        created_by: Some("execution:7".to_owned()),
    }
}

fn file() -> NewVersion {
    version(VersionContent::File { extension: "csv" })
}

async fn made(store: &Arc<dyn Store>, limit: i32) -> Artifact {
    store.create_artifact(&new("demo.report", limit)).await.unwrap().unwrap()
}

/// Every column comes back as it was given.
pub async fn an_artifact_is_made_once_and_found_by_id_and_ref(lab: &dyn Lab) {
    let store = lab.store();
    let given = NewArtifact {
        scope: OwnerType::Pack,
        owner: "demo".to_owned(),
        r#type: ArtifactType::Url,
        visibility: ArtifactVisibility::Public,
        description: Some("Where it is".to_owned()),
        content_type: Some("text/uri-list".to_owned()),
        data: Some(json!({"url": "http://here"})),
        retention_policy: RetentionPolicy::Days,
        ..new("demo.report", 3)
    };
    let artifact = store.create_artifact(&given).await.unwrap().unwrap();
    let found = NewArtifact {
        r#ref: artifact.r#ref.clone(),
        scope: artifact.scope,
        owner: artifact.owner.clone(),
        r#type: artifact.r#type,
        visibility: artifact.visibility,
        name: artifact.name.clone(),
        description: artifact.description.clone(),
        content_type: artifact.content_type.clone(),
        data: artifact.data.clone(),
        retention_policy: artifact.retention_policy,
        retention_limit: artifact.retention_limit,
    };
    assert_eq!((found, artifact.size_bytes), (given.clone(), None));
    assert_eq!(store.artifact(artifact.id).await.unwrap().as_ref(), Some(&artifact));
    assert_eq!(store.artifact_of_ref("demo.report").await.unwrap().as_ref(), Some(&artifact));
    assert_eq!(store.create_artifact(&given).await.unwrap(), None);
    assert_eq!(store.artifact(NOBODY).await.unwrap(), None);
    assert_eq!(store.artifact_of_ref("demo.nothing").await.unwrap(), None);
}

/// Also when logs of the same ref are filed meanwhile.
pub async fn of_twenty_makers_at_once_one_makes_it(lab: &dyn Lab) {
    let store = lab.store();
    let wanted = new("demo.report", 3);
    let log = LogArtifact {
        r#ref: wanted.r#ref.clone(),
        scope: OwnerType::Action,
        owner: "demo.echo".to_owned(),
        name: "log".to_owned(),
        description: "log".to_owned(),
        retention_policy: RetentionPolicy::Versions,
        retention_limit: 3,
        execution: None,
        meta: json!({}),
        created_by: "worker",
    };
    let makers = join_all((0..20).map(|_| store.create_artifact(&wanted)));
    let (made, logged) = futures_util::join!(makers, store.add_log_version(&log));
    assert_eq!(logged.unwrap().version, 1);
    let made = made.into_iter().filter_map(Result::unwrap).count();
    assert!(made <= 1, "{made}");
    assert_eq!(lab.number("SELECT count(*) FROM artifact").await, 1);
}

/// What is not named stays.
pub async fn a_change_of_an_artifact_leaves_the_rest(lab: &dyn Lab) {
    let store = lab.store();
    let before = made(&store, 3).await;
    let change = ArtifactChange {
        description: Some("Twice a day".to_owned()),
        visibility: Some(ArtifactVisibility::Public),
        ..ArtifactChange::default()
    };
    let after = store.change_artifact(before.id, &change).await.unwrap().unwrap();
    let expected = Artifact {
        description: change.description.clone(),
        visibility: ArtifactVisibility::Public,
        updated: after.updated,
        ..before.clone()
    };
    assert_eq!(after, expected);
    assert!(after.updated >= before.updated);
    let rest = ArtifactChange {
        name: Some("Bericht".to_owned()),
        content_type: Some("text/csv".to_owned()),
        retention_policy: Some(RetentionPolicy::Hours),
        retention_limit: Some(5),
        ..ArtifactChange::default()
    };
    let after = store.change_artifact(before.id, &rest).await.unwrap().unwrap();
    assert_eq!((after.name.as_deref(), after.content_type.as_deref()), (Some("Bericht"), Some("text/csv")));
    assert_eq!((after.retention_policy, after.retention_limit), (RetentionPolicy::Hours, 5));
    assert_eq!(store.change_artifact(NOBODY, &rest).await.unwrap(), None);
}

/// Many tell how far they are at the same time.
pub async fn no_entry_of_progress_is_lost(lab: &dyn Lab) {
    let store = lab.store();
    let id = made(&store, 3).await.id;
    let entries: Vec<Value> = (0..20).map(|at| json!({"percent": at, "message": "ünï"})).collect();
    for added in join_all(entries.iter().map(|entry| store.add_progress(id, entry))).await {
        added.unwrap().unwrap();
    }
    let data = store.artifact(id).await.unwrap().unwrap().data.unwrap();
    let mut found = data.as_array().unwrap().clone();
    found.sort_by_key(|entry| entry["percent"].as_i64());
    assert_eq!(found, entries);
    let replaced = store.set_artifact_data(id, &json!({"done": true})).await.unwrap().unwrap();
    assert_eq!(replaced.data, Some(json!({"done": true})));
    let begun = store.add_progress(id, &json!([1, "two"])).await.unwrap().unwrap();
    assert_eq!(begun.data, Some(json!([[1, "two"]])), "what is no list is replaced by one");
    assert_eq!(store.add_progress(NOBODY, &json!(1)).await.unwrap(), None);
    assert_eq!(store.set_artifact_data(NOBODY, &json!(1)).await.unwrap(), None);
}

/// Bytes, a document, a file.
pub async fn a_version_holds_what_was_given(lab: &dyn Lab) {
    let store = lab.store();
    let id = made(&store, 10).await.id;
    let bytes: Vec<u8> = (0..=255).collect();
    let given = [
        version(VersionContent::Bytes(bytes.clone())),
        version(VersionContent::Json(json!({"b": 1, "a": [null]}))),
        NewVersion { execution: None, content_type: None, meta: None, created_by: None, ..file() },
    ];
    for (number, given) in (1..).zip(&given) {
        let added = store.add_version(id, given).await.unwrap().unwrap();
        assert_eq!((added.version.artifact, added.version.version), (id, number));
        assert_eq!(added.version.execution, given.execution);
        assert_eq!((&added.version.meta, &added.version.created_by), (&given.meta, &given.created_by));
        assert_eq!(
            (&added.version.content_type, added.version.size_bytes),
            (&given.content_type, given.content.size())
        );
        assert_eq!(added.expired_files, Vec::<String>::new());
        let found = store.version(id, VersionNumber::Number(number)).await.unwrap();
        assert_eq!(found.as_ref(), Some(&added.version));
        let held = store.version_bytes(added.version.id).await.unwrap();
        assert_eq!(held, (number == 1).then(|| bytes.clone()));
    }
    let artifact = store.artifact(id).await.unwrap().unwrap();
    assert_eq!((artifact.size_bytes, artifact.content_type.as_deref()), (None, Some("text/csv")));
    let latest = store.version(id, VersionNumber::Latest).await.unwrap().unwrap();
    assert_eq!((latest.version, latest.file_path.as_deref()), (3, Some("demo/report/v3.csv")));
    let document = store.version(id, VersionNumber::Number(2)).await.unwrap().unwrap();
    assert_eq!(document.content_json, Some(json!({"a": [null], "b": 1})));
    assert_eq!(store.version(id, VersionNumber::Number(4)).await.unwrap(), None);
    assert_eq!(store.version(NOBODY, VersionNumber::Latest).await.unwrap(), None);
    assert_eq!(store.version_bytes(ArtifactVersionId(4711)).await.unwrap(), None);
    assert_eq!(store.add_version(NOBODY, &file()).await.unwrap(), None);
}

/// Numbers are given out once, whoever asks.
pub async fn versions_added_at_once_differ(lab: &dyn Lab) {
    let store = lab.store();
    let id = made(&store, 100).await.id;
    let file = file();
    let added = join_all((0..20).map(|_| store.add_version(id, &file))).await;
    let mut numbers: Vec<i32> = added.into_iter().map(|added| added.unwrap().unwrap().version.version).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

/// The caller learns which files have no version any more.
pub async fn versions_beyond_the_limit_go_and_name_their_files(lab: &dyn Lab) {
    let store = lab.store();
    let id = made(&store, 2).await.id;
    for expired in [&[][..], &[], &["demo/report/v1.csv"], &["demo/report/v2.csv"]] {
        assert_eq!(store.add_version(id, &file()).await.unwrap().unwrap().expired_files, expired);
    }
    let found = store.versions(id, FIRST).await.unwrap();
    assert_eq!(found.items.iter().map(|version| version.version).collect::<Vec<_>>(), [4, 3]);
    let change = ArtifactChange { retention_policy: Some(RetentionPolicy::Days), ..ArtifactChange::default() };
    store.change_artifact(id, &change).await.unwrap().unwrap();
    assert_eq!(store.add_version(id, &file()).await.unwrap().unwrap().expired_files, Vec::<String>::new());
    let second = store.versions(id, PageRequest { page: 2, page_size: 2 }).await.unwrap();
    assert_eq!((second.total, second.items.len(), second.items[0].version), (3, 1, 3));
}

/// Content and versions go with it.
pub async fn a_removed_artifact_names_its_files(lab: &dyn Lab) {
    let store = lab.store();
    let id = made(&store, 10).await.id;
    for version in [file(), version(VersionContent::Bytes(vec![1])), file()] {
        store.add_version(id, &version).await.unwrap().unwrap();
    }
    let files = store.delete_artifact(id).await.unwrap().unwrap();
    assert_eq!(files, ["demo/report/v1.csv", "demo/report/v3.csv"]);
    assert_eq!(lab.number("SELECT count(*) FROM artifact_version").await, 0);
    assert_eq!(store.delete_artifact(id).await.unwrap(), None);
    let empty = made(&store, 10).await.id;
    assert_eq!(store.delete_artifact(empty).await.unwrap(), Some(Vec::new()));
}

/// An artifact counts once, however many versions of it an execution made.
pub async fn an_execution_is_asked_for_its_artifacts(lab: &dyn Lab) {
    let store = lab.store();
    let report = made(&store, 10).await.id;
    let other = store.create_artifact(&new("demo.other", 10)).await.unwrap().unwrap().id;
    for (artifact, execution) in [(other, 7), (report, 7), (report, 7), (report, 8)] {
        let version = NewVersion { execution: Some(ExecutionId(execution)), ..file() };
        store.add_version(artifact, &version).await.unwrap().unwrap();
    }
    let of = async |execution| {
        let found = store.execution_artifacts(ExecutionId(execution), FIRST).await.unwrap();
        (found.total, found.items.into_iter().map(|artifact| artifact.id).collect::<Vec<_>>())
    };
    assert_eq!(of(7).await, (2, vec![report, other]));
    assert_eq!(of(8).await, (1, vec![report]));
    assert_eq!(of(9).await, (0, vec![]));
    let second = PageRequest { page: 2, page_size: 1 };
    assert_eq!(store.execution_artifacts(ExecutionId(7), second).await.unwrap().items[0].id, other);
}
