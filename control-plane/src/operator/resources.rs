//! Resources over HTTP: list, read, apply, delete. Documents come as YAML or
//! JSON; findings go back as data and as text for people.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use selvage_core::diagnostic::Diagnostics;
use selvage_core::nearest::nearest;
use selvage_core::parse;
use selvage_core::resource::{Resource, ResourceKey, ResourceKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Operator;
use super::guard::refuse;
use crate::mesh::{ApplyOptions, ChangeError, Live, about};

/// `?dryRun=true&strict=true&source=NAME`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ApplyQuery {
    dry_run: bool,
    strict: bool,
    /// What diagnostics call the body; the name of a file, say.
    source: Option<String>,
}

pub(super) async fn apply(
    State(operator): State<Arc<Operator>>,
    Query(query): Query<ApplyQuery>,
    body: String,
) -> Response {
    let source = query.source.as_deref().unwrap_or("request").to_owned();
    let options = ApplyOptions {
        dry_run: query.dry_run,
        strict: query.strict,
    };
    let resources = match parse::parse(&source, &body) {
        Ok(resources) => resources,
        Err(found) => return refused(&found),
    };
    change(&operator, resources, options).await
}

async fn change(operator: &Operator, resources: Vec<Resource>, options: ApplyOptions) -> Response {
    match operator.mesh.apply(resources, options).await {
        Ok((change, revision)) => Json(json!({
            "results": change.applied,
            "warnings": change.warnings.as_slice(),
            "warningsText": change.warnings.render(false),
            "revision": revision,
        }))
        .into_response(),
        Err(error) => failed(error),
    }
}

/// `{"error", "diagnostics": [...], "text": "as rustc would say it"}`
fn refused(found: &Diagnostics) -> Response {
    let body = json!({
        "error": "the documents are refused; nothing was changed",
        "diagnostics": found.as_slice(),
        "text": found.render(false),
    });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}

fn failed(error: ChangeError) -> Response {
    match error {
        ChangeError::Refused(found) => refused(&found),
        ChangeError::InFolder(_) => refuse(StatusCode::CONFLICT, error.to_string()),
        ChangeError::Store(error) => {
            tracing::error!(%error, "the store refuses");
            refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the control plane cannot write its store",
            )
        }
    }
}

/// The kind of this name, or what to say where there is none.
fn kind(name: &str) -> Result<ResourceKind, String> {
    ResourceKind::parse(name).ok_or_else(|| {
        let known = ResourceKind::ALL.map(ResourceKind::as_str);
        let near = nearest(name, known)
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        format!("there is no kind {name:?}{near}")
    })
}

fn shown(live: &Live, key: &ResourceKey) -> Option<Value> {
    let stored = live.world.resource(key)?;
    let source = if live.in_folder.contains(key) {
        "folder"
    } else {
        "applied"
    };
    let (conditions, status) = live.world.standing(key, &live.registry);
    let mut shown = json!({
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "source": source,
        "stamp": stored.stamp,
        "document": stored.resource.shown(),
        "conditions": conditions,
    });
    if let Some(status) = status {
        shown["status"] = status;
    }
    Some(shown)
}

/// `?namespace=NS`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    namespace: Option<String>,
}

pub(super) async fn list(
    State(operator): State<Arc<Operator>>,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Response {
    let kind = match kind(&name) {
        Ok(kind) => kind,
        Err(unknown) => return refuse(StatusCode::NOT_FOUND, unknown),
    };
    operator.mesh.read(|live| {
        let items: Vec<_> = live
            .world
            .of_kind(kind)
            .map(|stored| &stored.resource.key)
            .filter(|key| {
                query
                    .namespace
                    .as_ref()
                    .is_none_or(|wanted| *wanted == key.namespace)
            })
            .filter_map(|key| shown(live, key))
            .collect();
        Json(json!({ "items": items, "revision": live.revision })).into_response()
    })
}

type KeyPath = Path<(String, String, String)>;

fn key(Path((name, namespace, resource)): KeyPath) -> Result<ResourceKey, String> {
    Ok(ResourceKey {
        kind: kind(&name)?,
        namespace,
        name: resource,
    })
}

fn absent(key: &ResourceKey) -> Response {
    refuse(StatusCode::NOT_FOUND, format!("there is no {key}"))
}

pub(super) async fn one(State(operator): State<Arc<Operator>>, path: KeyPath) -> Response {
    match key(path) {
        Ok(key) => operator.mesh.read(|live| {
            let found = shown(live, &key);
            found.map_or_else(|| absent(&key), |found| Json(found).into_response())
        }),
        Err(unknown) => refuse(StatusCode::NOT_FOUND, unknown),
    }
}

pub(super) async fn put(
    State(operator): State<Arc<Operator>>,
    path: KeyPath,
    Query(query): Query<ApplyQuery>,
    body: String,
) -> Response {
    let key = match key(path) {
        Ok(key) => key,
        Err(unknown) => return refuse(StatusCode::NOT_FOUND, unknown),
    };
    let source = query.source.as_deref().unwrap_or("request").to_owned();
    let resources = match parse::parse(&source, &body) {
        Ok(resources) => resources,
        Err(found) => return refused(&found),
    };
    if resources.len() != 1 || resources[0].key != key {
        let message = format!("expected one document, of {key}, as the path says");
        return refused(&about(&source, message));
    }
    change(
        &operator,
        resources,
        ApplyOptions {
            dry_run: query.dry_run,
            strict: query.strict,
        },
    )
    .await
}

pub(super) async fn delete(State(operator): State<Arc<Operator>>, path: KeyPath) -> Response {
    let key = match key(path) {
        Ok(key) => key,
        Err(unknown) => return refuse(StatusCode::NOT_FOUND, unknown),
    };
    match operator.mesh.delete(&key).await {
        Ok(Some(revision)) => Json(json!({ "deleted": key, "revision": revision })).into_response(),
        Ok(None) => absent(&key),
        Err(error) => failed(error),
    }
}
