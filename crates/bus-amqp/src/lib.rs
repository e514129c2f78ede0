//! Publishing and consuming on RabbitMQ.
