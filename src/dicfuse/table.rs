//! [`NodeTable`]: which node id stands for what, kept in LMDB so that another process can answer for it.
//!
//! One record per root and one per listed directory. Every question is one short read transaction; a block of ids is
//! committed before anybody is told one of them. Knows ids and tree ids, but neither names nor content.

use std::path::PathBuf;

use heed::{AnyTls, RoTxn, RwTxn};

use super::{
    DicfuseStats, NodeTableOptions, Root,
    env::{self, COUNTERS, Databases},
    record::{Block, BlockKind, Counters, RootRecord},
};
use crate::{
    origin::Snapshot,
    types::{NodeId, Oid, OriginName, RepoPath, RootId},
};

/// Why the node table cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// LMDB failed.
    #[error("the node table's database failed: {0}")]
    Database(heed::Error),
    /// Its map is full.
    #[error("the node table is full; give it more room with `cache.node_map_bytes`")]
    Full,
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb: `create`, `read`, `write`, `remove`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A record is not what was written.
    #[error("the node table is damaged: {what} {key} makes no sense")]
    Corrupt {
        /// Which kind of record.
        what: &'static str,
        /// Its key.
        key: u64,
    },
    /// More node ids or root numbers are wanted than there are.
    #[error("all node ids are used up")]
    IdsUsedUp,
    /// Too many tables were thrown away.
    #[error("the node table was lost 256 times since the last boot")]
    Generations,
    /// A directory lies deeper than [`MAX_DEPTH`].
    #[error("node {0} lies more than 4096 directories deep")]
    TooDeep(NodeId),
    /// The path of a snapshot is longer than any system call could name.
    #[error("the path of the snapshot is longer than 4096 bytes")]
    PathTooLong,
}

/// Directories above one another; a path of PATH_MAX bytes names at most half as many.
pub(super) const MAX_DEPTH: usize = 4096;

/// Records removed in one transaction: some milliseconds, for which first listings of other directories wait.
const SWEEP_BATCH: usize = 1024;

/// Where a node is recorded.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Which node.
    pub node: NodeId,
    /// Where the objects of its root come from.
    pub origin: OriginName,
    /// Time of all nodes of its root.
    pub mtime: i64,
    /// The block it is in.
    pub block: Block,
    /// Its position in the block.
    pub index: u32,
}

/// The entries of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    /// Id of the first.
    pub first: u64,
    /// The tree they stand in.
    pub tree: Oid,
    /// How many.
    pub count: u32,
}

/// One step from a root down to a node: entry `index` of `tree`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub dir: NodeId,
    pub tree: Oid,
    pub index: u32,
}

pub(super) struct NodeTable(Databases);

impl From<heed::Error> for TableError {
    fn from(error: heed::Error) -> TableError {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => TableError::Full,
            other => TableError::Database(other),
        }
    }
}

impl NodeTable {
    pub(super) fn open(options: &NodeTableOptions) -> Result<NodeTable, TableError> {
        let table = NodeTable(env::open(options)?);
        table.sweep_orphans()?;
        Ok(table)
    }

    /// What tells this table from every other one.
    pub(super) fn identity(&self) -> [u8; 16] {
        self.0.identity
    }

    /// Where `node` is recorded.
    pub(super) fn place(&self, node: NodeId) -> Result<Option<Place>, TableError> {
        let txn = self.0.env.read_txn()?;
        self.place_in(&txn, node)
    }

    /// Where directory `dir` is recorded, and, once it has been listed, its entries.
    pub(super) fn directory(&self, dir: NodeId) -> Result<Option<(Place, Option<Listed>)>, TableError> {
        let txn = self.0.env.read_txn()?;
        let Some(place) = self.place_in(&txn, dir)? else { return Ok(None) };
        let listed = self.listed_in(&txn, place.block.root, dir)?;
        Ok(Some((place, listed)))
    }

    /// Gives ids to the `count` > 0 entries of `dir`, whose tree is `tree`, unless they have them: the first of them.
    /// `None` when the root is gone.
    pub(super) fn allocate(
        &self,
        root: u32,
        dir: NodeId,
        tree: Oid,
        count: u32,
    ) -> Result<Option<u64>, TableError> {
        let mut txn = self.0.env.write_txn()?;
        if self.0.roots.get(&txn, &root.to_be_bytes())?.is_none() {
            return Ok(None);
        }
        if let Some(listed) = self.listed_in(&txn, root, dir)? {
            return Ok(Some(listed.first));
        }
        let block = Block { root, kind: BlockKind::Entries { dir }, tree, count };
        let first = self.put_block(&mut txn, &block)?;
        self.0.dirs.put(&mut txn, &dir_key(root, dir), &first.to_be_bytes())?;
        txn.commit()?;
        Ok(Some(first))
    }

