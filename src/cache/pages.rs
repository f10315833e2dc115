//! The structure of an LMDB file, proven with plain reads before LMDB maps it.
//!
//! LMDB believes its file: a page number or offset that is wrong takes the process down, on a read or only later, when
//! a write takes a page that the free list should not name. So every page that either could reach is looked at: each
//! belongs to one tree or to the free list and to nothing twice, lies within the file, and holds nodes that fill it
//! without gap or overlap, in order, within the bounds its parent names. Content is not looked at.
//!
//! Format: LMDB's data version 1, little-endian, 64 bits, tables without duplicates.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

const HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const DB_LEN: usize = 48;
const MAGIC: u32 = 0xbeef_c0de;
const DATA_VERSION: u32 = 1;
const NO_PAGE: u64 = u64::MAX;

const PAGE_BRANCH: u16 = 0x01;
const PAGE_LEAF: u16 = 0x02;
const PAGE_OVERFLOW: u16 = 0x04;
const PAGE_META: u16 = 0x08;
const NODE_BIG: u16 = 0x01;
const NODE_TABLE: u16 = 0x02;
/// Keys of the free list are integers.
const TABLE_INTEGER_KEY: u16 = 0x08;

/// LMDB's own limit on the height of a tree.
const MAX_DEPTH: u16 = 32;

/// Pages of the file's end that only the free list knows may never have been written; more than this many are an error,
/// so that a wild number cannot make us reserve memory.
const UNWRITTEN_PAGES: u64 = 1 << 20;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPages {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("page {page} is damaged: {what}")]
    Damaged { page: u64, what: &'static str },
}

type Checked<T> = Result<T, BadPages>;

fn require(holds: bool, page: u64, what: &'static str) -> Checked<()> {
    if holds { Ok(()) } else { Err(BadPages::Damaged { page, what }) }
}

/// Checks the environment file at `path`, whose tables must be among `names`.
pub(super) fn check(path: &Path, names: &[&str]) -> Checked<()> {
    let file = File::open(path)?;
    let size = rustix::param::page_size();
    let pages = file.metadata()?.len() / size as u64;
    let mut walk = Walk { file, size, pages, last: 1, used: vec![0b11] };
    let meta = walk.newest_meta()?;
    walk.last = meta.last;
    require(
        meta.last < pages.saturating_add(UNWRITTEN_PAGES),
        meta.page,
        "it counts more pages than there are",
    )?;
    let words = usize::try_from(meta.last / 64 + 1).map_err(io::Error::other)?;
    walk.used.resize(words, 0);
    require(meta.free.flags == TABLE_INTEGER_KEY && meta.main.flags == 0, meta.page, "unknown flags")?;
    let mut free = Vec::new();
    walk.tree(&meta.free, Kind::Free, &mut free)?;
    let mut tables = Vec::new();
    walk.tree(&meta.main, Kind::Main, &mut tables)?;
    for (name, table) in tables {
        require(
            names.iter().any(|known| known.as_bytes() == name),
            meta.main.root,
            "a table of unknown name",
        )?;
        let table = Table::read(&table);
        require(table.flags == 0, meta.main.root, "a table with unknown flags")?;
        walk.tree(&table, Kind::Plain, &mut Vec::new())?;
    }
    free.iter().try_for_each(|(_, pages)| walk.free_list(meta.free.root, pages))
}

/// One of the two roots of everything.
struct Meta {
    page: u64,
    free: Table,
    main: Table,
    last: u64,
    transaction: u64,
}

/// LMDB's record of a tree.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    pad: u32,
    flags: u16,
    depth: u16,
    counted: Counted,
    root: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    branches: u64,
    leaves: u64,
    overflows: u64,
    entries: u64,
}

/// Which tree is walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Integer keys; values are lists of pages, and are collected.
    Free,
    /// Values are tables, and are collected.
    Main,
    /// Values are content.
    Plain,
}

/// Values (with their keys) that the walk needs to see.
type Collected = Vec<(Vec<u8>, Vec<u8>)>;

struct Walk {
    file: File,
    size: usize,
    /// Whole pages in the file.
    pages: u64,
    /// The last page that the newest meta page counts.
    last: u64,
    /// One bit for each page that something was found to own.
    used: Vec<u64>,
}

/// Keys below a page: from the first (inclusive) to the second (exclusive).
type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

impl Walk {
    fn newest_meta(&self) -> Checked<Meta> {
        let (first, second) = (self.meta(0)?, self.meta(1)?);
        let newest = if first.transaction < second.transaction { second } else { first };
        require(newest.transaction % 2 == newest.page, newest.page, "a transaction on the wrong meta page")?;
        Ok(newest)
    }

    fn meta(&self, page: u64) -> Checked<Meta> {
        let bytes = self.page(page)?;
        require(u16_at(&bytes, 10) == PAGE_META, page, "not a meta page")?;
        let body = &bytes[HEADER..];
        let known = u32_at(body, 0) == MAGIC && u32_at(body, 4) == DATA_VERSION;
        require(known, page, "not of a known version")?;
        let meta = Meta {
            page,
            free: Table::read(&body[24..72]),
            main: Table::read(&body[72..120]),
            last: u64_at(body, 120),
            transaction: u64_at(body, 128),
        };
        require(meta.free.pad as usize == self.size, page, "an unknown page size")?;
        Ok(meta)
    }

