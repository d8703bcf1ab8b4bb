//! Content that is named by its hash and pulled in pieces: the code of modules, and values that fit into no packet.
//!
//! ```text
//!   modules   manifest ──► Pull of chunks, from any node that holds it ──► the shell's store
//!   values    BlobRef  ──► Pull of pieces, from its sender             ──► memory
//!             other nodes' requests ──► Serving ──► pieces, last in a packet
//! ```
//!
//! All kinds share the messages, [`pull`] (whom to ask, and in pieces of which length), [`flow`] (which pieces are
//! asked for, how many at once, and when again) and [`serve`] (which pieces wait to be sent). A kind has a file of its
//! own for what differs: where its bytes are, what there has to be room for before a pull begins, what the pieces are
//! checked against, and when a pull is given up.
//!
//! **Another kind of content**, such as firmware images, is a file here and a variant of [`Kind`]. The file has the
//! pulls of that kind and says what this node holds of it; the compiler names each place of this file that asks for the
//! kind.

mod flow;
pub(crate) mod modules;
mod pull;
pub(crate) mod serve;
pub(crate) mod values;

use alloc::vec::Vec;

use broccoli_proto::message::{ContentPiece, ContentRequest, Message};
use broccoli_proto::module::CHUNK_BYTES;
use broccoli_proto::packet::Address;
use broccoli_proto::{ContentId, ModuleHash, NodeId};

use self::modules::Modules;
use self::pull::{PIECE_BYTES_MAX, PIECE_BYTES_MIN};
use self::serve::Serving;
use crate::io::Action;
use crate::members::Members;
use crate::shared::Shared;

/// The kinds of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The code of a module, in chunks. The shell stores and loads it.
    Module,
    /// A value, in memory.
    Value,
}

/// A node asks for pieces.
pub(crate) fn on_request(
    shared: &mut Shared,
    modules: &Modules,
    serving: &mut Serving,
    from: NodeId,
    request: &ContentRequest,
) {
    let ContentRequest { content, piece_bytes, .. } = *request;
    if from == shared.me() || !(PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&piece_bytes) {
        return;
    }
    let Some((kind, bytes)) = find_held(shared, modules, content) else {
        shared.outbox.send(from, Message::ContentGone(content));
        return;
    };
    match kind {
        Kind::Module if piece_bytes != CHUNK_BYTES => {}
        Kind::Module => {
            for index in serving.on_request(from, request, bytes, true) {
                shared.actions.push_back(Action::LoadChunk { module: content.into(), index, to: from });
            }
        }
        Kind::Value => {
            serving.on_request(from, request, bytes, false);
            shared.outbox.mark(Address::Node(from));
        }
    }
}

/// What this node holds under an id, and its length in bytes; a value counts as asked for now. A value that happens to be
/// the manifest of a module has the id of that module; the module goes first.
fn find_held(shared: &mut Shared, modules: &Modules, content: ContentId) -> Option<(Kind, u32)> {
    if let Some(bytes) = modules.code_bytes(&content.into()) {
        return Some((Kind::Module, bytes));
    }
    let bytes = shared.values.held.on_request(content, shared.now)?;
    Some((Kind::Value, bytes))
}

/// The shell has loaded a chunk of a module for a node, or does not have it.
pub(crate) fn on_chunk_loaded(
    shared: &mut Shared,
    serving: &mut Serving,
    to: NodeId,
    (module, index): (ModuleHash, u32),
    bytes: Option<Vec<u8>>,
) {
    if serving.on_loaded(to, module.into(), index.saturating_mul(CHUNK_BYTES), bytes) {
        shared.outbox.mark(Address::Node(to));
    }
}

/// A piece has come. Of a module it may come from any node, of a value from the one that is asked.
pub(crate) fn on_piece(
    shared: &mut Shared,
    modules: &mut Modules,
    members: &Members,
    from: NodeId,
    piece: ContentPiece,
) {
    match kind_of_pull(modules, piece.content) {
        Kind::Module => modules.on_piece(shared, members, from, piece),
        Kind::Value => shared.values.pulls.on_piece(shared.now, &mut shared.outbox, from, &piece),
    }
}

/// A node does not hold what it was asked for.
pub(crate) fn on_gone(shared: &mut Shared, modules: &mut Modules, from: NodeId, content: ContentId) {
    match kind_of_pull(modules, content) {
        Kind::Module => modules.on_gone(from, &content.into()),
        Kind::Value => shared.values.pulls.on_gone(from, content),
    }
}

/// What is being pulled under an id, if anything is.
fn kind_of_pull(modules: &Modules, content: ContentId) -> Kind {
    if modules.is_pulled(&content.into()) { Kind::Module } else { Kind::Value }
}
