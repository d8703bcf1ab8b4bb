//! Real nodes on a virtual network, in virtual time.
//!
//! Owns everything around a node that tests replace: the MQTT server, the links, the clocks, the
//! disks, the functions. Never a second version of anything that the core does, but for the oracle
//! that it is compared with.
#![forbid(unsafe_code)]

pub mod check;
pub mod cluster;
pub mod oracle;
pub mod scenario;
pub mod workload;
