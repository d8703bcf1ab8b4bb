//! The simulator: real nodes on a virtual network, in virtual time.
//!
//! It provides everything around a node that tests replace: the MQTT server, the links, the clocks, the disks, the
//! functions. It contains no second version of anything that the core does, except the oracle that the core is
//! compared with.
#![forbid(unsafe_code)]

pub mod canvases;
pub mod check;
pub mod cluster;
pub mod oracle;
pub mod scenario;
pub mod workload;
