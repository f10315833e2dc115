//! Which session an owner's lower comes from.
//!
//! *Shared*: one session for all, whose files belong to 0:0 and are mapped to each owner by the mount. *Per owner*: one
//! session for each, whose files belong to that owner. Root's workspaces always have a session of their own: mapping 0
//! to 0 takes a capability (CAP_SETFCAP) that nothing else here needs.
//!
//! A session of an owner stays until shutdown: two threads and a descriptor for each user who ever mounted. Ending
//! it with the owner's last workspace would let a user who keeps a mount namespace (which copies all mounts) make a new
//! session with every mount. The group of its files is the one its owner had when it was made.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    KernelError, Launches,
    mounter::protocol::{Reply, Verb},
    serve::Served,
    session::{Blueprint, MountedSession, OpenError},
};
use crate::{
    config::LowerKind,
    dicfuse::Dicfuse,
    engine::SessionReport,
    fusedev::{Features, SessionLimits},
    sys::identity::Identity,
};

/// All sessions of the engine.
pub(super) struct Sessions {
    below: PathBuf,
    dicfuse: Dicfuse,
    limits: SessionLimits,
    runtime: tokio::runtime::Handle,
    shared: bool,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_name: HashMap<String, Arc<MountedSession>>,
    closed: bool,
}

/// Where an owner's lower is.
#[derive(Clone)]
pub(super) struct Lower {
    pub(super) session: Arc<MountedSession>,
    /// Whether the mount must map 0:0 to the owner.
    pub(super) map_owner: bool,
}

impl Sessions {
    /// Makes the shared session if it is wanted and works here. [`LowerKind::Auto`] tries it for real and falls back.
    pub(super) fn start(
        kind: LowerKind,
        below: &Path,
        dicfuse: Dicfuse,
        limits: SessionLimits,
        runtime: tokio::runtime::Handle,
        launches: &Launches,
    ) -> Result<Sessions, KernelError> {
        let open = Mutex::default();
        let mut sessions = Sessions { below: below.to_owned(), dicfuse, limits, runtime, shared: true, open };
        let attempt = match kind {
            LowerKind::PerOwner => Err("the configuration wants a session per owner".to_owned()),
            LowerKind::Shared | LowerKind::Auto => sessions.try_shared(launches),
        };
        match attempt {
            Ok(()) => tracing::info!("one session serves all users"),
            Err(reason) if kind == LowerKind::Shared => return Err(KernelError::NoSharedLower { reason }),
            Err(reason) => {
                tracing::info!(reason, "every user gets a session of their own");
                sessions.shared = false;
                sessions.open = Mutex::default();
            }
        }
        Ok(sessions)
    }

    fn try_shared(&self, launches: &Launches) -> Result<(), String> {
        let root = Identity::root();
        let session = self.get("shared", &root, true).map_err(|error| error.to_string())?;
        match launches.run_now(Verb::Probe { session: session.path().to_owned() }) {
            Ok(Reply::Done) => Ok(()),
            Ok(Reply::Failed { step, message, .. }) => Err(format!("{step}: {message}")),
            Ok(other) => Err(format!("the probe answered {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The lower for `owner`, made if it is not there. Blocks for as long as the kernel takes to mount a session.
    pub(super) fn lower_for(&self, owner: &Identity) -> Result<Lower, OpenError> {
        let map_owner = self.shared && !owner.is_root();
        let session = if map_owner {
            self.get("shared", &Identity::root(), true)?
        } else {
            self.get(&format!("owner-{}", owner.uid), owner, false)?
        };
        Ok(Lower { session, map_owner })
    }

    fn get(&self, name: &str, owner: &Identity, idmap: bool) -> Result<Arc<MountedSession>, OpenError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.closed {
            return Err(OpenError::Device(std::io::Error::other("the engine is shutting down")));
        }
        match open.by_name.get(name) {
            Some(session) if !session.is_over() => return Ok(Arc::clone(session)),
            Some(_) => tracing::warn!(session = name, "the kernel has ended a session; making it anew"),
            None => {}
        }
        // Its mount goes before the new one comes to the same place.
        open.by_name.remove(name);
        let blueprint = Blueprint {
            name: name.to_owned(),
            below: self.below.clone(),
            features: Features { idmap },
            limits: self.limits,
        };
        let served = Served::new(self.dicfuse.clone(), owner.uid, owner.gid);
        let session = Arc::new(MountedSession::open(blueprint, Arc::new(served), self.runtime.clone())?);
        open.by_name.insert(name.to_owned(), Arc::clone(&session));
        Ok(session)
    }

    pub(super) fn reports(&self) -> Vec<SessionReport> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reports: Vec<_> = open.by_name.values().map(|session| session.report()).collect();
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    /// Ends all sessions; from now on there are none. Blocks until their workers have ended.
    pub(super) fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.closed = true;
        let ended = std::mem::take(&mut open.by_name);
        drop(open);
        drop(ended);
    }
}
