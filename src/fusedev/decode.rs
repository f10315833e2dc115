//! Bytes from the device → a request. Total: any bytes give a request or a typed error, nothing is read past the
//! message, and no size in it is trusted.

use zerocopy::FromBytes;

use super::{
    Question,
    abi::{GetAttrIn, InHeader, InitIn, InterruptIn, ReadIn, flag},
    policy::{self, Policy, op},
};

/// The longest answer to READ, READDIR or READDIRPLUS. The kernel asks for at most what `max_pages` allows, which the
/// handshake sets to this many bytes; a larger wish is a message that was not understood.
pub(crate) const MAX_ANSWER: u32 = 1 << 20;

/// The longest name the kernel sends (`PATH_MAX` − 1; up to 6.13 it was 1,024).
const MAX_NAME: usize = 4095;

/// A request, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Its header.
    pub(crate) header: InHeader,
    /// Name of its opcode.
    pub(crate) name: &'static str,
    /// What it wants.
    pub(crate) wish: Wish<'a>,
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish<'a> {
    /// An answer of the file system.
    Ask(Question<'a>),
    /// The handshake.
    Init(Offer),
    /// To take the request with this `unique` back.
    Interrupt(u64),
    /// No answer at all.
    Silent,
    /// Success, without doing anything.
    Done,
    /// This errno.
    Refuse(i32),
}

/// What the kernel offers in INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Protocol major.
    pub(crate) major: u32,
    /// Protocol minor.
    pub(crate) minor: u32,
    /// Bytes it wants to read ahead at most.
    pub(crate) max_readahead: u32,
    /// All 64 flag bits.
    pub(crate) flags: u64,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// There is not even a header, so nobody can be answered.
    #[error("a message of {got} bytes has no header")]
    NoHeader {
        /// Its length.
        got: usize,
    },
    /// The header's length is not the message's.
    #[error("a message of {got} bytes says that it has {says}")]
    Length {
        /// Its length.
        got: usize,
        /// What it says.
        says: u32,
    },
    /// The body is too short for the opcode, or its extensions reach into the header.
    #[error("{name} is cut short")]
    Short {
        /// Name of the opcode.
        name: &'static str,
    },
    /// A name is empty, too long, lacks its end or has a `/`.
    #[error("{name} carries a malformed name")]
    Name {
        /// Name of the opcode.
        name: &'static str,
    },
    /// More bytes are wanted than the handshake allows.
    #[error("{name} asks for {size} bytes")]
    Size {
        /// Name of the opcode.
        name: &'static str,
        /// What it asks for.
        size: u32,
    },
}

/// The header, when there is one.
pub(crate) fn header(message: &[u8]) -> Option<InHeader> {
    InHeader::read_from_prefix(message).ok().map(|(header, _)| header)
}

/// Decodes one message as read from the device.
pub(crate) fn request(message: &[u8]) -> Result<Request<'_>, DecodeError> {
    let (header, rest) =
        InHeader::read_from_prefix(message).map_err(|_| DecodeError::NoHeader { got: message.len() })?;
    if usize::try_from(header.len) != Ok(message.len()) {
        return Err(DecodeError::Length { got: message.len(), says: header.len });
    }
    let row = policy::of(header.opcode);
    let extensions = usize::from(header.total_extlen) * 8;
    let end = rest.len().checked_sub(extensions).ok_or(DecodeError::Short { name: row.name })?;
    let body = Body { name: row.name, bytes: &rest[..end] };
    let wish = match row.policy {
        Policy::Ask => Wish::Ask(question(&header, &body)?),
        Policy::Init => Wish::Init(offer(&body)?),
        Policy::Interrupt => Wish::Interrupt(body.part::<InterruptIn>(0)?.unique),
        Policy::Silent => Wish::Silent,
        Policy::Done => Wish::Done,
        Policy::Refuse(errno) => Wish::Refuse(errno),
    };
    Ok(Request { header, name: row.name, wish })
}

fn question<'a>(header: &InHeader, body: &Body<'a>) -> Result<Question<'a>, DecodeError> {
    let node = header.nodeid;
    Ok(match header.opcode {
        op::LOOKUP => Question::Lookup { parent: node, name: body.file_name()? },
        op::GETATTR => {
            body.part::<GetAttrIn>(0)?;
            Question::GetAttr { node }
        }
        op::READLINK => Question::ReadLink { node },
        op::READ => {
            let (offset, size) = body.range()?;
            Question::Read { node, offset, size }
        }
        op::READDIR | op::READDIRPLUS => {
            let (offset, size) = body.range()?;
            Question::ReadDir { node, offset, size, plus: header.opcode == op::READDIRPLUS }
        }
        // The table asks the file system about nothing else but STATFS; a test holds it to that.
        _ => Question::StatFs,
    })
}

fn offer(body: &Body<'_>) -> Result<Offer, DecodeError> {
    let init = body.part::<InitIn>(0)?;
    let mut flags = u64::from(init.flags);
    if flags & flag::INIT_EXT != 0 {
        flags |= u64::from(body.part::<u32>(size_of::<InitIn>())?) << 32;
    }
    Ok(Offer { major: init.major, minor: init.minor, max_readahead: init.max_readahead, flags })
}

/// What follows the header.
struct Body<'a> {
    name: &'static str,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    fn part<T: FromBytes>(&self, offset: usize) -> Result<T, DecodeError> {
        let short = DecodeError::Short { name: self.name };
        let bytes = self.bytes.get(offset..).ok_or(short)?;
        T::read_from_prefix(bytes).map(|(part, _)| part).map_err(|_| short)
    }

    fn range(&self) -> Result<(u64, u32), DecodeError> {
        let read = self.part::<ReadIn>(0)?;
        if read.size > MAX_ANSWER {
            return Err(DecodeError::Size { name: self.name, size: read.size });
        }
        Ok((read.offset, read.size))
    }

    fn file_name(&self) -> Result<&'a [u8], DecodeError> {
        let malformed = DecodeError::Name { name: self.name };
        let (0, name) = self.bytes.split_last().map(|(last, name)| (*last, name)).ok_or(malformed)? else {
            return Err(malformed);
        };
        if name.is_empty() || name.len() > MAX_NAME || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(malformed);
        }
        Ok(name)
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
