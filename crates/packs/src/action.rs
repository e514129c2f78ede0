//! `actions/*.yaml`.

use attune_model::status::{OutputFormat, ParameterDelivery, ParameterFormat};
use attune_store::NewAction;

use crate::component::{Component, Declared};
use crate::content::ComponentKind;
use crate::entry_point::{self, Runner};

const KEYS: &[&str] = &[
    "ref",
    "name",
    "label",
    "description",
    "enabled",
    "runner_type",
    "entry_point",
    "workflow_file",
    "parameters",
    "output",
    "output_schema",
    "parameter_delivery",
    "parameter_format",
    "output_format",
    "runtime_version",
    "required_worker_runtimes",
    "worker_selector",
    "worker_tolerations",
    "worker_affinity",
    "accesses_mcp",
    "default_execution_permission_set_refs",
    "log_retention_policy",
    "log_retention_limit",
    "artifact_retention_policy",
    "artifact_retention_limit",
    "tags",
    "timeout",
    "timeout_seconds",
    "examples",
    "meta",
    "metadata",
    "pack",
];

impl Declared for NewAction {
    const KIND: ComponentKind = ComponentKind::Action;
    const KEYS: &'static [&'static str] = KEYS;

    fn read(component: &Component<'_>) -> Option<Self> {
        let fields = &component.fields;
        let own_ref = component.own_ref().unwrap_or_default();
        if fields.get("workflow_file").is_some() {
            fields.warning("workflow_file", "workflows are not supported here, the action is ignored");
            return None;
        }
        if fields.boolean("enabled") == Some(false) {
            fields.warning("enabled", "actions cannot be switched off, ignored");
        }
        if fields.get("output_schema").is_some() {
            fields.warning("output_schema", "ignored, write output");
        }
        let runner = Runner::of_action(component);
        let entrypoint = entry_point::of_action(component, &runner);
        let deliveries = ParameterDelivery::ALL.iter().map(|value| (value.as_str(), *value)).collect::<Vec<_>>();
        let formats = ParameterFormat::ALL.iter().map(|value| (value.as_str(), *value)).collect::<Vec<_>>();
        let outputs = OutputFormat::ALL.iter().map(|value| (value.as_str(), *value)).collect::<Vec<_>>();
        let parameter_delivery = component.word("parameter_delivery", &deliveries, ParameterDelivery::Stdin);
        let parameter_format = component.word("parameter_format", &formats, ParameterFormat::Json);
        let output_format = component.word("output_format", &outputs, OutputFormat::Text);
        let permission_sets = fields.texts("default_execution_permission_set_refs").unwrap_or_default();
        Some(NewAction {
            label: component.label(&own_ref),
            description: fields.text("description"),
            entrypoint: entrypoint.unwrap_or_default(),
            runtime_ref: Some(runner.name),
            param_schema: component.schema("parameters"),
            out_schema: component.schema("output"),
            parameter_delivery,
            parameter_format,
            output_format,
            timeout_seconds: timeout(component),
            runtime_version_constraint: component.version_constraint("runtime_version"),
            required_worker_runtimes: component.required_runtimes(),
            placement: component.placement(),
            accesses_mcp: fields.boolean("accesses_mcp").unwrap_or(false),
            default_execution_permission_set_refs: permission_sets,
            log_retention: component.retention("log"),
            artifact_retention: component.retention("artifact"),
            r#ref: own_ref,
        })
    }

    fn own_ref(&self) -> &str {
        &self.r#ref
    }
}

/// `timeout_seconds`, or `timeout` as many packs write it.
fn timeout(component: &Component<'_>) -> Option<i32> {
    let read = |field| component.fields.integer(field, 1..=i64::from(i32::MAX));
    read("timeout_seconds").or_else(|| read("timeout")).and_then(|seconds| i32::try_from(seconds).ok())
}
