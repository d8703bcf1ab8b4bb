//! The MQTT topics of addresses: `broccoli/<cluster>/<node>/{in,birth}` and `broccoli/<cluster>/_all`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::NodeId;
use crate::packet::Address;

/// The topics of one cluster.
#[derive(Clone, Debug)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// The topics of the cluster with this id. The same rules apply to the id as to a node's name.
    pub fn new(cluster: NodeId) -> Topics {
        Topics { prefix: format!("broccoli/{cluster}/") }
    }

    /// The topic of an address.
    pub fn topic(&self, to: Address) -> String {
        match to {
            Address::Node(node) => format!("{}{node}/in", self.prefix),
            Address::Birth(node) => format!("{}{node}/birth", self.prefix),
            Address::All => format!("{}_all", self.prefix),
        }
    }

    /// The address of a topic, or `None` if it is not one of this cluster's.
    pub fn address(&self, topic: &str) -> Option<Address> {
        let rest = topic.strip_prefix(&self.prefix)?;
        if rest == "_all" {
            return Some(Address::All);
        }
        let (node, kind) = rest.split_once('/')?;
        let node: NodeId = node.parse().ok()?;
        match kind {
            "in" => Some(Address::Node(node)),
            "birth" => Some(Address::Birth(node)),
            _ => None,
        }
    }

    /// What a node subscribes to. Only a node with enough memory watches all births.
    pub fn subscriptions(&self, me: NodeId, watch_births: bool) -> Vec<String> {
        let births = if watch_births { format!("{}+/birth", self.prefix) } else { self.topic(Address::Birth(me)) };
        alloc::vec![self.topic(Address::Node(me)), self.topic(Address::All), births]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_addresses_are_each_others_inverse() -> Result<(), crate::id::BadName> {
        let topics = Topics::new("c1".parse()?);
        let pi = "pi-1".parse()?;
        for address in [Address::Node(pi), Address::Birth(pi), Address::All] {
            assert_eq!(topics.address(&topics.topic(address)), Some(address));
        }
        for foreign in ["broccoli/c2/_all", "broccoli/c1/pi-1/out", "broccoli/c1/+/in", "x"] {
            assert_eq!(topics.address(foreign), None, "{foreign}");
        }
        Ok(())
    }
}
