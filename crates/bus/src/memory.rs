//! The bus inside one process. Queues live as long as the bus; what must survive the process is in the store.

mod consumer;
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use attune_model::message::Exchange;
use bytes::Bytes;

use crate::{Bus, BusError, Consumer, Outgoing, QueueSpec, topic};
use consumer::MemoryConsumer;
use queue::{Message, Queue};

/// Topic exchanges and queues in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<String, Arc<Queue>>,
    closed: bool,
}

impl State {
    fn check_open(&self) -> Result<(), BusError> {
        if self.closed { Err(BusError::Closed) } else { Ok(()) }
    }

    /// Forgets the queues that nobody has consumed for their lifetime.
    fn sweep(&mut self) {
        self.queues.retain(|_, queue| !queue.is_over());
    }

    /// The queues that a message reaches, by the rules of the exchange.
    fn bound_to(&self, exchange: Exchange, key: &str) -> impl Iterator<Item = &Arc<Queue>> {
        let wants = move |pattern: &str| match exchange {
            Exchange::DeadLetters => pattern == key,
            Exchange::Events | Exchange::Executions => topic::matches(pattern, key),
        };
        self.queues
            .values()
            .filter(move |queue| queue.spec.bindings.iter().any(|(from, pattern)| *from == exchange && wants(pattern)))
    }
}

impl MemoryBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages wait in a queue, not delivered to anybody. A queue that is not there has none.
    pub fn waiting(&self, queue: &str) -> usize {
        self.state().queues.get(queue).map_or(0, |queue| queue.waiting().len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, exchange: Exchange, message: &Message) -> Result<(), BusError> {
        let mut state = self.state();
        state.check_open()?;
        state.sweep();
        let bound: Vec<Arc<Queue>> = state.bound_to(exchange, &message.routing_key).cloned().collect();
        drop(state);
        bound.iter().try_for_each(|queue| queue.push(message.clone()))
    }

    /// Sends on what a queue gave up. A full queue of dead letters loses them, as the bus may: they were given up.
    fn bury(&self, from: &Queue, dead: Vec<Message>) {
        if !from.spec.dead_letters {
            return;
        }
        for message in dead {
            let message = Message::new(message.body, message.routing_key);
            if let Err(error) = self.route(Exchange::DeadLetters, &message) {
                tracing::debug!(queue = from.spec.name, %error, "dead letter dropped");
            }
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn declare(&self, spec: &QueueSpec) -> Result<u32, BusError> {
        let mut state = self.state();
        state.check_open()?;
        state.sweep();
        match state.queues.get(&spec.name) {
            Some(queue) if queue.spec == *spec => Ok(queue.consumers()),
            Some(_) => Err(BusError::Refused {
                what: format!("queue {}", spec.name),
                reason: "it exists with other arguments".to_owned(),
            }),
            None => {
                state.queues.insert(spec.name.clone(), Arc::new(Queue::new(spec.clone())));
                Ok(0)
            }
        }
    }

    async fn consume(&self, queue: &str, _consumer_tag: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        let mut state = self.state();
        state.check_open()?;
        state.sweep();
        let queue = state.queues.get(queue).ok_or_else(|| BusError::NoSuchQueue(queue.to_owned()))?;
        Ok(Box::new(MemoryConsumer::new(self.clone(), queue.clone(), prefetch)))
    }

    async fn publish(&self, messages: &[Outgoing]) -> Result<(), BusError> {
        for message in messages {
            let body = serde_json::to_vec(&message.envelope)
                .map_err(|source| BusError::Encode { message_type: message.envelope.message_type, source })?;
            self.route(message.exchange, &Message::new(Bytes::from(body), message.routing_key.clone()))?;
        }
        Ok(())
    }

    async fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for queue in state.queues.values() {
            queue.changed.notify_waiters();
        }
    }
}
