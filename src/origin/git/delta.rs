//! Deltas: how a packed object differs from its base. Pure; the owner of the repository is the author of every byte.

/// Sizes of base and result that a delta begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) base: u64,
    pub(super) result: u64,
}

/// Longest form of both sizes: ten bytes of seven bits each.
pub(super) const SIZES_MAX: usize = 20;

/// What is wrong with a delta.
pub(super) type Flaw = &'static str;

/// The sizes at the head of `delta`, and what follows them.
pub(super) fn sizes(delta: &[u8]) -> Result<(Sizes, &[u8]), Flaw> {
    let (base, rest) = size(delta)?;
    let (result, rest) = size(rest)?;
    Ok((Sizes { base, result }, rest))
}

/// What `delta` makes of `base`: exactly as long as it says, or an error.
pub(super) fn apply(base: &[u8], delta: &[u8]) -> Result<Vec<u8>, Flaw> {
    let (sizes, mut rest) = sizes(delta)?;
    if sizes.base != base.len() as u64 {
        return Err("a delta is for a base of another size");
    }
    let size = usize::try_from(sizes.result).map_err(|_| "a delta's result does not fit into memory")?;
    let mut result = Vec::new();
    result.try_reserve_exact(size).map_err(|_| "a delta's result does not fit into memory")?;
    while let Some((&command, after)) = rest.split_first() {
        let (bytes, after) = if command & 0x80 != 0 {
            let (from, len, after) = copy(command, after)?;
            (base.get(from..from + len).ok_or("a delta copies from behind its base")?, after)
        } else if command != 0 {
            after.split_at_checked(usize::from(command)).ok_or("a delta ends within an insertion")?
        } else {
            return Err("a delta has an unknown command");
        };
        if bytes.len() > size - result.len() {
            return Err("a delta makes more than it says");
        }
        result.extend_from_slice(bytes);
        rest = after;
    }
    if result.len() < size { Err("a delta makes less than it says") } else { Ok(result) }
}

/// Little-endian groups of seven bits.
fn size(bytes: &[u8]) -> Result<(u64, &[u8]), Flaw> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err("a delta's size is malformed")
}

/// Offset and length of a copy: each bit of the command says whether that byte is there; length 0 means 65,536.
fn copy(command: u8, mut rest: &[u8]) -> Result<(usize, usize, &[u8]), Flaw> {
    let mut bytes = [0u8; 7];
    for (_, byte) in bytes.iter_mut().enumerate().filter(|(bit, _)| command & (1 << bit) != 0) {
        let (&first, after) = rest.split_first().ok_or("a delta ends within a copy")?;
        (*byte, rest) = (first, after);
    }
    let [a, b, c, d, e, f, g] = bytes;
    let (from, len) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, 0]));
    let len = if len == 0 { 0x1_0000 } else { len };
    Ok((from as usize, len as usize, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_insertions_make_the_result() {
        assert_eq!(apply(b"abc", b"\x03\x06\x90\x03\x03xyz").unwrap(), b"abcxyz");
        assert_eq!(apply(b"abc", b"\x03\x02\x91\x01\x02").unwrap(), b"bc");
        let long = vec![7; 0x1_0000];
        let whole = [&b"\x80\x80\x04\x80\x80\x04\x80"[..]].concat();
        assert_eq!(apply(&long, &whole).unwrap(), long);
        assert_eq!(apply(b"", b"\0\0").unwrap(), b"");
    }

    #[test]
    fn a_hostile_delta_is_an_error_and_no_memory() {
        for (delta, flaw) in [
            (&b""[..], "a delta's size is malformed"),
            (b"\x03", "a delta's size is malformed"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01", "a delta's size is malformed"),
            (b"\x02\x01", "a delta is for a base of another size"),
            (b"\x03\x01", "a delta makes less than it says"),
            (b"\x03\x01\x02ab", "a delta makes more than it says"),
            (b"\x03\x02\x90\x03", "a delta makes more than it says"),
            (b"\x03\x05\x05ab", "a delta ends within an insertion"),
            (b"\x03\x01\x91\x01", "a delta ends within a copy"),
            (b"\x03\x01\x91\x03\x01", "a delta copies from behind its base"),
            (b"\x03\x01\xff\xff\xff\xff\xff\xff\xff\xff", "a delta copies from behind its base"),
            (b"\x03\x01\x00", "a delta has an unknown command"),
        ] {
            assert_eq!(apply(b"abc", delta), Err(flaw), "{}", delta.escape_ascii());
        }
    }
}