    /// The root already there for that origin and tree, or a new one.
    pub(super) fn add_root(
        &self,
        origin: &OriginName,
        snapshot: &Snapshot,
        mtime: i64,
    ) -> Result<Root, TableError> {
        if snapshot.path.to_bytes().len() > RepoPath::MAX_BYTES {
            return Err(TableError::PathTooLong);
        }
        let mut txn = self.0.env.write_txn()?;
        let same = |root: &Root| root.origin == *origin && root.snapshot.tree == snapshot.tree;
        if let Some(root) = self.roots_in(&txn)?.into_iter().find(same) {
            return Ok(root);
        }
        let number = self.next_root(&mut txn)?;
        let block = Block { root: number, kind: BlockKind::Top, tree: snapshot.tree, count: 1 };
        let top = NodeId(self.put_block(&mut txn, &block)?);
        let record = RootRecord { top, mtime, origin: origin.clone(), snapshot: snapshot.clone() };
        self.0.roots.put(&mut txn, &number.to_be_bytes(), &record.encode())?;
        txn.commit()?;
        Ok(served(number, record))
    }

    /// Forgets a root. From the first transaction on its nodes do not exist; the records follow in batches, and what a
    /// kill leaves of them is removed by the next [`NodeTable::open`].
    pub(super) fn drop_root(&self, id: RootId) -> Result<(), TableError> {
        let mut txn = self.0.env.write_txn()?;
        match self.root_in(&txn, id.number)? {
            Some(record) if record.snapshot.tree == id.tree => {
                self.0.roots.delete(&mut txn, &id.number.to_be_bytes())?;
                self.0.blocks.delete(&mut txn, &record.top.0.to_be_bytes())?;
                txn.commit()?;
                self.sweep(id.number)
            }
            _ => Ok(()),
        }
    }

    /// Top directory and time of the root of that name.
    pub(super) fn top(&self, id: RootId) -> Result<Option<(NodeId, i64)>, TableError> {
        let txn = self.0.env.read_txn()?;
        let record = self.root_in(&txn, id.number)?.filter(|record| record.snapshot.tree == id.tree);
        Ok(record.map(|record| (record.top, record.mtime)))
    }

    /// The root with this number.
    pub(super) fn root(&self, number: u32) -> Result<Option<Root>, TableError> {
        let txn = self.0.env.read_txn()?;
        Ok(self.root_in(&txn, number)?.map(|record| served(number, record)))
    }

    pub(super) fn roots(&self) -> Result<Vec<Root>, TableError> {
        let txn = self.0.env.read_txn()?;
        self.roots_in(&txn)
    }

    /// The root of `node` and the way down to it.
    pub(super) fn way_to(&self, node: NodeId) -> Result<Option<(Root, Vec<Step>)>, TableError> {
        let txn = self.0.env.read_txn()?;
        let (mut at, mut steps) = (node, Vec::new());
        loop {
            let Some((block, index)) = self.block_in(&txn, at)? else { return Ok(None) };
            let BlockKind::Entries { dir } = block.kind else {
                steps.reverse();
                let root = self.root_in(&txn, block.root)?;
                return Ok(root.map(|record| (served(block.root, record), steps)));
            };
            if steps.len() == MAX_DEPTH {
                return Err(TableError::TooDeep(node));
            }
            steps.push(Step { dir, tree: block.tree, index });
            at = dir;
        }
    }

    pub(super) fn stats(&self) -> Result<DicfuseStats, TableError> {
        let txn = self.0.env.read_txn()?;
        let counters = self.counters(&txn)?;
        Ok(DicfuseStats {
            roots: self.0.roots.len(&txn)?,
            blocks: self.0.dirs.len(&txn)?,
            nodes: counters.next_node - counters.first_node,
        })
    }

    fn place_in(&self, txn: &RoTxn<'_, AnyTls>, node: NodeId) -> Result<Option<Place>, TableError> {
        let Some((block, index)) = self.block_in(txn, node)? else { return Ok(None) };
        let Some(record) = self.0.roots.get(txn, &block.root.to_be_bytes())? else { return Ok(None) };
        let brief = RootRecord::decode_brief(record).ok_or_else(|| damaged("root", block.root.into()))?;
        let (mtime, origin) = brief;
        Ok(Some(Place { node, origin, mtime, block, index }))
    }

    /// The block `node` is in and its index there, whether or not its root still exists.
    fn block_in(&self, txn: &RoTxn<'_, AnyTls>, node: NodeId) -> Result<Option<(Block, u32)>, TableError> {
        let Some((key, bytes)) = self.0.blocks.get_lower_than_or_equal_to(txn, &node.0.to_be_bytes())? else {
            return Ok(None);
        };
        let first = u64::from_be_bytes(key.try_into().map_err(|_| damaged("key of a block", node.0))?);
        let block = Block::decode(first, bytes).ok_or_else(|| damaged("block", first))?;
        let index = u32::try_from(node.0 - first).ok().filter(|index| *index < block.count);
        Ok(index.map(|index| (block, index)))
    }

