//! Modules before they are deployed: what is in a compiled module, and whether a node would run it.
//!
//! [`Engine::load`] checks a module as a node does; [`functions`] reads its descriptions only.

pub use broccoli_proto::module::{Manifest, ManifestError, SignedManifest};
pub use broccoli_wasm::{Engine, Limits, LoadError, functions};
