//! `triggers/*.yaml`.

use attune_store::NewTrigger;

use crate::component::{Component, Declared};
use crate::content::ComponentKind;

const KEYS: &[&str] = &[
    "ref",
    "name",
    "label",
    "description",
    "enabled",
    "parameters",
    "output",
    "type",
    "tags",
    "examples",
    "meta",
    "metadata",
    "pack",
];

impl Declared for NewTrigger {
    const KIND: ComponentKind = ComponentKind::Trigger;
    const KEYS: &'static [&'static str] = KEYS;

    fn read(component: &Component<'_>) -> Option<Self> {
        let fields = &component.fields;
        let own_ref = component.own_ref().unwrap_or_default();
        let param_schema = component.schema("parameters");
        let out_schema = component.schema("output");
        let enabled = fields.boolean("enabled").unwrap_or(true);
        Some(NewTrigger {
            label: component.label(&own_ref),
            description: fields.text("description"),
            enabled,
            param_schema,
            out_schema,
            r#ref: own_ref,
        })
    }

    fn own_ref(&self) -> &str {
        &self.r#ref
    }
}
