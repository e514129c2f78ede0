//! Rules and events to enforcements.

use attune_model::rows::{Pack, RawPlacement, Retention, Rule};
use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat};
use attune_model::{ActionId, EventId, PackId, RuleId, Secret, TriggerId};
use attune_security::redacted;

use super::*;

fn time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn key() -> SealingKey {
    SealingKey::new(&Secret::new("k".repeat(32))).unwrap()
}

fn event(payload: Value) -> Event {
    Event {
        id: EventId(7),
        trigger: Some(TriggerId(3)),
        trigger_ref: "web.hook".into(),
        config: None,
        payload: Some(payload),
        source: None,
        source_ref: None,
        rule: None,
        rule_ref: None,
        created: time(),
    }
}

fn action(param_schema: Value) -> Action {
    Action {
        id: ActionId(4),
        r#ref: "web.deploy".into(),
        pack: PackId(1),
        pack_ref: "web".into(),
        label: "Deploy".into(),
        description: None,
        entrypoint: "deploy.sh".into(),
        runtime: None,
        param_schema: Some(param_schema),
        out_schema: None,
        parameter_delivery: ParameterDelivery::Stdin,
        parameter_format: ParameterFormat::Json,
        output_format: OutputFormat::Text,
        is_adhoc: false,
        timeout_seconds: None,
        runtime_version_constraint: None,
        required_worker_runtimes: Value::Null,
        placement: RawPlacement::default(),
        default_execution_permission_set_refs: vec!["standard".into()],
        log_retention: Retention::default(),
    }
}

fn target(params: Value, action: Option<Action>) -> RuleTarget {
    let rule = Rule {
        id: RuleId(9),
        r#ref: "web.rule".into(),
        pack: PackId(1),
        pack_ref: "web".into(),
        label: String::new(),
        description: None,
        action: action.as_ref().map(|action| action.id),
        action_ref: "web.deploy".into(),
        trigger: Some(TriggerId(3)),
        trigger_ref: "web.hook".into(),
        conditions: json!([]),
        action_params: params,
        trigger_params: Value::Null,
        permission_set_refs: None,
        enabled: true,
        created: time(),
        updated: time(),
    };
    let pack = Pack {
        id: PackId(1),
        r#ref: "web".into(),
        label: "Web".into(),
        description: None,
        version: "1.0.0".into(),
        conf_schema: json!({"token": {"type": "string", "secret": true}, "url": {"type": "string"}}),
        config: json!({"token": "t0p", "url": "http://x"}),
        meta: Value::Null,
        tags: Vec::new(),
        runtime_deps: Vec::new(),
        dependencies: Vec::new(),
        is_standard: false,
    };
    RuleTarget { rule, pack, action, owner: None }
}

fn decide(event: &Event, targets: &[RuleTarget]) -> Vec<NewEnforcement> {
    RuleEngine::new(&key(), IdentityId(1), time()).decide(event, targets)
}

#[test]
fn a_matching_rule_becomes_an_execution_with_rendered_parameters() {
    let params = json!({"n": "{{ event.payload.n }}", "text": "rule {{ system.rule.ref }} at {{ pack.config.url }}"});
    let mut target = target(params, Some(action(json!({}))));
    target.owner = Some(IdentityId(12));
    let [enforcement] = &decide(&event(json!({"n": 5})), &[target])[..] else { panic!("one enforcement") };
    assert_eq!(enforcement.config, json!({"n": 5, "text": "rule web.rule at http://x"}));
    assert_eq!(enforcement.payload, json!({"n": 5}));
    let execution = enforcement.execution.as_ref().unwrap();
    assert_eq!((execution.action, execution.executor), (ActionId(4), IdentityId(12)));
    assert_eq!(execution.permission_set_refs, ["standard"]);
}

#[test]
fn a_rule_names_its_rights_or_leaves_them_to_the_action() {
    let mut own = target(json!({}), Some(action(json!({}))));
    own.rule.permission_set_refs = Some(vec![]);
    let enforcement = decide(&event(json!({})), &[own]).remove(0);
    assert!(enforcement.execution.unwrap().permission_set_refs.is_empty());
}

#[test]
fn rules_that_do_not_match_or_make_no_sense_do_not_disturb_the_others() {
    let mut no_match = target(json!({}), Some(action(json!({}))));
    no_match.rule.conditions = json!({"expression": "event.payload.n > 5"});
    let mut broken = target(json!({}), Some(action(json!({}))));
    broken.rule.conditions = json!({"expression": "event.payload.n >"});
    let mut good = target(json!({}), Some(action(json!({}))));
    good.rule.id = RuleId(10);
    good.rule.conditions = json!({"expression": "event.payload.n == 5"});
    let enforcements = decide(&event(json!({"n": 5})), &[no_match, broken, good]);
    assert_eq!(enforcements.iter().map(|enforcement| enforcement.rule).collect::<Vec<_>>(), [RuleId(10)]);
    assert_eq!(enforcements[0].conditions, json!([{"expression": "event.payload.n == 5"}]));
}

#[test]
fn a_secret_of_the_pack_lands_in_a_secret_parameter_encrypted() {
    let schema = json!({"auth": {"type": "string", "secret": true}, "plain": {"type": "string"}});
    let params = json!({"auth": "Bearer {{ pack.config.token }}", "plain": "{{ pack.config.url }}"});
    let enforcement = decide(&event(json!({})), &[target(params, Some(action(schema)))]).remove(0);
    assert_eq!(enforcement.config, json!({"auth": redacted(), "plain": "http://x"}));
    let [secret] = &enforcement.secrets[..] else { panic!("one secret") };
    assert_eq!(secret.json_path, "/auth");
    assert_eq!(key().open(&secret.encrypted_value, None).unwrap(), json!("Bearer t0p"));
}

#[test]
fn a_secret_of_the_pack_lands_nowhere_else() {
    let schema = json!({"auth": {"type": "object", "properties": {"deep": {"secret": true}}}});
    for params in [
        json!({"plain": "{{ pack.config.token }}"}),
        json!({"plain": {"deeper": ["x{{ pack.config }}"]}}),
        json!({"auth": "{{ pack.config.token }}"}),
        json!({"auth": {"other": "{{ pack.config.token }}"}}),
    ] {
        let made = decide(&event(json!({})), &[target(params.clone(), Some(action(schema.clone())))]);
        assert_eq!(made, [], "{params}");
    }
    let inside = json!({"auth": {"deep": {"any": "{{ pack.config.token }}"}}});
    assert_eq!(decide(&event(json!({})), &[target(inside, Some(action(schema)))]).len(), 1);
}

#[test]
fn a_rule_whose_action_is_gone_is_recorded_without_execution() {
    let enforcement = decide(&event(json!({})), &[target(json!({"a": 1}), None)]).remove(0);
    assert_eq!((enforcement.execution, enforcement.config), (None, json!({"a": 1})));
}

#[test]
fn payloads_and_parameters_are_objects() {
    for (payload, expected) in
        [(json!(null), json!({})), (json!([1]), json!({"value": [1]})), (json!("x"), json!({"value": "x"}))]
    {
        let enforcement = decide(&event(payload), &[target(json!(null), Some(action(json!({}))))]).remove(0);
        assert_eq!((enforcement.payload, enforcement.config), (expected, json!({})));
    }
}
