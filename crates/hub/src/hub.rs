//! The hub as a service: bound by `build`, running after `spawn`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attune_bus::{Bus, QueueLifetime, QueueSpec, Source, Subscription};
use attune_lifecycle::{Stop, Tasks};
use attune_model::Secret;
use attune_model::clock::Clock;
use attune_model::condition::Condition;
use attune_model::message::Exchange;
use attune_security::sign_access_token;
use attune_store::HubStore;
use chrono::{DateTime, Utc};
use tokio::net::TcpListener;

use crate::core::Core;
use crate::packs::PackRegistry;
use crate::scheduling::Scheduler;
use crate::vitals::{self, Vitals};
use crate::{HubConfig, HubError, events, http, monitor, scheduling};

/// Most unanswered deliveries of each queue; they are handled one at a time.
const PREFETCH: u16 = 16;

/// A hub that listens, with its queues declared, but does nothing yet.
#[derive(Debug)]
pub struct Hub {
    handle: HubHandle,
    listener: TcpListener,
    local_addr: SocketAddr,
    events: Subscription,
    requests: Subscription,
}

/// What a program does with its hub besides running it.
#[derive(Debug, Clone)]
pub struct HubHandle {
    core: Arc<Core>,
}

impl Hub {
    /// Binds the address, declares the queues, makes sure that identity 1 exists.
    pub async fn build(
        config: HubConfig,
        store: Arc<dyn HubStore>,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, HubError> {
        let listener = bind(config.listen).await?;
        let address = config.listen;
        let local_addr = listener.local_addr().map_err(|source| HubError::Bind { address, source })?;
        let system = store.system_identity().await.map_err(HubError::store("find identity 1"))?;
        let events = declare(bus.clone(), events::QUEUE, events::BINDING).await?;
        let requests = declare(bus.clone(), scheduling::QUEUE, scheduling::BINDING).await?;
        mark(&config, local_addr, clock.now());
        let vitals = Vitals::new(config.health_period, config.observer.clone());
        let handle = HubHandle { core: Arc::new(Core { config, store, bus, clock, system, vitals }) };
        Ok(Self { handle, listener, local_addr, events, requests })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// For packs and tokens, also after [`Hub::spawn`].
    pub fn handle(&self) -> HubHandle {
        self.handle.clone()
    }

    /// Recovers what an earlier life left behind and serves until the stop.
    pub fn spawn(self, stop: &Stop, tasks: &Tasks) {
        let core = &self.handle.core;
        let api = http::Api::new(core.clone(), stop.clone(), tasks.clone());
        let routes = http::Routes::new(api);
        tasks.spawn_vital("hub http", stop, http::serve(self.listener, routes, stop.clone(), tasks.clone()));
        tasks.spawn_vital("hub events", stop, events::run(core.clone(), self.events, stop.clone()));
        let scheduler = Scheduler::new(core.clone(), stop.clone());
        tasks.spawn_vital("hub scheduler", stop, scheduler.run(self.requests));
        tasks.spawn_vital("hub vitals", stop, vitals::run(core.clone(), stop.clone()));
        tasks.spawn_vital("hub monitor", stop, monitor::run(core.clone(), stop.clone()));
    }
}

impl HubHandle {
    /// For packs.
    pub fn packs(&self) -> PackRegistry {
        let Core { store, bus, clock, .. } = &*self.core;
        PackRegistry::new(store.clone(), bus.clone(), clock.clone())
    }

    /// Tells what has to be well for the hub to do its work: storage, and the consumers of both queues.
    pub fn conditions(&self, all: &mut Vec<Condition>) {
        self.core.vitals.conditions(all);
    }

    /// A token for a person at this machine, who acts as the system identity.
    pub fn access_token(&self, lifetime: Duration) -> Result<Secret, HubError> {
        let core = &self.core;
        Ok(sign_access_token(&core.config.token_key, core.system, "local", core.now(), lifetime)?)
    }
}

/// Without its marks agents on this machine send through the API what they could write themselves: slower, not wrong.
fn mark(config: &HubConfig, address: SocketAddr, now: DateTime<Utc>) {
    if let Some(folders) = &config.folders
        && let Err(error) = folders.mark(&format!("http://{address}"), now)
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "agents do not see that they share folders with this hub");
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, HubError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HubError::AddressInUse(address),
        _ => HubError::Bind { address, source },
    })
}

async fn declare(bus: Arc<dyn Bus>, queue: &'static str, binding: (Exchange, &str)) -> Result<Subscription, HubError> {
    let (exchange, key) = binding;
    let spec = QueueSpec {
        name: queue.to_owned(),
        bindings: vec![(exchange, key.to_owned())],
        message_ttl_ms: None,
        dead_letters: true,
        lifetime: QueueLifetime::Permanent,
    };
    let source = Source { queue: spec, tag: "attune-hub".to_owned(), prefetch: PREFETCH };
    Subscription::declare(bus, source).await.map_err(|source| HubError::Bus { queue, source })
}
