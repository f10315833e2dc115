//! A workspace's own directory, with upper and work directory or the empty one in it, as overlayfs gets it.
//!
//! Where ids are seen as they are stored, that is the directory itself. Else it is a clone of it that shows each id as
//! the other side of [`Owners`]: what the owner writes is stored with the ids of before, and quotas go on counting by
//! them. overlayfs wants upper and work directory on one mount, so the clone is of the directory that holds both.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    layer::{self, Layer},
    protocol::{Failure, MountOrder, OwnersOrder, Reply, UpperOrder},
};
use crate::sys::{
    idmap::Owners,
    mount::{self, FsContext, MountFlags},
    userns,
};

/// The directories as overlayfs gets them.
pub(super) struct Directories {
    pub(super) upper: UpperOrder,
    layer: Option<Layer>,
}

/// The map that an order asks for; `None` where every id is seen as it is stored.
///
/// Before this process acts as another user: see [`userns::showing`].
pub(super) fn map_of(owners: OwnersOrder) -> Result<Option<OwnedFd>, Failure> {
    let no_id = |error| Failure::at("reading the owners")(std::io::Error::other(error));
    let owners = Owners::try_from(owners).map_err(no_id)?;
    let map = owners.differ().then(|| userns::showing(&owners));
    map.transpose().map_err(Failure::at("making a user namespace for the upper"))
}

impl Directories {
    /// Attaches the clone, if there is to be one.
    pub(super) fn attach(order: &MountOrder, map: Option<&OwnedFd>) -> Result<Directories, Failure> {
        let Some(map) = map else { return Ok(Directories { upper: order.upper.clone(), layer: None }) };
        let clone = clone_mapped(home_of(&order.upper)?, map)?;
        let layer = Layer::attach(&order.layers, &layer::of_upper(&order.workspace), &clone)?;
        Ok(Directories { upper: below(&order.upper, &layer.path)?, layer: Some(layer) })
    }

    /// Detaches it again; the overlay has a private one by then.
    pub(super) fn remove(self) -> Result<(), Failure> {
        self.layer.map_or(Ok(()), Layer::remove)
    }
}

/// Tries whether what lies in `dir` can be shown with these owners.
pub(super) fn can_show(dir: &Path, owners: OwnersOrder) -> Result<Reply, Failure> {
    if let Some(map) = map_of(owners)? {
        clone_mapped(dir, &map)?;
    }
    Ok(Reply::Done)
}

/// Asks the kernel whether an overlay stands on `upper`, whoever can see it: it refuses a second one that wants an index
/// with EBUSY, before anything else. This one could never come about, for its work directory lies on another mount, which
/// is EINVAL; nothing is written by it.
pub(super) fn is_held(upper: &Path, layers: &Path) -> Result<Reply, Failure> {
    let context = FsContext::open("overlay")?;
    let mut names = super::overlay::Names::default();
    let layers = names.of(layers)?;
    context.set("lowerdir", layers.as_path())?;
    context.set("upperdir", names.of(upper)?.as_path())?;
    context.set("workdir", layers.as_path())?;
    context.set("index", "on")?;
    match context.mount(MountFlags::SEALED) {
        Err(error) => match error.source.raw_os_error() {
            Some(libc::EBUSY) => Ok(Reply::Held),
            Some(libc::EINVAL) => Ok(Reply::Done),
            _ => Err(error.into()),
        },
        Ok(_) => {
            let source = std::io::Error::other("the kernel made an overlay that it should refuse");
            Err(Failure::at("asking whether the upper is in use")(source))
        }
    }
}

fn clone_mapped(dir: &Path, map: &OwnedFd) -> Result<OwnedFd, Failure> {
    let clone = mount::clone_tree(dir)?;
    // No flags beyond those of the file system's own mount: the same holds as without a map.
    mount::set_attributes(clone.as_fd(), MountFlags::default(), Some(map.as_fd()))?;
    Ok(clone)
}

/// The directory that holds all of them.
fn home_of(order: &UpperOrder) -> Result<&Path, Failure> {
    let lost = || {
        let source = std::io::Error::other("upper and work directory do not lie in one directory");
        Failure::at("finding the workspace's directory")(source)
    };
    let home = match order {
        UpperOrder::Writable { upper, work, .. } => {
            upper.parent().filter(|home| work.parent() == Some(*home))
        }
        UpperOrder::ReadOnly { empty } => empty.parent(),
    };
    home.ok_or_else(lost)
}

/// The same directories as they are called below `clone`.
fn below(order: &UpperOrder, clone: &Path) -> Result<UpperOrder, Failure> {
    let renamed = |path: &PathBuf| {
        let nameless = || Failure::at("finding the upper")(std::io::Error::other("it has no name"));
        Ok::<_, Failure>(clone.join(path.file_name().ok_or_else(nameless)?))
    };
    Ok(match order {
        UpperOrder::Writable { upper, work, volatile } => {
            UpperOrder::Writable { upper: renamed(upper)?, work: renamed(work)?, volatile: *volatile }
        }
        UpperOrder::ReadOnly { empty } => UpperOrder::ReadOnly { empty: renamed(empty)? },
    })
}
