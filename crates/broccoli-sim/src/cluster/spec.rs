//! The specification of a node of the cluster.

use broccoli_core::Limits;

/// The specification of a node.
#[derive(Clone)]
pub struct Spec {
    /// Its name; two nodes with one name are twins.
    pub name: String,
    /// How many tasks it runs side by side.
    pub slots: u16,
    /// Labels and capabilities.
    pub features: Vec<String>,
    /// Whether it takes jobs of others.
    pub resident: bool,
    /// Whether it has a disk.
    pub durable: bool,
    /// Whether it has the functions of the tests built in.
    pub native: bool,
    /// Whether it pulls the code of modules.
    pub holds_code: bool,
    /// Whether it follows who is there.
    pub watches: bool,
    /// Whether it runs a later version, which sends messages that this version does not know.
    pub later: bool,
    /// Its capacities.
    pub limits: Limits,
    /// A run with longer arguments, in bytes, has too little memory.
    pub memory_bytes_max: usize,
}

impl Spec {
    /// A node that takes jobs of other nodes and runs tasks.
    pub fn new(name: &str, slots: u16) -> Spec {
        Spec {
            name: name.into(),
            slots,
            features: vec![],
            resident: true,
            durable: false,
            native: true,
            holds_code: true,
            watches: true,
            later: false,
            limits: Limits::host(),
            memory_bytes_max: usize::MAX,
        }
    }

    /// A node that takes no jobs of other nodes.
    pub fn worker(name: &str, slots: u16) -> Spec {
        Spec { resident: false, ..Spec::new(name, slots) }
    }

    /// With one more label.
    pub fn label(mut self, label: &str) -> Spec {
        self.features.push(label.into());
        self
    }

    /// With a disk.
    pub fn durable(self) -> Spec {
        Spec { durable: true, ..self }
    }

    /// A program that only submits.
    pub fn client(name: &str) -> Spec {
        Spec { resident: false, native: false, holds_code: false, ..Spec::new(name, 0) }
    }

    /// With so little memory that it can hold arguments of so many bytes.
    pub fn memory(self, memory_bytes_max: usize) -> Spec {
        Spec { memory_bytes_max, ..self }
    }

    /// With other capacities.
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Spec {
        change(&mut self.limits);
        self
    }
}
