//! `scorpiod export`: saving a workspace's changes while the daemon is down, however badly it fell.
//!
//! A tar needs the upper alone. A patch needs the base as well: from the cache, or from the origin if it is there.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use crate::{
    antares::saved,
    config::{Config, Live},
    daemon::{DaemonError, args::ExportArgs, exporter, wiring},
    manager::{base::StoreBase, export, patch},
    sys::boot,
    types::{RepoPath, WorkspaceId},
};

/// Writes the export; an incomplete file is removed.
pub fn export(config: Option<&Path>, args: &ExportArgs) -> Result<(), DaemonError> {
    let config = Config::load_from_system(config)?;
    let result = match &args.output {
        None => write(&config, args, io::stdout().lock()),
        Some(path) => {
            let file = File::create_new(path)
                .map_err(|source| DaemonError::Host { action: format!("make {}", path.display()), source })?;
            write(&config, args, io::BufWriter::new(file)).inspect_err(|_| {
                // What is there is of no use; the first error is the one to tell.
                let _ = std::fs::remove_file(path);
            })
        }
    };
    for path in result? {
        eprintln!("scorpiod: {path} is left out: this format cannot hold it");
    }
    Ok(())
}

fn write(config: &Config, args: &ExportArgs, out: impl Write) -> Result<Vec<RepoPath>, DaemonError> {
    let id: WorkspaceId = part("read the workspace id", args.workspace.parse())?;
    let places = &config.daemon;
    let saved = part("find the workspace", saved::look(&places.state_dir, &places.upper_root, &id))?;
    let upper = part("open the workspace's upper", exporter::open_upper(&saved.upper, saved.owners))?;
    if args.format == "tar" {
        return part("export the workspace", export::tar(&upper, out));
    }
    let (origin, snapshot) = part("tell what the workspace stands on; a tar needs no base", saved.base)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Host { action: "start the runtime".to_owned(), source })?;
    let boot_id = boot::boot_id()
        .map_err(|source| DaemonError::Host { action: "read the boot id".to_owned(), source })?;
    let reading = Live::new(config.origins.clone());
    let store = runtime.block_on(wiring::open_store(config, &boot_id, &reading))?;
    let root = snapshot.tree;
    let base = StoreBase::new(store, origin, snapshot, runtime.handle().clone());
    part("export the workspace", patch::write(&base, root, &upper, out))
}

fn part<T, E: std::fmt::Display>(action: &'static str, result: Result<T, E>) -> Result<T, DaemonError> {
    result.map_err(|error| DaemonError::Part { action, reason: error.to_string() })
}