    fn page(&self, page: u64) -> Checked<Vec<u8>> {
        require(page < self.pages, page, "beyond the end of the file")?;
        let mut bytes = vec![0; self.size];
        self.file.read_exact_at(&mut bytes, page * self.size as u64)?;
        require(u64_at(&bytes, 0) == page, page, "it carries another number")?;
        Ok(bytes)
    }

    /// Notes that `page` is owned; it must not have an owner yet.
    fn own(&mut self, page: u64) -> Checked<()> {
        require(page <= self.last, page, "beyond the last page")?;
        let word = usize::try_from(page / 64).ok().and_then(|index| self.used.get_mut(index));
        let word = word.ok_or(BadPages::Damaged { page, what: "beyond the last page" })?;
        let bit = 1 << (page % 64);
        require(*word & bit == 0, page, "used twice")?;
        *word |= bit;
        Ok(())
    }

    fn tree(&mut self, table: &Table, kind: Kind, collected: &mut Collected) -> Checked<()> {
        let mut counted = Counted::default();
        if table.root == NO_PAGE {
            require(table.depth == 0, table.root, "an empty tree with a height")?;
        } else {
            require((1..=MAX_DEPTH).contains(&table.depth), table.root, "a tree of impossible height")?;
            let mut search = Search { walk: self, kind, counted: &mut counted, collected };
            search.below(table.root, table.depth, (None, None))?;
        }
        require(counted == table.counted, table.root, "a tree that does not have what was counted")
    }

    /// A value too large for its node: on pages of its own, more of them at most than it needs.
    fn overflow(&mut self, first: u64, len: usize) -> Checked<u64> {
        let bytes = self.page(first)?;
        require(u16_at(&bytes, 10) == PAGE_OVERFLOW, first, "not an overflow page")?;
        let count = u64::from(u32_at(&bytes, 12));
        let needed = (HEADER + len).div_ceil(self.size) as u64;
        let end = first.checked_add(count).filter(|end| *end <= self.pages);
        require(count >= needed, first, "too few overflow pages")?;
        let end = end.ok_or(BadPages::Damaged { page: first, what: "beyond the end of the file" })?;
        (first..end).try_for_each(|page| self.own(page))?;
        Ok(count)
    }

    fn overflow_value(&self, first: u64, len: usize) -> Checked<Vec<u8>> {
        let mut value = vec![0; len];
        self.file.read_exact_at(&mut value, first * self.size as u64 + HEADER as u64)?;
        Ok(value)
    }

    /// A list of free pages: how many, then their numbers, descending. A list may be shorter than its value.
    fn free_list(&mut self, owner: u64, value: &[u8]) -> Checked<()> {
        let mut numbers = value.chunks_exact(8).map(|chunk| u64_at(chunk, 0));
        let count = numbers.next().and_then(|count| usize::try_from(count).ok());
        let fits = count.is_some_and(|count| count <= numbers.len()) && value.len().is_multiple_of(8);
        require(fits, owner, "a list of free pages that is too short")?;
        let mut before = u64::MAX;
        for page in numbers.take(count.unwrap_or(0)) {
            require(page < before, page, "a list of free pages that is not in order")?;
            self.own(page)?;
            before = page;
        }
        Ok(())
    }
}

/// The walk of one tree.
struct Search<'a> {
    walk: &'a mut Walk,
    kind: Kind,
    counted: &'a mut Counted,
    collected: &'a mut Collected,
}

