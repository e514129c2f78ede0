//! Executions and workers to choices.

use attune_model::rows::{Execution, Retention, Worker};
use attune_model::status::{ExecutionStatus, OutputFormat, ParameterDelivery, ParameterFormat, WorkerRole, WorkerType};
use attune_model::{ActionId, ExecutionId, PackId, RuntimeId};
use chrono::DateTime;
use serde_json::json;

use super::*;

fn runtime(name: &str) -> Runtime {
    Runtime {
        id: RuntimeId(1),
        r#ref: format!("core.{}", name.to_lowercase()),
        pack: None,
        pack_ref: None,
        description: None,
        name: name.into(),
        aliases: Vec::new(),
        distributions: json!({}),
        execution_config: json!({}),
    }
}

fn wanted(runtime_name: Option<&str>) -> Schedulable {
    let runtime = runtime_name.map(runtime);
    let time = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let action = Action {
        id: ActionId(4),
        r#ref: "web.deploy".into(),
        pack: PackId(1),
        pack_ref: "web".into(),
        label: String::new(),
        description: None,
        entrypoint: String::new(),
        runtime: runtime.as_ref().map(|runtime| runtime.id),
        param_schema: None,
        out_schema: None,
        parameter_delivery: ParameterDelivery::Stdin,
        parameter_format: ParameterFormat::Json,
        output_format: OutputFormat::Text,
        is_adhoc: false,
        timeout_seconds: None,
        runtime_version_constraint: None,
        required_worker_runtimes: json!({}),
        placement: RawPlacement::default(),
        default_execution_permission_set_refs: Vec::new(),
        log_retention: Retention::default(),
    };
    let execution = Execution {
        id: ExecutionId(1),
        action: Some(action.id),
        action_ref: action.r#ref.clone(),
        config: None,
        env_vars: None,
        parent: None,
        enforcement: None,
        executor: None,
        permission_set_refs: Vec::new(),
        worker: None,
        status: ExecutionStatus::Scheduling,
        result: None,
        started_at: None,
        workflow_task: None,
        created: time,
        updated: time,
    };
    Schedulable { execution, placement: PlacementOverride::default(), action: Some(action), runtime }
}

fn worker(id: i64, capabilities: Value) -> Candidate {
    let Value::Object(capabilities) = capabilities else { panic!("capabilities are an object") };
    let worker = Worker {
        id: WorkerId(id),
        name: format!("w{id}"),
        role: WorkerRole::Action,
        worker_type: WorkerType::Local,
        host: None,
        status: WorkerStatus::Active,
        capabilities,
        last_heartbeat: None,
        cordoned: false,
    };
    Candidate { worker, heartbeat_age: Some(Duration::from_secs(5)), load: 0 }
}

fn python(id: i64, version: &str) -> Candidate {
    worker(id, json!({"runtimes": ["python", "shell"], "runtime_versions": {"python": [version]}}))
}

fn chooser() -> Chooser {
    Chooser::new(Duration::from_secs(90))
}

