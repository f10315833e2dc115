//! The contract as an OpenRPC document: what `rpc.discover` answers, and `docs/openrpc.json` holds.
//!
//! [`METHODS`] is the one list of methods with what each is for and how it fails; schemas come from the types.

use std::sync::OnceLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    AdoptOrphan, Counters, CreateWorkspace, Done, DrainView, ErrorData, ErrorKind, ForgetCredential,
    ForgottenCredential, GiveWorkspace, Health, ListWorkspaces, LogLevelView, MeasureWorkspaces,
    MountWorkspace, Nothing, OriginView, OrphanView, RemoveWorkspace, SetLogLevel, StoreCredential,
    StoredCredential, UnmountWorkspace, UsagePage, WatchWorkspaces, WhoAmI, WorkspaceEvent, WorkspacePage,
    WorkspaceRef, WorkspaceView, method,
};

/// A method of the contract.
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// How it fails, beside what any call can meet with ([`ANY_CALL`]).
    pub errors: &'static [ErrorKind],
    params: fn(&mut SchemaGenerator) -> Schema,
    result: fn(&mut SchemaGenerator) -> Schema,
}

/// What any call can meet with.
pub const ANY_CALL: &[ErrorKind] = &[ErrorKind::BadParameter, ErrorKind::LimitReached, ErrorKind::Internal];

/// What making a mount can meet with.
const MOUNTING: &[ErrorKind] = &[
    ErrorKind::NotAuthorised,
    ErrorKind::ForeignNamespace,
    ErrorKind::BadMountPoint,
    ErrorKind::NoSuchOrigin,
    ErrorKind::NoSuchRevision,
    ErrorKind::NoSuchPath,
    ErrorKind::OriginUnavailable,
    ErrorKind::OriginDenied,
    ErrorKind::Stopping,
    ErrorKind::Draining,
];

const fn method<P: JsonSchema, R: JsonSchema>(
    name: &'static str,
    summary: &'static str,
    errors: &'static [ErrorKind],
) -> Method {
    Method { name, summary, errors, params: P::json_schema, result: schema_of::<R> }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// All methods that take one object and give one answer, and the subscription.
pub const METHODS: &[Method] = &[
    method::<CreateWorkspace, WorkspaceView>(
        method::WORKSPACE_CREATE,
        "Makes a workspace and mounts it. Undone when the caller goes away before the answer.",
        MOUNTING,
    ),
    method::<ListWorkspaces, WorkspacePage>(
        method::WORKSPACE_LIST,
        "Lists the caller's workspaces, or those of all users.",
        &[ErrorKind::NotAuthorised],
    ),
    method::<WorkspaceRef, WorkspaceView>(
        method::WORKSPACE_GET,
        "Shows one workspace.",
        &[ErrorKind::NoSuchWorkspace],
    ),
    method::<MountWorkspace, WorkspaceView>(
        method::WORKSPACE_MOUNT,
        "Mounts a workspace that is not mounted.",
        &[
            ErrorKind::NotAuthorised,
            ErrorKind::ForeignNamespace,
            ErrorKind::NoSuchWorkspace,
            ErrorKind::BadMountPoint,
            ErrorKind::NoSuchOrigin,
            ErrorKind::WrongState,
            ErrorKind::OriginUnavailable,
            ErrorKind::Stopping,
            ErrorKind::Draining,
        ],
    ),
    method::<UnmountWorkspace, Done>(
        method::WORKSPACE_UNMOUNT,
        "Unmounts a workspace; an ephemeral one is thrown away.",
        &[ErrorKind::NoSuchWorkspace, ErrorKind::Busy, ErrorKind::WrongState, ErrorKind::Stopping],
    ),
    method::<RemoveWorkspace, Done>(
        method::WORKSPACE_REMOVE,
        "Unmounts a workspace and takes it away for good.",
        &[
            ErrorKind::NoSuchWorkspace,
            ErrorKind::Busy,
            ErrorKind::UnsavedChanges,
            ErrorKind::WrongState,
            ErrorKind::Stopping,
        ],
    ),
    method::<GiveWorkspace, WorkspaceView>(
        method::WORKSPACE_GIVE,
        "Unmounts a workspace and hands it over to another user; nothing on disk is changed but its record.",
        &[
            ErrorKind::NotAuthorised,
            ErrorKind::NoSuchWorkspace,
            ErrorKind::NoSuchOrigin,
            ErrorKind::Busy,
            ErrorKind::WrongState,
            ErrorKind::Stopping,
        ],
    ),
    method::<MeasureWorkspaces, UsagePage>(
        method::WORKSPACE_USAGE,
        "Counts what was written in the caller's workspaces, or in those of all users, by walking their uppers.",
        &[ErrorKind::NotAuthorised, ErrorKind::NoSuchWorkspace],
    ),
    method::<WatchWorkspaces, WorkspaceEvent>(
        method::WORKSPACE_WATCH,
        "Subscribes to what workspaces are now, how they change, and an end. WebSocket only; the result is the \
         subscription's id, and the schema that of its `workspace.event` notifications. `workspace.unwatch` with \
         `[id]` ends it.",
        &[ErrorKind::NoSuchWorkspace],
    ),
    method::<Nothing, Vec<OriginView>>(
        method::ORIGIN_LIST,
        "Lists the origins that the caller may mount.",
        &[],
    ),
    method::<StoreCredential, StoredCredential>(
        method::CREDENTIAL_STORE,
        "Keeps the token that the caller reads an origin with, in place of another one. It is tried; one that the \
         origin refuses is not kept.",
        &[ErrorKind::NotAuthorised, ErrorKind::NoSuchOrigin, ErrorKind::WrongState, ErrorKind::OriginDenied],
    ),
    method::<ForgetCredential, ForgottenCredential>(
        method::CREDENTIAL_FORGET,
        "Forgets the token that the caller reads an origin with.",
        &[ErrorKind::NoSuchOrigin],
    ),
    method::<Nothing, Vec<OrphanView>>(
        method::ORPHAN_LIST,
        "Lists uppers that no record speaks for.",
        &[ErrorKind::NotAuthorised],
    ),
    method::<AdoptOrphan, WorkspaceView>(
        method::ORPHAN_ADOPT,
        "Makes an orphaned upper a workspace of a user again, unmounted.",
        &[
            ErrorKind::NoSuchWorkspace,
            ErrorKind::NotAuthorised,
            ErrorKind::ForeignNamespace,
            ErrorKind::BadMountPoint,
            ErrorKind::NoSuchOrigin,
            ErrorKind::NoSuchRevision,
            ErrorKind::NoSuchPath,
            ErrorKind::OriginUnavailable,
            ErrorKind::OriginDenied,
            ErrorKind::Stopping,
        ],
    ),
    method::<WorkspaceRef, Done>(
        method::ORPHAN_DISCARD,
        "Deletes an orphaned upper.",
        &[ErrorKind::NotAuthorised, ErrorKind::NoSuchWorkspace, ErrorKind::Stopping],
    ),
    method::<Nothing, DrainView>(
        method::DRAIN_BEGIN,
        "From now on, over restarts and reboots, nobody gets a new mount on this host. What is mounted stays.",
        &[ErrorKind::NotAuthorised, ErrorKind::Stopping],
    ),
    method::<Nothing, DrainView>(
        method::DRAIN_END,
        "Users get mounts again.",
        &[ErrorKind::NotAuthorised, ErrorKind::Stopping],
    ),
    method::<Nothing, Health>(method::HEALTH, "Says how the daemon is, without touching a mount.", &[]),
    method::<Nothing, Counters>(method::COUNTERS, "Shows counters since the daemon started.", &[]),
    method::<SetLogLevel, LogLevelView>(
        method::LOG_SET_LEVEL,
        "Has the journal told more, or less, for a while; it falls back to the configuration's level by itself.",
        &[ErrorKind::NotAuthorised],
    ),
    method::<Nothing, WhoAmI>(
        method::WHO_AM_I,
        "Says who the daemon takes the caller for, and what the caller may do.",
        &[ErrorKind::NotAuthorised],
    ),
    method::<Nothing, Value>(method::DISCOVER, "Gives this document.", &[]),
];

/// The document. Always the same for one version of the contract.
pub fn openrpc() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(assemble)
}

