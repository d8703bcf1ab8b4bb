//! Modules before they are deployed: reads the content of a compiled module, and checks whether a node accepts it.
//!
//! [`Engine::load`] checks a module as a node does. [`functions`] reads only its descriptions.

pub use broccoli_proto::module::{Manifest, ManifestError, SignedManifest};
pub use broccoli_wasm::{Engine, Limits, LoadError, functions};
