//! Scorpio: instant, writable mounts of repositories too large to clone.
//!
//! The modules form layers; a module imports only from those named below it (`tests/layers.rs` holds the table):
//!
//! ```text
//! daemon → rpc → manager → antares → engine → dicfuse → store → cache, origin
//!             └→ auth, api              └→ fusedev
//! cli → client → api
//! types, sys, config, telemetry lie below all of it
//! ```

pub mod antares;
pub mod api;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod dicfuse;
pub mod engine;
pub mod fusedev;
pub mod manager;
pub mod origin;
pub mod rpc;
pub mod store;
pub mod sys;
pub mod telemetry;
pub mod types;
