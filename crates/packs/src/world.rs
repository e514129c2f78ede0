//! All packs side by side: who declares what, for checks that cross a pack's border.

use std::collections::{BTreeMap, BTreeSet};

use attune_store::{NewAction, NewRuntime, NewTrigger};

use crate::content::PackContent;

/// An index over packs in their order of loading; the first to declare something owns it.
#[derive(Debug)]
pub(crate) struct World<'a> {
    packs: BTreeSet<&'a str>,
    broken: BTreeSet<String>,
    runtimes: Vec<(&'a str, &'a NewRuntime)>,
    triggers: BTreeMap<&'a str, &'a NewTrigger>,
    actions: BTreeMap<&'a str, &'a NewAction>,
    emitters: BTreeMap<&'a str, &'a str>,
}

/// How to speak of something that was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// Its pack is there and does not have it.
    Unknown,
    /// Its pack is there, but has errors.
    PackBroken,
    /// Its pack is not among those that are looked at.
    PackMissing,
}

impl<'a> World<'a> {
    pub(crate) fn new(packs: &'a [PackContent], broken: BTreeSet<String>) -> Self {
        let mut world = Self {
            // The runtimes that are built in are not the core pack: its triggers and actions may well be installed.
            packs: packs.iter().filter(|content| !content.is_builtin()).map(|content| &*content.pack.r#ref).collect(),
            broken,
            runtimes: Vec::new(),
            triggers: BTreeMap::new(),
            actions: BTreeMap::new(),
            emitters: BTreeMap::new(),
        };
        for content in packs {
            let pack = &content.pack;
            world.runtimes.extend(pack.runtimes.iter().map(|runtime| (pack.r#ref.as_str(), runtime)));
            world.triggers.extend(pack.triggers.iter().map(|trigger| (trigger.r#ref.as_str(), trigger)));
            world.actions.extend(pack.actions.iter().map(|action| (action.r#ref.as_str(), action)));
        }
        world.find_emitters(packs);
        world
    }

    /// A trigger belongs to one sensor: to one of its own pack before any other.
    fn find_emitters(&mut self, packs: &'a [PackContent]) {
        for own in [true, false] {
            for content in packs {
                for sensor in &content.pack.sensors {
                    for trigger in &sensor.trigger_refs {
                        if (pack_of(trigger) == content.pack.r#ref) == own {
                            self.emitters.entry(trigger).or_insert(&sensor.r#ref);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn trigger(&self, trigger_ref: &str) -> Option<&'a NewTrigger> {
        self.triggers.get(trigger_ref).copied()
    }

    pub(crate) fn action(&self, action_ref: &str) -> Option<&'a NewAction> {
        self.actions.get(action_ref).copied()
    }

    /// The sensor that a trigger belongs to.
    pub(crate) fn emitter(&self, trigger_ref: &str) -> Option<&'a str> {
        self.emitters.get(trigger_ref).copied()
    }

    /// The pack that owns a runtime ref.
    pub(crate) fn runtime_owner(&self, runtime_ref: &str) -> Option<&'a str> {
        self.runtimes.iter().find(|(_, runtime)| runtime.r#ref == runtime_ref).map(|(pack, _)| *pack)
    }

    /// A runtime by ref, else by display name, else by alias.
    pub(crate) fn runtime(&self, name: &str) -> Option<&'a NewRuntime> {
        let by = |fits: &dyn Fn(&NewRuntime) -> bool| {
            self.runtimes.iter().map(|(_, runtime)| *runtime).find(|runtime| fits(runtime))
        };
        by(&|runtime| runtime.r#ref == name)
            .or_else(|| by(&|runtime| runtime.name.eq_ignore_ascii_case(name)))
            .or_else(|| by(&|runtime| runtime.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))))
    }

    /// The refs of all runtimes, for messages.
    pub(crate) fn runtime_refs(&self) -> Vec<&'a str> {
        let mut refs: Vec<&str> = self.runtimes.iter().map(|(_, runtime)| runtime.r#ref.as_str()).collect();
        refs.sort_unstable();
        refs
    }

    /// Why something with this ref is not there.
    pub(crate) fn absence(&self, reference: &str) -> Absence {
        let pack = pack_of(reference);
        if self.broken.contains(pack) {
            Absence::PackBroken
        } else if self.packs.contains(pack) || !reference.contains('.') {
            Absence::Unknown
        } else {
            Absence::PackMissing
        }
    }
}

fn pack_of(reference: &str) -> &str {
    reference.split('.').next().unwrap_or(reference)
}
