//! Content named by its hash and pulled in pieces: the code of modules, and values that do not fit into a packet.
//!
//! ```text
//!   modules   manifest ──► Pull of chunks, from any node that holds it ──► the shell's store
//!   values    BlobRef  ──► Pull of pieces, from its sender             ──► memory
//!             other nodes' requests ──► Serving ──► pieces, last in a packet
//! ```
//!
//! All kinds share the messages, [`pull`] (which node is asked, and the length of pieces), [`flow`] (which pieces are
//! requested, how many at once, and when again) and [`serve`] (which pieces wait to be sent). Each kind has its own
//! file for the differences: where its bytes are stored, how much room a pull needs before it starts, how pieces are
//! verified, and when a pull is given up.
//!
//! To add **another kind of content**, such as firmware images, add a file here and a variant of [`Kind`]. The file
//! owns the pulls of that kind and knows what this node holds of it; the compiler then lists all places in this file
//! that need the new kind.

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
    /// The code of a module, in chunks. The shell stores it.
    Module,
    /// A value, stored in memory.
    Value,
}

/// A node requests pieces.
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

/// The kind and length in bytes of the content that this node holds under an id. For a value, this also notes that it
/// was requested. If a value is equal to the manifest of a module, both have the same id; then the module is returned.
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

/// A piece has arrived. Chunks of a module may come from any node, pieces of a value only from its sender.
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

/// A node does not hold the content that was requested.
pub(crate) fn on_gone(shared: &mut Shared, modules: &mut Modules, from: NodeId, content: ContentId) {
    match kind_of_pull(modules, content) {
        Kind::Module => modules.on_gone(from, &content.into()),
        Kind::Value => shared.values.pulls.on_gone(from, content),
    }
}

/// The kind of content that is being pulled under an id; a value if nothing is.
fn kind_of_pull(modules: &Modules, content: ContentId) -> Kind {
    if modules.is_pulled(&content.into()) { Kind::Module } else { Kind::Value }
}
