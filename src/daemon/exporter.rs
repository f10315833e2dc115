//! `GET /export/…`: the manager's exports, streamed to the control socket.

use std::{
    io::{self, Write},
    path::Path,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    antares::{Antares, Scope, Workspace, WorkspaceError},
    manager::{
        base::StoreBase,
        export::{self, ExportError},
        patch,
        upper::UpperDir,
    },
    rpc::{ExportFormat, ExportPart, Exporter},
    store::ObjectStore,
    sys::idmap::Owners,
    types::{RepoPath, WorkspaceId},
};

/// Bytes per part; large enough that the channel costs nothing.
const PART_BYTES: usize = 64 << 10;

/// Parts on their way; a reader that stops reading makes the writer wait, not the memory grow.
const PARTS: usize = 8;

/// Exports of this host's workspaces.
pub struct WorkspaceExporter {
    /// Who knows the workspaces.
    pub antares: Antares,
    /// Where base objects come from.
    pub store: ObjectStore,
    /// Where fetches run.
    pub runtime: Handle,
}

impl Exporter for WorkspaceExporter {
    fn export(
        &self,
        scope: &Scope,
        id: &WorkspaceId,
        format: ExportFormat,
    ) -> Result<mpsc::Receiver<ExportPart>, WorkspaceError> {
        let workspace = self.antares.get(scope, id)?;
        let (sender, receiver) = mpsc::channel(PARTS);
        let (store, runtime) = (self.store.clone(), self.runtime.clone());
        self.runtime.spawn_blocking(move || {
            let out = PartWriter { sender: sender.clone(), part: Vec::with_capacity(PART_BYTES) };
            match write(&workspace, store, runtime, format, out) {
                Ok(left_out) => {
                    warn_left_out(&workspace.id, &left_out);
                    // Without a receiver nobody waits for the end.
                    let _ = sender.blocking_send(ExportPart::Done);
                }
                Err(error) => {
                    tracing::warn!(scorpio_workspace = %workspace.id, scorpio_uid = workspace.owner.uid, %error, "export broken off");
                }
            }
        });
        Ok(receiver)
    }
}

/// Writes `workspace`'s changes to `out`, and returns what the format cannot hold.
pub fn write(
    workspace: &Workspace,
    store: ObjectStore,
    runtime: Handle,
    format: ExportFormat,
    out: impl Write,
) -> Result<Vec<RepoPath>, ExportError> {
    let upper = open_upper(&workspace.upper, workspace.owners())?;
    match format {
        ExportFormat::Tar => export::tar(&upper, out),
        ExportFormat::Patch => {
            let base = StoreBase::new(store, workspace.origin.clone(), workspace.snapshot.clone(), runtime);
            patch::write(&base, workspace.snapshot.tree, &upper, out)
        }
    }
}

/// The upper at `path`, for reading; with the ids that its owner sees, where they are known.
pub fn open_upper(path: &Path, owners: Option<Owners>) -> Result<UpperDir, ExportError> {
    let upper =
        UpperDir::open(path).map_err(|source| ExportError::Read { path: RepoPath::root(), source })?;
    Ok(match owners {
        Some(owners) => upper.shown_to(owners),
        None => upper,
    })
}

/// Says in the log what an export could not hold.
pub fn warn_left_out(id: &WorkspaceId, left_out: &[RepoPath]) {
    for path in left_out {
        tracing::warn!(scorpio_workspace = %id, %path, "left out of the export: this format cannot hold it");
    }
}

/// Collects small writes into parts.
struct PartWriter {
    sender: mpsc::Sender<ExportPart>,
    part: Vec<u8>,
}

impl PartWriter {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(PART_BYTES));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the export is gone");
        self.sender.blocking_send(ExportPart::Data(Bytes::from(part))).map_err(gone)
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PART_BYTES - self.part.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.part.extend_from_slice(taken);
        if self.part.len() == PART_BYTES {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() { Ok(()) } else { self.send() }
    }
}
