//! Which sessions of an earlier process are gone on with. The others are forgotten by their keeper; what is left of
//! their mounts is swept away with the rest.

use std::{
    collections::HashSet,
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::testament::{Here, Testament, Unfit};
use crate::{
    engine::handover::{Handover, Inherited},
    fusedev::Slots,
};

/// A session to go on with.
pub(super) struct Heir {
    pub(super) testament: Testament,
    pub(super) device: OwnedFd,
    pub(super) slots: Option<Slots>,
}

/// Those of `handover` that fit what is `here`.
pub(super) fn of(handover: &mut Handover, here: &Here<'_>) -> Vec<Heir> {
    let mut heirs: Vec<Heir> = Vec::new();
    let mut names = HashSet::new();
    for inherited in std::mem::take(&mut handover.inherited) {
        if !names.insert(inherited.name.clone()) {
            tracing::warn!(session = inherited.name, "a session was handed over twice; one goes");
            continue;
        }
        let name = inherited.name.clone();
        match judge(inherited, here) {
            Ok(heir) => heirs.push(heir),
            Err(unfit) => {
                tracing::warn!(session = name, reason = %unfit,
                    "a session of an earlier process is not gone on with; its workspaces are mounted again");
                if let Err(error) = handover.keeper.forget(&name) {
                    tracing::warn!(session = name, %error, "a lost session may still be kept");
                }
            }
        }
    }
    heirs
}

fn judge(inherited: Inherited, here: &Here<'_>) -> Result<Heir, Unfit> {
    let Inherited { name, device, record, slots } = inherited;
    let testament = Testament::open(&record, &name, here)?;
    if is_over(&device) {
        return Err(Unfit::Over);
    }
    if connection_of(&device).is_some_and(|connection| connection != testament.device.minor) {
        return Err(Unfit::Connection);
    }
    let slots = match (&testament.slots, slots) {
        (None, _) => None,
        (Some(_), None) => return Err(Unfit::NoSlots),
        (Some(id), Some(file)) => Some(Slots::open(file, id)?),
    };
    Ok(Heir { testament, device, slots })
}

/// The kernel reports an error on a device whose connection it has ended. Something that is no device is as good as over.
fn is_over(device: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(device, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let asked = poll(&mut polled, Some(&now));
    asked.is_err() || polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

/// Of which connection `device` is, where the kernel tells (Linux 6.16 or newer).
fn connection_of(device: &OwnedFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", device.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse().ok())
}