impl Search<'_> {
    fn below(&mut self, page: u64, height: u16, bounds: Bounds<'_>) -> Checked<()> {
        let bytes = self.walk.page(page)?;
        self.walk.own(page)?;
        let expected = if height == 1 { PAGE_LEAF } else { PAGE_BRANCH };
        require(u16_at(&bytes, 10) == expected, page, "not of the kind its height asks for")?;
        let nodes = nodes(&bytes, page, height == 1)?;
        // LMDB asserts this of every tree but the free list.
        let fewest = if height > 1 && self.kind != Kind::Free { 2 } else { 1 };
        require(nodes.len() >= fewest, page, "too few nodes")?;
        if height == 1 { self.leaf(page, &nodes, bounds) } else { self.branch(page, height, &nodes, bounds) }
    }

    fn branch(&mut self, page: u64, height: u16, nodes: &[Node<'_>], bounds: Bounds<'_>) -> Checked<()> {
        self.counted.branches += 1;
        // The first key of a branch stands for everything below the second.
        self.in_order(page, &nodes[1..], bounds)?;
        for (index, node) in nodes.iter().enumerate() {
            let low = if index == 0 { bounds.0 } else { Some(node.key) };
            let high = nodes.get(index + 1).map_or(bounds.1, |next| Some(next.key));
            self.below(node.child(), height - 1, (low, high))?;
        }
        Ok(())
    }

    fn leaf(&mut self, page: u64, nodes: &[Node<'_>], bounds: Bounds<'_>) -> Checked<()> {
        self.counted.leaves += 1;
        self.counted.entries += nodes.len() as u64;
        self.in_order(page, nodes, bounds)?;
        for node in nodes {
            let flags = node.flags;
            let expected = if self.kind == Kind::Main { flags == NODE_TABLE } else { flags & !NODE_BIG == 0 };
            require(expected, page, "a node of unknown kind")?;
            require(self.kind != Kind::Main || node.len == DB_LEN, page, "a table's record of wrong length")?;
            let mut far = None;
            if flags & NODE_BIG != 0 {
                let first = u64_at(node.value, 0);
                self.counted.overflows += self.walk.overflow(first, node.len)?;
                far = Some(first);
            }
            if self.kind != Kind::Plain {
                let value = match far {
                    Some(first) => self.walk.overflow_value(first, node.len)?,
                    None => node.value.to_vec(),
                };
                self.collected.push((node.key.to_vec(), value));
            }
        }
        Ok(())
    }

    fn in_order(&self, page: u64, nodes: &[Node<'_>], (low, high): Bounds<'_>) -> Checked<()> {
        let sized = |node: &Node<'_>| self.kind != Kind::Free || node.key.len() == 8;
        require(nodes.iter().all(sized), page, "a key of wrong length")?;
        let ascending = nodes.windows(2).all(|pair| self.less(pair[0].key, pair[1].key));
        let above = nodes.first().zip(low).is_none_or(|(first, low)| !self.less(first.key, low));
        let under = nodes.last().zip(high).is_none_or(|(last, high)| self.less(last.key, high));
        require(ascending && above && under, page, "keys that are not in order")
    }

    fn less(&self, left: &[u8], right: &[u8]) -> bool {
        if self.kind == Kind::Free { u64_at(left, 0) < u64_at(right, 0) } else { left < right }
    }
}

/// One entry of a page.
struct Node<'a> {
    key: &'a [u8],
    flags: u16,
    /// Bytes of its value, wherever that is.
    len: usize,
    /// The value, or the page where it is.
    value: &'a [u8],
    low: u32,
}

impl Node<'_> {
    /// The page below a branch's node: 48 bits, the upper ones in place of the flags.
    fn child(&self) -> u64 {
        u64::from(self.low) | u64::from(self.flags) << 32
    }
}

/// The nodes of a page, in order of their pointers; together they fill its upper part exactly.
fn nodes(bytes: &[u8], page: u64, is_leaf: bool) -> Checked<Vec<Node<'_>>> {
    let (lower, upper) = (usize::from(u16_at(bytes, 12)), usize::from(u16_at(bytes, 14)));
    let sound = lower >= HEADER && lower.is_multiple_of(2) && lower <= upper && upper <= bytes.len();
    require(sound, page, "impossible bounds of its free space")?;
    let mut taken = Vec::with_capacity((lower - HEADER) / 2);
    let mut found = Vec::with_capacity(taken.capacity());
    for pointer in bytes[HEADER..lower].chunks_exact(2) {
        let at = usize::from(u16_at(pointer, 0));
        let node = bytes.get(at..).and_then(|rest| node(rest, is_leaf));
        let (node, len) = node.ok_or(BadPages::Damaged { page, what: "a node beyond its end" })?;
        taken.push((at, at + len));
        found.push(node);
    }
    taken.sort_unstable();
    let end = taken.iter().try_fold(upper, |end, (from, to)| (end == *from).then_some(*to));
    require(end == Some(bytes.len()), page, "nodes that overlap or leave gaps")?;
    Ok(found)
}

/// The node at the start of `bytes`, and how many of them it takes.
fn node(bytes: &[u8], is_leaf: bool) -> Option<(Node<'_>, usize)> {
    let header = bytes.get(..NODE_HEADER)?;
    let (low, flags) = (u32_at(header, 0), u16_at(header, 4));
    let key_end = NODE_HEADER + usize::from(u16_at(header, 6));
    let len = if is_leaf { usize::try_from(low).ok()? } else { 0 };
    let here = if is_leaf && flags & NODE_BIG != 0 { 8 } else { len };
    let end = key_end.checked_add(here)?;
    let node =
        Node { key: bytes.get(NODE_HEADER..key_end)?, flags, len, value: bytes.get(key_end..end)?, low };
    // Nodes start at even offsets.
    let padded = end.next_multiple_of(2);
    (padded <= bytes.len()).then_some((node, padded))
}

impl Table {
    /// From its 48 bytes.
    fn read(bytes: &[u8]) -> Table {
        Table {
            pad: u32_at(bytes, 0),
            flags: u16_at(bytes, 4),
            depth: u16_at(bytes, 6),
            counted: Counted {
                branches: u64_at(bytes, 8),
                leaves: u64_at(bytes, 16),
                overflows: u64_at(bytes, 24),
                entries: u64_at(bytes, 32),
            },
            root: u64_at(bytes, 40),
        }
    }
}

/// Panics beyond the end: every caller has a page, or a slice of a length it has checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
