//! A mount that is attached below the engine's private directory for the moment in which overlayfs is given it by name.

use std::{
    fs::DirBuilder,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{protocol::Failure, unmount};
use crate::sys::mount;

/// The name of a workspace's lower among the layers.
pub(super) fn of_lower(workspace: &str) -> String {
    workspace.to_owned()
}

/// The name of a workspace's upper, where its owners are mapped.
pub(super) fn of_upper(workspace: &str) -> String {
    format!("{workspace}-upper")
}

/// An attached layer. Detached when dropped.
pub(super) struct Layer {
    pub(super) path: PathBuf,
    standing: bool,
}

impl Layer {
    /// Attaches `tree` as `layers/<name>`; what an earlier mounter left there goes.
    pub(super) fn attach(layers: &Path, name: &str, tree: &OwnedFd) -> Result<Layer, Failure> {
        unmount::clear_layer(layers, name)?;
        let path = layers.join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(Failure::at("making a directory for a layer"))?;
        let layer = Layer { path, standing: true };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let target = mount::open_beneath_no_links(rustix::fs::CWD, &layer.path, flags)
            .map_err(Failure::at("opening the directory for a layer"))?;
        mount::attach(tree.as_fd(), target.as_fd())?;
        Ok(layer)
    }

    /// Detaches it.
    pub(super) fn remove(mut self) -> Result<(), Failure> {
        self.standing = false;
        mount::unmount(&self.path, mount::Unmount::Lazily)?;
        std::fs::remove_dir(&self.path).map_err(Failure::at("removing the directory for a layer"))
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        if self.standing {
            // On the way out with another error; what stays is removed by the engine, which then sends an abandon.
            let _ = mount::unmount(&self.path, mount::Unmount::Lazily);
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}
