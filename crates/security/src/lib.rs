//! Signed tokens, secrets at rest, random secrets. Formats are facts of the platform.
//!
//! Nothing here prints a key, a token or a plaintext: keys redact themselves and errors carry no values.

#![forbid(unsafe_code)]

mod random;
mod sealing;
mod token;

pub use random::{constant_time_eq, random_secret};
pub use sealing::{SealError, SealingKey, is_redacted, redacted};
pub use token::{
    Agent, Claims, ExecutionToken, LEEWAY, TokenError, TokenKey, TokenType, sign_access_token, sign_execution_token,
    sign_sensor_token, sign_worker_token,
};
