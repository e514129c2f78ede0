//! Whose artifacts a caller may touch.
//!
//! People and agents may touch all of them. A running action has what its token names: the permission set `standard` is a
//! grant for the artifacts of its own actions and packs, and what is public of its packs may be read without one. The same
//! goes for a sensor and its own artifacts.

use attune_model::rows::Artifact;
use attune_model::status::{ArtifactVisibility, OwnerType};
use attune_security::{Claims, TokenType};
use serde_json::Value;

use crate::http::error::ApiError;

/// The permission set that grants an action its own artifacts.
const STANDARD: &str = "standard";

/// First parts of refs under which agents and platform keep the logs of others.
const RESERVED: [&str; 2] = ["execution", "sensor"];

/// What a caller may do.
#[derive(Debug)]
pub(super) enum Rights {
    /// Everything.
    All,
    /// Something with what is its own.
    Own(Own),
}

/// What belongs to a running action or a sensor.
#[derive(Debug, Default)]
pub(super) struct Own {
    login: String,
    actions: Vec<String>,
    packs: Vec<String>,
    sensor: Option<String>,
    granted: bool,
}

impl Rights {
    pub(super) fn of(claims: &Claims) -> Self {
        let login = claims.login.clone();
        match claims.token_type {
            TokenType::Execution => {
                let list = |name: &str| -> Vec<String> {
                    let list = claims.metadata.as_ref().and_then(|metadata| metadata[name].as_array());
                    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
                };
                Self::Own(Own {
                    login,
                    actions: list("standard_access_action_refs"),
                    packs: list("standard_access_pack_refs"),
                    sensor: None,
                    granted: list("permission_set_refs").iter().any(|set| set == STANDARD),
                })
            }
            TokenType::Sensor => {
                let packs = vec![first_part(&login).to_owned()];
                Self::Own(Own { sensor: Some(login.clone()), login, packs, granted: true, ..Own::default() })
            }
            TokenType::Access | TokenType::Worker | TokenType::Refresh => Self::All,
        }
    }

    /// Whose an artifact is that the caller makes without saying so.
    pub(super) fn usual_owner(&self, scope: OwnerType) -> String {
        let Self::Own(own) = self else { return String::new() };
        let owner = match scope {
            OwnerType::Action => own.actions.first(),
            OwnerType::Pack => own.packs.first(),
            OwnerType::Sensor => own.sensor.as_ref(),
            OwnerType::System | OwnerType::Identity => None,
        };
        owner.cloned().unwrap_or_default()
    }

    /// What owns an artifact that the caller makes without saying so: an action, unless a sensor makes it.
    pub(super) fn usual_scope(&self) -> OwnerType {
        match self {
            Self::Own(Own { sensor: Some(_), .. }) => OwnerType::Sensor,
            _ => OwnerType::Action,
        }
    }

    pub(super) fn read(&self, artifact: &Artifact) -> Result<(), ApiError> {
        let public = artifact.visibility == ArtifactVisibility::Public;
        match self {
            Self::Own(own) if !(public && own.is_near(artifact.scope, &artifact.owner)) => {
                own.check(artifact.scope, &artifact.owner, &artifact.r#ref)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, artifact: &Artifact) -> Result<(), ApiError> {
        self.own(artifact.scope, &artifact.owner, &artifact.r#ref)
    }

    /// Whether the caller may act for that owner.
    pub(super) fn own(&self, scope: OwnerType, owner: &str, artifact_ref: &str) -> Result<(), ApiError> {
        match self {
            Self::All => Ok(()),
            Self::Own(own) => own.check(scope, owner, artifact_ref),
        }
    }

    /// The pack whose name a new ref begins with, when the caller may not use it if that pack exists. Files of an artifact
    /// are where its ref says, and logs are found by it.
    pub(super) fn foreign_pack<'r>(&self, artifact_ref: &'r str) -> Result<Option<&'r str>, ApiError> {
        let Self::Own(own) = self else { return Ok(None) };
        let first = first_part(artifact_ref);
        if RESERVED.contains(&first) {
            return Err(ApiError::forbidden(format!("{} may not make artifacts below {first}", own.login)));
        }
        Ok((!own.packs.iter().any(|pack| pack == first)).then_some(first))
    }
}

impl Own {
    fn check(&self, scope: OwnerType, owner: &str, artifact_ref: &str) -> Result<(), ApiError> {
        let owns = match scope {
            OwnerType::Action => self.actions.iter().any(|action| action == owner),
            OwnerType::Pack => self.packs.iter().any(|pack| pack == owner),
            OwnerType::Sensor => self.sensor.as_deref() == Some(owner),
            OwnerType::System | OwnerType::Identity => false,
        };
        let login = &self.login;
        if !owns {
            let message = format!("artifact {artifact_ref} belongs to {scope} {owner:?}, not to what {login} runs for");
            return Err(ApiError::forbidden(message));
        }
        if !self.granted {
            let message =
                format!("{login} does not have the permission set {STANDARD}, which grants its own artifacts");
            return Err(ApiError::forbidden(message));
        }
        Ok(())
    }

    /// Of an own pack, or of no pack at all.
    fn is_near(&self, scope: OwnerType, owner: &str) -> bool {
        match scope {
            OwnerType::System | OwnerType::Identity => true,
            OwnerType::Pack | OwnerType::Action | OwnerType::Sensor => {
                self.packs.iter().any(|pack| pack == first_part(owner))
            }
        }
    }
}

fn first_part(r#ref: &str) -> &str {
    r#ref.split('.').next().unwrap_or_default()
}
