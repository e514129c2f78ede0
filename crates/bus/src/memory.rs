//! The bus inside one process. Queues live as long as the bus; what must survive the process is in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{AckError, Acker, Bus, BusError, Consumer, ConsumerEvent, Delivery, Outgoing, QueueSpec, Requeue, topic};

/// Most messages one queue holds. A publisher beyond it gets an error instead of eating the memory of the process.
const QUEUE_CAPACITY: usize = 100_000;

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

#[derive(Debug)]
struct Queue {
    spec: QueueSpec,
    waiting: Mutex<VecDeque<Message>>,
    changed: Notify,
}

#[derive(Debug, Clone)]
struct Message {
    body: Bytes,
    routing_key: String,
    redelivered: bool,
    published: Instant,
}

impl MemoryBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest message that has not outlived the queue's limit.
    fn pop(&self) -> Option<Message> {
        let limit = self.spec.message_ttl_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        let mut waiting = self.waiting();
        loop {
            let message = waiting.pop_front()?;
            if limit.is_none_or(|limit| message.published.elapsed() < limit) {
                return Some(message);
            }
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn declare(&self, spec: &QueueSpec) -> Result<(), BusError> {
        let mut state = self.state();
        if state.closed {
            return Err(BusError::Closed);
        }
        match state.queues.get(&spec.name) {
            Some(queue) if queue.spec == *spec => Ok(()),
            Some(_) => Err(BusError::Unavailable(format!("queue {} exists with other arguments", spec.name))),
            None => {
                let queue = Queue { spec: spec.clone(), waiting: Mutex::default(), changed: Notify::new() };
                state.queues.insert(spec.name.clone(), Arc::new(queue));
                Ok(())
            }
        }
    }

    async fn consume(&self, queue: &str, _consumer_tag: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        let state = self.state();
        if state.closed {
            return Err(BusError::Closed);
        }
        let queue = state.queues.get(queue).ok_or_else(|| BusError::NoSuchQueue(queue.to_owned()))?;
        Ok(Box::new(MemoryConsumer {
            bus: self.shared.clone(),
            unanswered: Arc::new(Unanswered::new(queue.clone(), prefetch)),
        }))
    }

    async fn publish(&self, messages: &[Outgoing]) -> Result<(), BusError> {
        for message in messages {
            let body = serde_json::to_vec(&message.envelope)
                .map_err(|source| BusError::Encode { message_type: message.envelope.message_type, source })?;
            self.route(message, &Bytes::from(body))?;
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

impl MemoryBus {
    fn route(&self, message: &Outgoing, body: &Bytes) -> Result<(), BusError> {
        let state = self.state();
        if state.closed {
            return Err(BusError::Closed);
        }
        let wants = |spec: &QueueSpec| {
            spec.bindings.iter().any(|(exchange, pattern)| {
                *exchange == message.exchange && topic::matches(pattern, &message.routing_key)
            })
        };
        for queue in state.queues.values().filter(|queue| wants(&queue.spec)) {
            let mut waiting = queue.waiting();
            if waiting.len() >= QUEUE_CAPACITY {
                return Err(BusError::Unavailable(format!("queue {} is full", queue.spec.name)));
            }
            waiting.push_back(Message {
                body: body.clone(),
                routing_key: message.routing_key.clone(),
                redelivered: false,
                published: Instant::now(),
            });
            drop(waiting);
            queue.changed.notify_waiters();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryConsumer {
    bus: Arc<Mutex<State>>,
    unanswered: Arc<Unanswered>,
}

/// The deliveries that one consumer has not answered: they count against its prefetch and go back when it ends.
#[derive(Debug)]
struct Unanswered {
    queue: Arc<Queue>,
    prefetch: usize,
    inner: Mutex<UnansweredState>,
}

#[derive(Debug, Default)]
struct UnansweredState {
    next_tag: u64,
    messages: HashMap<u64, Message>,
    cancelled: bool,
}

impl Unanswered {
    fn new(queue: Arc<Queue>, prefetch: u16) -> Self {
        let prefetch = if prefetch == 0 { usize::MAX } else { usize::from(prefetch) };
        Self { queue, prefetch, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, UnansweredState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>) -> Option<Delivery> {
        let mut inner = self.inner();
        if inner.cancelled || inner.messages.len() >= self.prefetch {
            return None;
        }
        let message = self.queue.pop()?;
        let tag = inner.next_tag;
        inner.next_tag += 1;
        inner.messages.insert(tag, message.clone());
        let acker = MemoryAcker { unanswered: self.clone(), tag };
        Some(Delivery::new(message.body, message.routing_key, message.redelivered, Box::new(acker)))
    }

    fn answer(&self, tag: u64) -> Result<Message, AckError> {
        let message = self.inner().messages.remove(&tag);
        self.queue.changed.notify_waiters();
        message.ok_or_else(|| AckError {
            queue: self.queue.spec.name.clone(),
            reason: "its consumer was cancelled, so it went back to the queue".to_owned(),
        })
    }

    /// Gives everything back in its old order and takes nothing more.
    fn give_back(&self) {
        let mut inner = self.inner();
        inner.cancelled = true;
        let mut messages: Vec<(u64, Message)> = inner.messages.drain().collect();
        drop(inner);
        messages.sort_by_key(|(tag, _)| *tag);
        let mut waiting = self.queue.waiting();
        for (_, mut message) in messages.into_iter().rev() {
            message.redelivered = true;
            waiting.push_front(message);
        }
        drop(waiting);
        self.queue.changed.notify_waiters();
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.unanswered.give_back();
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Option<ConsumerEvent> {
        loop {
            let queue = self.unanswered.queue.clone();
            let changed = queue.changed.notified();
            tokio::pin!(changed);
            // Interest first, look second, wait third: a message in between is not missed.
            changed.as_mut().enable();
            if let Some(delivery) = self.unanswered.take() {
                return Some(ConsumerEvent::Delivery(delivery));
            }
            let over =
                self.unanswered.inner().cancelled || self.bus.lock().unwrap_or_else(PoisonError::into_inner).closed;
            if over {
                return None;
            }
            changed.await;
        }
    }

    async fn cancel(&mut self) -> Result<(), BusError> {
        self.unanswered.give_back();
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryAcker {
    unanswered: Arc<Unanswered>,
    tag: u64,
}

#[async_trait]
impl Acker for MemoryAcker {
    async fn ack(self: Box<Self>) -> Result<(), AckError> {
        self.unanswered.answer(self.tag).map(drop)
    }

    async fn reject(self: Box<Self>, requeue: Requeue) -> Result<(), AckError> {
        let mut message = self.unanswered.answer(self.tag)?;
        if requeue == Requeue::Yes {
            message.redelivered = true;
            self.unanswered.queue.waiting().push_front(message);
            self.unanswered.queue.changed.notify_waiters();
        }
        Ok(())
    }
}
