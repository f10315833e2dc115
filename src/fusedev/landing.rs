//! [`Landing`]: where a worker reads messages to.

use super::{
    device::READ_BUFFER,
    slots::{self, Slots},
};
use crate::sys::shared::Mapped;

/// A buffer for one message.
#[derive(Debug)]
pub(super) enum Landing {
    /// Of this process alone: what is in it ends with it.
    Own(Vec<u8>),
    /// In memory that a successor finds.
    Kept(Mapped),
}

impl Landing {
    /// That of worker `number`.
    pub(super) fn of(slots: Option<&Slots>, number: usize) -> std::io::Result<Landing> {
        Ok(match slots {
            Some(slots) => Landing::Kept(slots.landing(number)?),
            None => Landing::Own(vec![0; READ_BUFFER]),
        })
    }

    /// The buffer.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Landing::Own(bytes) => bytes,
            Landing::Kept(mapped) => mapped.bytes(),
        }
    }

    /// The buffer, after what was in it was seen to.
    pub(super) fn cleared(&mut self) -> &mut [u8] {
        let bytes = self.bytes();
        slots::clear(bytes);
        bytes
    }
}
