//! Who calls: the bearer token of a request.

use attune_security::{Claims, TokenError, TokenType};
use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

use super::Api;
use super::error::ApiError;

/// A caller with a valid token of a type that may call.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Claims);

impl Caller {
    /// What kind of caller.
    pub(super) fn kind(&self) -> TokenType {
        self.0.token_type
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let header = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| ApiError::unauthorized("missing token"))?;
        let malformed = || ApiError::unauthorized("the Authorization header is not of the form: Bearer TOKEN");
        let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(malformed());
        }
        let claims = api.core.config.token_key.verify(token.trim(), api.core.now()).map_err(|error| match error {
            TokenError::Expired => ApiError::unauthorized("token has expired"),
            _ => ApiError::unauthorized("token is not valid"),
        })?;
        match claims.token_type {
            TokenType::Refresh => Err(ApiError::unauthorized("a refresh token cannot be used to call")),
            TokenType::Access | TokenType::Sensor | TokenType::Execution | TokenType::Worker => Ok(Self(claims)),
        }
    }
}
