//! The words everything else speaks: ids, names, paths, tree entries. No I/O, no serde.
//!
//! - [`oid`]: [`Oid`], git's SHA-1 object id, and how it is computed and checked
//! - [`name`]: [`FileName`], one name in a directory
//! - [`path`]: [`RepoPath`], a path inside a repository
//! - [`tree`]: [`Tree`], a parsed git tree object
//! - [`id`]: [`OriginName`], [`RootId`], [`NodeId`], [`WorkspaceId`]

pub mod id;
pub mod name;
pub mod oid;
pub mod path;
pub mod tree;

pub use id::{NodeId, OriginName, RootId, WorkspaceId};
pub use name::FileName;
pub use oid::{ObjectKind, Oid};
pub use path::RepoPath;
pub use tree::{EntryKind, Tree, TreeEntry};
