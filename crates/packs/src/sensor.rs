//! `sensors/*.yaml`.

use attune_store::NewSensor;

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
    "trigger_types",
    "trigger_type",
    "parameters",
    "config",
    "runtime_version",
    "worker_selector",
    "worker_tolerations",
    "worker_affinity",
    "log_retention_policy",
    "log_retention_limit",
    "artifact_retention_policy",
    "artifact_retention_limit",
    "poll_interval",
    "tags",
    "meta",
    "metadata",
    "examples",
    "pack",
];

impl Declared for NewSensor {
    const KIND: ComponentKind = ComponentKind::Sensor;
    const KEYS: &'static [&'static str] = KEYS;

    fn read(component: &Component<'_>) -> Option<Self> {
        let fields = &component.fields;
        let own_ref = component.own_ref().unwrap_or_default();
        let runner = Runner::of_sensor(component);
        let entrypoint = entry_point::of_sensor(component, &runner);
        let trigger_refs = trigger_refs(component);
        Some(NewSensor {
            label: component.label(&own_ref),
            description: fields.text("description"),
            entrypoint: entrypoint.unwrap_or_default(),
            runtime_ref: runner.name,
            trigger_refs,
            enabled: fields.boolean("enabled").unwrap_or(true),
            param_schema: component.schema("parameters"),
            config: fields.object("config").map(Into::into),
            runtime_version_constraint: component.version_constraint("runtime_version"),
            placement: component.placement(),
            log_retention: component.retention("log"),
            artifact_retention: component.retention("artifact"),
            r#ref: own_ref,
        })
    }

    fn own_ref(&self) -> &str {
        &self.r#ref
    }
}

fn trigger_refs(component: &Component<'_>) -> Vec<String> {
    let fields = &component.fields;
    let (field, written) = if fields.get("trigger_types").is_some() {
        ("trigger_types", fields.texts("trigger_types").unwrap_or_default())
    } else {
        ("trigger_type", fields.text("trigger_type").into_iter().collect())
    };
    if written.is_empty() {
        fields.warning(field, "no trigger: this sensor is never started");
    }
    written.into_iter().filter_map(|text| component.foreign_ref(field, text)).collect()
}
