//! Which session an owner's lower comes from.
//!
//! *Shared*: one session for all, whose files belong to 0:0 and are mapped to each owner by the mount. *Per owner*: one
//! session for each, whose files belong to that owner. Root's workspaces always have a session of their own: mapping 0
//! to 0 takes a capability (CAP_SETFCAP) that nothing else here needs.
//!
//! A session of an owner stays until shutdown: two threads and a descriptor for each user who ever mounted. Ending
//! it with the owner's last workspace would let a user who keeps a mount namespace (which copies all mounts) make a new
//! session with every mount. The group of its files is the one its owner had when it was made.
//!
//! Sessions of an earlier process are gone on with as they are, whatever the configuration says by now: overlays stand
//! on them. Which lower a new mount gets follows the configuration.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{
    KernelError, Launches,
    heirs::Heir,
    mounter::protocol::{Reply, Verb},
    session::{Blueprint, Common, MountedSession, OpenError},
};
use crate::{
    config::LowerKind,
    dicfuse::Dicfuse,
    engine::{Leave, SessionReport, serve::Served},
    fusedev::Features,
    sys::identity::Identity,
    telemetry::event,
};

const SHARED: &str = "shared";

/// All sessions of the engine.
pub(super) struct Sessions {
    common: Common,
    dicfuse: Dicfuse,
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
    /// Goes on with `heirs`, then makes the shared session if it is wanted and works here. [`LowerKind::Auto`] tries it
    /// for real and falls back.
    pub(super) fn start(
        kind: LowerKind,
        common: Common,
        dicfuse: Dicfuse,
        heirs: Vec<Heir>,
        launches: &Launches,
    ) -> Result<Sessions, KernelError> {
        let mut sessions = Sessions { common, dicfuse, shared: true, open: Mutex::default() };
        heirs.into_iter().for_each(|heir| sessions.resume(heir));
        let attempt = match kind {
            LowerKind::PerOwner => Err("the configuration wants a session per owner".to_owned()),
            // It worked for the process before.
            LowerKind::Shared | LowerKind::Auto if sessions.find(SHARED).is_some() => Ok(()),
            LowerKind::Shared | LowerKind::Auto => sessions.try_shared(launches),
        };
        match attempt {
            Ok(()) => tracing::info!("one session serves all users"),
            Err(reason) if kind == LowerKind::Shared => return Err(KernelError::NoSharedLower { reason }),
            Err(reason) => {
                tracing::info!(reason, "every user gets a session of their own");
                sessions.shared = false;
            }
        }
        Ok(sessions)
    }

    fn resume(&self, heir: Heir) {
        let name = heir.testament.name.clone();
        let served = self.served(heir.testament.uid, heir.testament.gid);
        match MountedSession::resume(heir, served, &self.common) {
            Ok(session) => {
                self.locked(|open| open.by_name.insert(name, Arc::new(session)));
            }
            Err(error) => tracing::warn!(session = name, %error, "a session cannot be gone on with"),
        }
    }

    /// The tree for a session whose files belong to `uid` and `gid`.
    fn served(&self, uid: u32, gid: u32) -> Served {
        let Common { limits, fetches_per_user, runtime, .. } = &self.common;
        Served::new(self.dicfuse.clone(), uid, gid, limits.deadline, *fetches_per_user)
            .reading_ahead(runtime.clone())
    }

    /// The session of this name, if it is served.
    pub(super) fn find(&self, name: &str) -> Option<Arc<MountedSession>> {
        self.locked(|open| open.by_name.get(name).filter(|session| !session.is_over()).cloned())
    }

    fn try_shared(&self, launches: &Launches) -> Result<(), String> {
        let root = Identity::root();
        let session = self.get(SHARED, &root, true).map_err(|error| error.to_string())?;
        let tried = match launches.run_now(Verb::Probe { session: session.path().to_owned() }) {
            Ok(Reply::Done) => return Ok(()),
            Ok(Reply::Failed { step, message, .. }) => format!("{step}: {message}"),
            Ok(other) => format!("the probe answered {other:?}"),
            Err(error) => error.to_string(),
        };
        self.locked(|open| open.by_name.remove(SHARED));
        Err(tried)
    }

    /// The lower for `owner`, made if it is not there. Blocks for as long as the kernel takes to mount a session.
    pub(super) fn lower_for(&self, owner: &Identity) -> Result<Lower, OpenError> {
        let map_owner = self.shared && !owner.is_root();
        let session = if map_owner {
            self.get(SHARED, &Identity::root(), true)?
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
            Some(session) if session.is_over() => tell_ended(session),
            Some(session) if !session.is_in_place() => tracing::warn!(
                message_id = event::SESSION_ENDED,
                session = name,
                "somebody unmounted a session; what stands on it is served on until the next restart, and others get another one"
            ),
            Some(session) => return Ok(Arc::clone(session)),
            None => {}
        }
        // Its mount goes before the new one comes to the same place, whatever still refers to it.
        if let Some(ended) = open.by_name.remove(name) {
            ended.retire();
        }
        let (uid, gid) = (owner.uid, owner.gid);
        let blueprint = Blueprint {
            name: name.to_owned(),
            features: Features { idmap, replay: self.common.replay, generation: self.dicfuse.generation() },
            uid,
            gid,
        };
        let session = Arc::new(MountedSession::open(blueprint, self.served(uid, gid), &self.common)?);
        open.by_name.insert(name.to_owned(), Arc::clone(&session));
        Ok(session)
    }

    /// Notified when the kernel has ended a session.
    pub(super) fn ended(&self) -> Arc<Notify> {
        Arc::clone(&self.common.ended)
    }

    /// Takes away what is left of sessions that the kernel has ended, and has them forgotten.
    pub(super) fn sweep(&self) {
        self.locked(|open| {
            open.by_name.retain(|_, session| {
                let goes = session.is_over();
                if goes {
                    tell_ended(session);
                    session.retire();
                }
                !goes
            });
        });
    }

    pub(super) fn reports(&self) -> Vec<SessionReport> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reports: Vec<_> = open.by_name.values().map(|session| session.report()).collect();
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    /// Stops serving; from now on there are no sessions. Blocks until their workers have ended.
    pub(super) fn close(&self, leave: Leave) {
        let ended = self.locked(|open| {
            open.closed = true;
            std::mem::take(&mut open.by_name)
        });
        if leave == Leave::Everything {
            ended.values().for_each(|session| session.leave());
        }
        drop(ended);
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Open) -> T) -> T {
        work(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tell_ended(session: &MountedSession) {
    tracing::warn!(
        message_id = event::SESSION_ENDED,
        session = session.name(),
        connection = session.device().map(|device| device.minor),
        "the kernel has ended a session: somebody aborted its connection or unmounted it; its workspaces are mounted again"
    );
}
