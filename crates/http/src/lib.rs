//! HTTP client with TLS that works in an image without a CA bundle.
