//! Consumers of a queue in memory, and the deliveries that they have not answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use attune_model::order;

use super::MemoryBus;
use super::queue::{Message, Queue};
use crate::{AckError, Acker, BusError, Consumer, ConsumerEvent, Delivery, Requeue};

#[derive(Debug)]
pub(super) struct MemoryConsumer {
    unanswered: Arc<Unanswered>,
}

impl MemoryConsumer {
    pub(super) fn new(bus: MemoryBus, queue: Arc<Queue>, prefetch: u16) -> Self {
        queue.consumer_came();
        Self { unanswered: Arc::new(Unanswered::new(bus, queue, prefetch)) }
    }
}

/// The deliveries that one consumer has not answered: they count against its prefetch and go back when it ends.
#[derive(Debug)]
struct Unanswered {
    bus: MemoryBus,
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
    fn new(bus: MemoryBus, queue: Arc<Queue>, prefetch: u16) -> Self {
        let prefetch = if prefetch == 0 { usize::MAX } else { usize::from(prefetch) };
        Self { bus, queue, prefetch, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, UnansweredState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>) -> Option<Delivery> {
        let mut inner = self.inner();
        if inner.cancelled || inner.messages.len() >= self.prefetch {
            return None;
        }
        let (message, expired) = self.queue.pop();
        let delivery = message.map(|message| {
            let tag = inner.next_tag;
            inner.next_tag += 1;
            inner.messages.insert(tag, message.clone());
            let acker = MemoryAcker { unanswered: self.clone(), tag };
            Delivery::new(message.body, message.routing_key, message.redelivered, Box::new(acker))
        });
        drop(inner);
        self.bus.bury(&self.queue, expired);
        delivery
    }

    fn answer(&self, tag: u64) -> Result<Message, AckError> {
        let failed = |reason: &str| AckError { queue: self.queue.spec.name.clone(), reason: reason.to_owned() };
        if self.bus.state().closed {
            return Err(failed("the bus was closed"));
        }
        let message = self.inner().messages.remove(&tag);
        self.queue.changed.notify_waiters();
        message.ok_or_else(|| failed("its consumer was cancelled, so it went back to the queue"))
    }

    /// Gives everything back in its old order and takes nothing more.
    fn give_back(&self) {
        let mut inner = self.inner();
        let first = !std::mem::replace(&mut inner.cancelled, true);
        let mut messages: Vec<(u64, Message)> = inner.messages.drain().collect();
        drop(inner);
        order::sort_by_key(&mut messages, |(tag, _)| *tag);
        let mut waiting = self.queue.waiting();
        for (_, mut message) in messages.into_iter().rev() {
            message.redelivered = true;
            waiting.push_front(message);
        }
        drop(waiting);
        if first {
            self.queue.consumer_left();
        }
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
            if self.unanswered.inner().cancelled || self.unanswered.bus.state().closed {
                return None;
            }
            if let Some(delivery) = self.unanswered.take() {
                return Some(ConsumerEvent::Delivery(delivery));
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
        match requeue {
            Requeue::Yes => {
                message.redelivered = true;
                self.unanswered.queue.waiting().push_front(message);
                self.unanswered.queue.changed.notify_waiters();
            }
            Requeue::No => self.unanswered.bus.bury(&self.unanswered.queue, vec![message]),
        }
        Ok(())
    }
}
