//! `scorpioctl stats`: the daemon's counters.

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    text::{bytes, columns},
};
use crate::api::{CacheCounters, Counters, method};

/// As many opcodes as are shown of a session; the rest is in `--json`.
const SHOWN_OPCODES: usize = 6;

/// Runs the verb.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let daemon = session.daemon();
    let counters: Counters = daemon.ask(method::COUNTERS).await?;
    session.screen.data(&counters, text)?;
    Ok(Exit::Ok)
}

fn text(counters: &Counters) -> String {
    let mut parts = vec![sessions(counters)];
    if !counters.origins.is_empty() {
        parts.push(origins(counters));
    }
    let lines: Vec<_> = counters.cache.as_ref().map(cache).into_iter().chain([tree(counters)]).collect();
    parts.push(lines.join("\n"));
    parts.join("\n\n")
}

fn cache(cache: &CacheCounters) -> String {
    format!(
        "The cache holds {} trees and {} blobs ({}); its database takes {}.",
        cache.trees,
        cache.blobs,
        bytes(cache.blob_bytes),
        bytes(cache.database_bytes)
    )
}

fn tree(counters: &Counters) -> String {
    let tree = &counters.tree;
    format!(
        "The tree serves {} roots; {} directories were listed and {} nodes named.\n\
         The daemon holds {} of memory.",
        tree.roots,
        tree.directories,
        tree.nodes,
        bytes(counters.rss_anon_bytes)
    )
}

fn sessions(counters: &Counters) -> String {
    let rows = counters.sessions.iter().map(|(name, session)| {
        let mut opcodes: Vec<_> = session.by_opcode.iter().collect();
        opcodes.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
        let opcodes: Vec<_> =
            opcodes.iter().take(SHOWN_OPCODES).map(|(name, count)| format!("{name} {count}")).collect();
        vec![
            name.clone(),
            session.requests.to_string(),
            session.parked.to_string(),
            session.refused.to_string(),
            session.interrupted.to_string(),
            opcodes.join(", "),
        ]
    });
    columns(&["SESSION", "REQUESTS", "WAITING", "REFUSED", "INTERRUPTED", "MOSTLY"], rows)
}

fn origins(counters: &Counters) -> String {
    let rows = counters.origins.iter().map(|(name, origin)| {
        vec![name.clone(), origin.fetched.to_string(), bytes(origin.bytes), origin.failed.to_string()]
    });
    columns(&["ORIGIN", "FETCHED", "BYTES", "FAILED"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CallCounters, OriginCounters, SessionCounters, TreeCounters};

    #[test]
    fn counters_are_shown_in_tables_and_sentences() {
        let shared = SessionCounters {
            requests: 120,
            by_opcode: [("LOOKUP".into(), 20), ("READ".into(), 100)].into(),
            parked: 1,
            refused: 2,
            interrupted: 3,
            queued: 4,
        };
        let counters = Counters {
            sessions: [("shared".into(), shared)].into(),
            origins: [("linux".into(), OriginCounters { fetched: 9, bytes: 65_536, failed: 0 })].into(),
            cache: Some(CacheCounters { trees: 5, blobs: 7, blob_bytes: 1 << 20, database_bytes: 1 << 21 }),
            tree: TreeCounters { roots: 1, directories: 5, nodes: 300 },
            calls: CallCounters::default(),
            rss_anon_bytes: 12 << 20,
        };
        assert_eq!(
            text(&counters),
            "SESSION  REQUESTS  WAITING  REFUSED  INTERRUPTED  MOSTLY\n\
             shared   120       1        2        3            READ 100, LOOKUP 20\n\
             \n\
             ORIGIN  FETCHED  BYTES   FAILED\n\
             linux   9        64 KiB  0\n\
             \n\
             The cache holds 5 trees and 7 blobs (1.0 MiB); its database takes 2.0 MiB.\n\
             The tree serves 1 roots; 5 directories were listed and 300 nodes named.\n\
             The daemon holds 12 MiB of memory."
        );
    }
}
