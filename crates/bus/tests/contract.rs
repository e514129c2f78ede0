//! The in-process bus keeps the contract of every bus.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use attune_bus::{Bus, MemoryBus};
use attune_testkit::bus_contract::Lab;

struct Memory(MemoryBus);

#[async_trait]
impl Lab for Memory {
    fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.clone())
    }

    async fn waiting(&self, queue: &str) -> usize {
        self.0.waiting(queue)
    }

    async fn age(&self, _queue: &str, age: Duration) {
        let begun = Instant::now();
        while begun.elapsed() <= age {
            tokio::task::yield_now().await;
        }
    }
}

async fn lab() -> Memory {
    Memory(MemoryBus::new())
}

attune_testkit::bus_contract_tests!(lab);