    fn listed_in(
        &self,
        txn: &RoTxn<'_, AnyTls>,
        root: u32,
        dir: NodeId,
    ) -> Result<Option<Listed>, TableError> {
        let Some(value) = self.0.dirs.get(txn, &dir_key(root, dir))? else { return Ok(None) };
        let first = u64::from_be_bytes(value.try_into().map_err(|_| damaged("listing of", dir.0))?);
        let block = self.0.blocks.get(txn, &first.to_be_bytes())?;
        let block = block.and_then(|bytes| Block::decode(first, bytes));
        let of_dir = |block: &Block| block.root == root && block.kind == BlockKind::Entries { dir };
        let block = block.filter(of_dir).ok_or_else(|| damaged("block", first))?;
        Ok(Some(Listed { first, tree: block.tree, count: block.count }))
    }

    fn root_in(&self, txn: &RoTxn<'_, AnyTls>, number: u32) -> Result<Option<RootRecord>, TableError> {
        let bytes = self.0.roots.get(txn, &number.to_be_bytes())?;
        let decode = |bytes| RootRecord::decode(bytes).ok_or_else(|| damaged("root", number.into()));
        bytes.map(decode).transpose()
    }

    fn roots_in(&self, txn: &RoTxn<'_, AnyTls>) -> Result<Vec<Root>, TableError> {
        let mut roots = Vec::new();
        for item in self.0.roots.iter(txn)? {
            let (key, bytes) = item?;
            let number = u32::from_be_bytes(key.try_into().map_err(|_| damaged("key of a root", 0))?);
            let record = RootRecord::decode(bytes).ok_or_else(|| damaged("root", number.into()))?;
            roots.push(served(number, record));
        }
        Ok(roots)
    }

    fn counters(&self, txn: &RoTxn<'_, AnyTls>) -> Result<Counters, TableError> {
        let bytes = self.0.meta.get(txn, COUNTERS)?;
        bytes.and_then(Counters::decode).ok_or_else(|| damaged("counters", 0))
    }

    fn put_block(&self, txn: &mut RwTxn<'_>, block: &Block) -> Result<u64, TableError> {
        let mut counters = self.counters(txn)?;
        let first = counters.next_node;
        counters.next_node += u64::from(block.count);
        if counters.next_node > env::bounds(&counters).0 {
            return Err(TableError::IdsUsedUp);
        }
        self.0.blocks.put(txn, &first.to_be_bytes(), &block.encode())?;
        self.0.meta.put(txn, COUNTERS, &counters.encode())?;
        Ok(first)
    }

    fn next_root(&self, txn: &mut RwTxn<'_>) -> Result<u32, TableError> {
        let mut counters = self.counters(txn)?;
        let number = counters.next_root;
        if u64::from(number) >= env::bounds(&counters).1 {
            return Err(TableError::IdsUsedUp);
        }
        counters.next_root = number.checked_add(1).ok_or(TableError::IdsUsedUp)?;
        self.0.meta.put(txn, COUNTERS, &counters.encode())?;
        Ok(number)
    }

    /// Removes the listings of a root that is gone, some in each transaction.
    fn sweep(&self, number: u32) -> Result<(), TableError> {
        while self.sweep_batch(number)? == SWEEP_BATCH {}
        Ok(())
    }

    fn sweep_batch(&self, number: u32) -> Result<usize, TableError> {
        let mut txn = self.0.env.write_txn()?;
        let mut batch = Vec::new();
        for item in self.0.dirs.prefix_iter(&txn, &number.to_be_bytes())?.take(SWEEP_BATCH) {
            let (key, first) = item?;
            batch.push((key.to_vec(), first.to_vec()));
        }
        for (key, first) in &batch {
            self.0.dirs.delete(&mut txn, key)?;
            self.0.blocks.delete(&mut txn, first)?;
        }
        txn.commit()?;
        Ok(batch.len())
    }

    /// Removes what a kill within [`NodeTable::drop_root`] left.
    fn sweep_orphans(&self) -> Result<(), TableError> {
        let mut from = 0;
        while let Some(number) = self.listed_root_from(from)? {
            if self.root(number)?.is_none() {
                tracing::debug!(root = number, "removing what is left of a dropped root");
                self.sweep(number)?;
            }
            let Some(next) = number.checked_add(1) else { break };
            from = next;
        }
        Ok(())
    }

    /// The smallest number ≥ `from` of a root that has listings.
    fn listed_root_from(&self, from: u32) -> Result<Option<u32>, TableError> {
        let txn = self.0.env.read_txn()?;
        let found = self.0.dirs.get_greater_than_or_equal_to(&txn, &dir_key(from, NodeId(0)))?;
        let number = |key: &[u8]| key.first_chunk().map(|number| u32::from_be_bytes(*number));
        found.map(|(key, _)| number(key).ok_or_else(|| damaged("key of a listing", from.into()))).transpose()
    }
}

fn dir_key(root: u32, dir: NodeId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&root.to_be_bytes());
    key[4..].copy_from_slice(&dir.0.to_be_bytes());
    key
}

fn served(number: u32, record: RootRecord) -> Root {
    let id = RootId { number, tree: record.snapshot.tree };
    Root { id, origin: record.origin, snapshot: record.snapshot, mtime: record.mtime }
}

fn damaged(what: &'static str, key: u64) -> TableError {
    TableError::Corrupt { what, key }
}

#[cfg(test)]
mod tests;
