//! Requests about artifacts and their versions: reading and checking, before anything is stored.

use attune_model::ExecutionId;
use attune_model::rows::Artifact;
use attune_model::status::{ArtifactType, ArtifactVisibility, OwnerType, RetentionPolicy};
use attune_security::{Claims, TokenType};
use attune_store::{ArtifactChange, NewArtifact, NewVersion, VersionContent};
use axum::body::Bytes;
use axum::http::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rights::Rights;
use crate::http::error::ApiError;
use crate::http::multipart::Form;

/// How many versions are kept unless asked otherwise; a fact of the platform.
const USUAL_RETENTION: i32 = 10;

/// Longest ref.
const LONGEST_REF: usize = 255;

/// Fields of a form that are texts as they are.
const TEXTS: [&str; 9] =
    ["content_type", "created_by", "scope", "owner", "type", "visibility", "name", "description", "retention_policy"];

/// Fields of a form that are written as JSON.
const DOCUMENTS: [&str; 3] = ["meta", "execution", "retention_limit"];

/// What an artifact that is made has to be.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    scope: Option<OwnerType>,
    owner: Option<String>,
    r#type: Option<ArtifactType>,
    visibility: Option<ArtifactVisibility>,
    name: Option<String>,
    description: Option<String>,
    retention_policy: Option<RetentionPolicy>,
    retention_limit: Option<i32>,
}

/// A new artifact.
#[derive(Debug, Deserialize)]
pub(super) struct CreateRequest {
    pub(super) r#ref: String,
    content_type: Option<String>,
    data: Option<Value>,
    #[serde(flatten)]
    wanted: Wanted,
}

/// Another description of an artifact that exists. What it is and whose stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRequest {
    visibility: Option<ArtifactVisibility>,
    name: Option<String>,
    description: Option<String>,
    content_type: Option<String>,
    retention_policy: Option<RetentionPolicy>,
    retention_limit: Option<i32>,
}

/// About a new version.
#[derive(Debug, Default, Deserialize)]
pub(super) struct VersionRequest {
    pub(super) content_type: Option<String>,
    meta: Option<Value>,
    created_by: Option<String>,
    execution: Option<ExecutionId>,
    /// What the version is when it is a document.
    pub(super) content: Option<Value>,
}

/// A new version, and the artifact to make when there is none.
#[derive(Debug, Deserialize)]
pub(super) struct UpsertRequest {
    #[serde(flatten)]
    pub(super) version: VersionRequest,
    #[serde(flatten)]
    pub(super) wanted: Wanted,
}

/// A form with a file.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) request: UpsertRequest,
    pub(super) file: Bytes,
}

impl Upload {
    /// The fields of a form; those that nobody knows are ignored, as in JSON.
    pub(super) fn read(mut form: Form) -> Result<Self, ApiError> {
        let Some(file) = form.take("file") else {
            return Err(ApiError::invalid(&["the form has no field \"file\"".to_owned()]));
        };
        let mut fields = json!({});
        for name in TEXTS {
            fields[name] = json!(form.text(name)?);
        }
        for name in DOCUMENTS {
            let Some(text) = form.text(name)? else { continue };
            fields[name] = serde_json::from_str(&text)
                .map_err(|error| ApiError::invalid(&[format!("{name} is not valid JSON: {error}")]))?;
        }
        let mut request =
            UpsertRequest::deserialize(fields).map_err(|error| ApiError::invalid(&[error.to_string()]))?;
        let content_type = &mut request.version.content_type;
        *content_type = content_type.take().or(file.content_type);
        Ok(Self { request, file: file.content })
    }
}

impl Wanted {
    /// The artifact to be made, owned by what the caller runs for unless it says otherwise.
    pub(super) fn artifact(&self, artifact_ref: &str, rights: &Rights) -> Result<NewArtifact, ApiError> {
        let mut problems = Vec::new();
        problems.extend(ref_problem(artifact_ref));
        problems.extend(limit_problem(self.retention_limit));
        fail(&problems)?;
        let scope = self.scope.unwrap_or_else(|| rights.usual_scope());
        let r#type = self.r#type.unwrap_or(ArtifactType::FileText);
        let usual_visibility = match r#type {
            ArtifactType::Progress => ArtifactVisibility::Public,
            _ => ArtifactVisibility::Private,
        };
        Ok(NewArtifact {
            r#ref: artifact_ref.to_owned(),
            scope,
            owner: self.owner.clone().unwrap_or_else(|| rights.usual_owner(scope)),
            r#type,
            visibility: self.visibility.unwrap_or(usual_visibility),
            name: self.name.clone(),
            description: self.description.clone(),
            content_type: None,
            data: None,
            retention_policy: self.retention_policy.unwrap_or(RetentionPolicy::Versions),
            retention_limit: self.retention_limit.unwrap_or(USUAL_RETENTION),
        })
    }

    /// What is to be different about an artifact that exists: how much of it is kept.
    pub(super) fn retention(&self, artifact: &Artifact) -> Option<ArtifactChange> {
        let policy = self.retention_policy.filter(|policy| *policy != artifact.retention_policy);
        let limit = self.retention_limit.filter(|limit| *limit != artifact.retention_limit);
        (policy.is_some() || limit.is_some()).then(|| ArtifactChange {
            retention_policy: policy,
            retention_limit: limit,
            ..ArtifactChange::default()
        })
    }
}