fn assemble() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let methods: Vec<Value> = METHODS.iter().map(|method| describe(method, &mut generator)).collect();
    let error_data = schema_of::<ErrorData>(&mut generator);
    let errors: Map<String, Value> = ErrorKind::ALL
        .iter()
        .map(|kind| {
            let error = json!({
                "code": kind.code(),
                "message": kind.meaning(),
                "data": error_data,
            });
            (format!("{kind:?}"), error)
        })
        .collect();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "Scorpio control socket",
            "version": "1",
            "description": "JSON-RPC 2.0 over HTTP/1.1 (POST /) or WebSocket on a Unix socket. Parameters are one \
                object, by name; unknown members are refused.",
        },
        "methods": methods,
        "components": { "schemas": generator.take_definitions(true), "errors": errors },
    })
}

fn describe(method: &Method, generator: &mut SchemaGenerator) -> Value {
    let params = (method.params)(generator);
    let required: Vec<&str> = params
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let members = params.get("properties").and_then(Value::as_object);
    let described: Vec<Value> = members
        .into_iter()
        .flatten()
        .map(|(name, schema)| json!({ "name": name, "required": required.contains(&name.as_str()), "schema": schema }))
        .collect();
    let errors: Vec<Value> = ANY_CALL
        .iter()
        .chain(method.errors)
        .map(|kind| json!({ "$ref": format!("#/components/errors/{kind:?}") }))
        .collect();
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": described,
        "result": { "name": "result", "schema": (method.result)(generator) },
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to write the file instead of comparing with it.
    const BLESS: &str = "SCORPIO_BLESS";

    #[test]
    fn the_committed_document_is_the_contract() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openrpc.json");
        let current = serde_json::to_string_pretty(openrpc()).unwrap() + "\n";
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(committed == current, "docs/openrpc.json is not the contract: {BLESS}=1 cargo test openrpc");
    }

    #[test]
    fn protocol_md_shows_every_method_and_every_code() {
        let page = include_str!("../../docs/PROTOCOL.md");
        for method in METHODS {
            assert!(
                page.contains(&format!("### `{}`", method.name)),
                "{} is not in PROTOCOL.md",
                method.name
            );
        }
        for kind in ErrorKind::ALL {
            let row = format!("| {} | `{kind:?}` | {} |", kind.code(), kind.meaning());
            assert!(page.contains(&row), "PROTOCOL.md lacks: {row}");
        }
    }

    #[test]
    fn codes_are_positive_and_differ() {
        let codes: std::collections::BTreeSet<i32> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(codes.iter().all(|code| *code > 0), "JSON-RPC and its libraries use negative ones");
    }
}
