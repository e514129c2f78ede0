//! Metrics with one label from a closed set.

use std::marker::PhantomData;

use attune_model::measure::Kind;
use attune_model::status::ExecutionStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

/// One label.
type Label = [(&'static str, &'static str); 1];

/// A metric for each `K`.
#[derive(Debug)]
pub(super) struct PerKind<K, M> {
    each: Box<[M]>,
    kinds: PhantomData<fn(K)>,
}

/// Counters of things of kind `K`.
pub(super) type Counters<K> = PerKind<K, Counter>;

/// Gauges of things of kind `K`.
pub(super) type Gauges<K> = PerKind<K, Gauge>;

impl<K: Kind, M: Metric + Default + Clone> PerKind<K, M>
where
    Family<Label, M>: Metric,
{
    /// All of them, at zero.
    pub(super) fn register(registry: &mut Registry, name: &str, help: &str, label: &'static str) -> Self {
        let family = Family::<Label, M>::default();
        let each = K::ALL.iter().map(|kind| family.get_or_create_owned(&[(label, kind.word())])).collect();
        registry.register(name, help, family);
        Self { each, kinds: PhantomData }
    }

    /// The one for `kind`.
    pub(super) fn of(&self, kind: K) -> Option<&M> {
        self.each.get(kind.index())
    }
}

impl<K: Kind> Counters<K> {
    /// One more.
    pub(super) fn count(&self, kind: K) {
        if let Some(counter) = self.of(kind) {
            counter.inc();
        }
    }
}

/// How an execution ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminal(ExecutionStatus);

impl Terminal {
    /// None when `status` is no end.
    pub(super) fn of(status: ExecutionStatus) -> Option<Self> {
        Self::ALL.iter().copied().find(|terminal| terminal.0 == status)
    }
}

impl Kind for Terminal {
    const ALL: &'static [Self] = &[
        Self(ExecutionStatus::Completed),
        Self(ExecutionStatus::Failed),
        Self(ExecutionStatus::Cancelled),
        Self(ExecutionStatus::Timeout),
        Self(ExecutionStatus::Abandoned),
    ];

    fn word(self) -> &'static str {
        self.0.as_str()
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|terminal| *terminal == self).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_an_execution_is_counted() {
        for status in ExecutionStatus::ALL {
            assert_eq!(Terminal::of(*status).is_some(), status.is_terminal(), "{status}");
        }
    }
}