impl CreateRequest {
    pub(super) fn artifact(self, rights: &Rights) -> Result<NewArtifact, ApiError> {
        fail(&Vec::from_iter(type_problem(self.content_type.as_deref())))?;
        let artifact = self.wanted.artifact(&self.r#ref, rights)?;
        Ok(NewArtifact { content_type: self.content_type, data: self.data, ..artifact })
    }
}

impl ChangeRequest {
    pub(super) fn change(self) -> Result<ArtifactChange, ApiError> {
        let mut problems = Vec::new();
        problems.extend(type_problem(self.content_type.as_deref()));
        problems.extend(limit_problem(self.retention_limit));
        fail(&problems)?;
        Ok(ArtifactChange {
            visibility: self.visibility,
            name: self.name,
            description: self.description,
            content_type: self.content_type,
            retention_policy: self.retention_policy,
            retention_limit: self.retention_limit,
        })
    }
}

impl VersionRequest {
    /// The version to be added, made by the caller. A running action speaks for itself only.
    pub(super) fn version(self, claims: &Claims, content: VersionContent) -> Result<NewVersion, ApiError> {
        fail(&Vec::from_iter(type_problem(self.content_type.as_deref())))?;
        let own = claims.execution().filter(|_| claims.token_type == TokenType::Execution);
        if own.is_some() && self.execution.is_some() && self.execution != own {
            return Err(ApiError::forbidden(format!("{} may not make versions for another execution", claims.login)));
        }
        Ok(NewVersion {
            execution: self.execution.or(own),
            content_type: self.content_type,
            content,
            meta: self.meta,
            created_by: Some(self.created_by.unwrap_or_else(|| claims.login.clone())),
        })
    }

    /// The type of what nobody gave a type.
    pub(super) fn or_usual_type(mut self, artifact: &Artifact) -> Self {
        let usual = || match artifact.r#type {
            ArtifactType::FileText => "text/plain".to_owned(),
            _ => "application/octet-stream".to_owned(),
        };
        self.content_type = self.content_type.or_else(|| artifact.content_type.clone()).or_else(|| Some(usual()));
        self
    }
}

/// The extension of a file of that type; a fact of the platform.
pub(super) fn extension(content_type: Option<&str>) -> &'static str {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/plain" => "txt",
        "text/csv" => "csv",
        "application/json" => "json",
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => "yaml",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "application/pdf" => "pdf",
        _ => "bin",
    }
}

fn fail(problems: &[String]) -> Result<(), ApiError> {
    if problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(problems)) }
}

/// The files of an artifact are where its ref says, so every part of it is a plain name.
fn ref_problem(artifact_ref: &str) -> Option<String> {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    let good = artifact_ref.len() <= LONGEST_REF && artifact_ref.split('.').all(plain);
    (!good).then(|| {
        format!(
            "ref must be up to {LONGEST_REF} letters, digits, _ and -, in parts separated by dots, not {artifact_ref:?}"
        )
    })
}

fn limit_problem(limit: Option<i32>) -> Option<String> {
    limit.is_some_and(|limit| limit <= 0).then(|| "retention_limit must be above 0".to_owned())
}

/// It becomes a header when the content is asked for.
fn type_problem(content_type: Option<&str>) -> Option<String> {
    let text = content_type?;
    let good = text.contains('/') && text.len() <= LONGEST_REF && HeaderValue::from_str(text).is_ok();
    (!good).then(|| format!("content_type must be like text/plain, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_follow_the_type() {
        for (content_type, wanted) in [
            (Some("text/plain; charset=utf-8"), "txt"),
            (Some("Text/CSV"), "csv"),
            (Some("application/x-yaml"), "yaml"),
            (Some("image/jpeg"), "jpg"),
            (Some("text/html"), "bin"),
            (None, "bin"),
        ] {
            assert_eq!(extension(content_type), wanted, "{content_type:?}");
        }
    }

    #[test]
    fn a_ref_is_made_of_plain_names() {
        for good in ["report", "demo.build_log", "Demo.a-b.3"] {
            assert_eq!(ref_problem(good), None);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a/b", "../a", "a b", "ä", "a\0", &"x".repeat(256)] {
            assert!(ref_problem(bad).is_some(), "{bad:?}");
        }
    }
}
