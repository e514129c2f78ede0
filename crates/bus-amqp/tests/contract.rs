//! RabbitMQ keeps the contract of every bus.

mod support;

async fn lab() -> support::Rig {
    support::Rig::new().await
}

attune_testkit::bus_contract_tests!(lab);
