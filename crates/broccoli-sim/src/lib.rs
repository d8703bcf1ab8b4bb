//! Real nodes on a virtual network, in virtual time.
//!
//! Owns everything around a node that tests replace: the MQTT server, the links, the clocks, the
//! disks, the functions. Never a second version of anything that the core does.
#![forbid(unsafe_code)]

pub mod cluster;
