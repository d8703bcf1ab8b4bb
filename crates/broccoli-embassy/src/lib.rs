//! The embassy shell of a Broccoli node, for microcontrollers: the same state machine as on a PC, with an MQTT link
//! over embassy-net, and an executor without threads.
//!
//! ```text
//!  firmware: pins, radio or virtio, random numbers, settings, reset
//!     │ Settings, Device, Stack                    │ embassy-net
//!  ┌──▼───────────┐   packets, actions   ┌─────────▼───┐
//!  │ driver       │ ◄──────────────────► │ link (MQTT) │
//!  │ executor     │                      └─────────────┘
//!  │ store        │ ── broccoli-core, broccoli-run, broccoli-wasm
//!  └──────────────┘
//! ```
//!
//! It has the same files as the tokio shell (`broccoli-node`), and no protocol of its own. It knows no chip and no
//! pins: the firmware of a board passes a [`Device`], a network stack and [`Settings`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod device;
mod driver;
mod executor;
mod link;
mod settings;
mod store;

pub use broccoli_abi::HostCall;
pub use broccoli_proto::led::{Led, LedKind};
pub use broccoli_run::capability;
pub use device::{Device, Memory};
pub use driver::{End, run};
pub use embedded_storage::nor_flash;
pub use settings::{Settings, SettingsError, Wifi};
pub use store::Flash;