#[track_caller]
fn never(execution: &Schedulable, workers: &[Candidate], part: &str) {
    match chooser().choose(execution, workers) {
        Choice::Never(reason) => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn not_now(workers: &[Candidate], part: &str) {
    match chooser().choose(&wanted(Some("Python")), workers) {
        Choice::NotNow(reason) => assert!(reason.contains(part), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_with_the_runtime_is_chosen_in_any_spelling() {
    let ruby = worker(1, json!({"runtimes": ["ruby"]}));
    let workers = [ruby, worker(2, json!({"runtimes": ["Python3"]}))];
    assert_eq!(chooser().choose(&wanted(Some("Python")), &workers), Choice::Worker(WorkerId(2)));
    assert_eq!(chooser().choose(&wanted(None), &workers), Choice::Worker(WorkerId(1)));
}

#[test]
fn what_is_missing_is_named_for_each_worker() {
    let workers = [worker(1, json!({"runtimes": ["shell"]})), worker(2, json!({}))];
    never(&wanted(Some("Python")), &workers, "worker w1: runtime Python is missing, it has shell");
    never(&wanted(Some("Python")), &workers, "worker w2: runtime Python is missing, it has none");
    let many: Vec<Candidate> = (1..=9).map(|id| worker(id, json!({}))).collect();
    never(&wanted(Some("Python")), &many, "and 4 more");
}

#[test]
fn versions_must_satisfy_the_constraint() {
    let mut execution = wanted(Some("Python"));
    let constrain = |execution: &mut Schedulable, text: &str| {
        execution.action.as_mut().unwrap().runtime_version_constraint = Some(text.to_owned());
    };
    constrain(&mut execution, ">=3.12");
    let workers = [python(1, "3.11.4"), python(2, "3.12.1")];
    assert_eq!(chooser().choose(&execution, &workers), Choice::Worker(WorkerId(2)));
    never(&execution, &workers[..1], "has version 3.11.4, wanted is >=3.12");
    constrain(&mut execution, "newest");
    never(&execution, &workers, "action web.deploy: version constraint \"newest\"");
}

#[test]
fn other_required_runtimes_count_too() {
    let mut execution = wanted(None);
    execution.action.as_mut().unwrap().required_worker_runtimes = json!({"python3": ">=3.12", "bash": "*"});
    assert_eq!(chooser().choose(&execution, &[python(1, "3.12.0")]), Choice::Worker(WorkerId(1)));
    never(&execution, &[python(1, "3.9.0")], "wanted is >=3.12");
    execution.action.as_mut().unwrap().required_worker_runtimes = json!({"python": null});
    never(&execution, &[python(1, "3.12.0")], "required_worker_runtimes.python is not a text");
}

#[test]
fn the_execution_s_placement_replaces_the_action_s() {
    let mut execution = wanted(None);
    execution.action.as_mut().unwrap().placement.selector = json!({"zone": "a"});
    let workers = [worker(1, json!({"labels": {"zone": "a"}})), worker(2, json!({"labels": {"zone": "b"}}))];
    assert_eq!(chooser().choose(&execution, &workers), Choice::Worker(WorkerId(1)));
    execution.placement.selector = Some(json!({"zone": "b"}));
    assert_eq!(chooser().choose(&execution, &workers), Choice::Worker(WorkerId(2)));
    execution.placement.selector = Some(json!({"zone": "c"}));
    never(&execution, &workers, "worker_selector wants label zone=c");
    execution.placement.selector = Some(json!("zone"));
    never(&execution, &workers, "action web.deploy: worker_selector");
}

#[test]
fn a_worker_that_fits_but_cannot_take_work_is_waited_for() {
    let mut inactive = python(1, "3.12.0");
    inactive.worker.status = WorkerStatus::Inactive;
    not_now(&[inactive], "worker w1 is inactive");
    let mut cordoned = python(1, "3.12.0");
    cordoned.worker.cordoned = true;
    not_now(&[cordoned], "worker w1 is cordoned");
    let mut silent = python(1, "3.12.0");
    silent.heartbeat_age = Some(Duration::from_secs(91));
    not_now(&[silent], "worker w1 gave its last sign of life 91 s ago");
    let mut new = python(1, "3.12.0");
    new.heartbeat_age = None;
    not_now(&[new], "never gave a sign of life");
    not_now(&[], "no action worker is registered yet");
}

#[test]
fn preference_comes_before_load_and_load_before_turn() {
    let mut execution = wanted(None);
    let prefer = json!({"preferred": [{"weight": 10, "preference": {"match_labels": {"fast": "yes"}}}]});
    let fast = json!({"labels": {"fast": "yes"}});
    let (mut first, mut second, third) = (worker(1, fast.clone()), worker(2, fast), worker(3, json!({})));
    first.load = 5;
    second.load = 2;
    let workers = [first, second, third];
    assert_eq!(chooser().choose(&execution, &workers), Choice::Worker(WorkerId(3)));
    execution.placement.affinity = Some(prefer);
    assert_eq!(chooser().choose(&execution, &workers), Choice::Worker(WorkerId(2)));
}

#[test]
fn equals_take_turns() {
    let mut chooser = chooser();
    let workers = [worker(1, json!({})), worker(2, json!({})), worker(3, json!({}))];
    let chosen: Vec<Choice> = (0..4).map(|_| chooser.choose(&wanted(None), &workers)).collect();
    assert_eq!(chosen, [1, 2, 3, 1].map(|id| Choice::Worker(WorkerId(id))));
}

#[test]
fn an_action_or_runtime_that_is_gone_cannot_run() {
    let workers = [python(1, "3.12.0")];
    let mut execution = wanted(Some("Python"));
    execution.runtime = None;
    never(&execution, &workers, "its runtime does not exist any more");
    execution.action = None;
    never(&execution, &workers, "action web.deploy does not exist any more");
}
