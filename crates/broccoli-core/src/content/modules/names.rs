//! Resolves the name of a function to a function of a module.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_abi::Function;
use broccoli_abi::builtin::is_builtin;
use broccoli_proto::ModuleHash;
use broccoli_proto::module::ModuleEntry;
use litemap::LiteMap;

use super::Modules;
use crate::members::Members;
use crate::text;

/// Most functions that an error message lists.
const LISTED_MAX: usize = 20;

/// A function found by its name.
pub(crate) struct Found<'m> {
    pub(crate) module: ModuleHash,
    pub(crate) module_name: &'m str,
    pub(crate) function: &'m Function,
}

impl Found<'_> {
    /// `module.function`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.module_name, self.function.name)
    }
}

impl Modules {
    /// The newest version of each module that new jobs may use: held by this node, or held by a live node if the module
    /// is built in or this node holds no code.
    pub(crate) fn usable(&self, holds_code: bool, members: &Members) -> LiteMap<&str, &ModuleEntry> {
        let mut usable: LiteMap<&str, &ModuleEntry> = LiteMap::new_vec();
        for (id, entry) in &self.catalog {
            let elsewhere = || members.alive().any(|(_, member)| self.peer_holds(member.birth.modules, id));
            let travels = matches!(entry, ModuleEntry::Wasm(_));
            if !(self.held.contains_key(id) || (!(travels && holds_code) && elsewhere())) {
                continue;
            }
            let newest = usable.entry(entry.name()).or_insert(entry);
            if entry.version() > newest.version() {
                *newest = entry;
            }
        }
        usable
    }

    /// Resolves the name of a function. The error lists the available ones.
    pub(crate) fn resolve(&self, members: &Members, holds_code: bool, name: &str) -> Result<Found<'_>, String> {
        let usable = self.usable(holds_code, members);
        let (module, function) =
            name.rsplit_once('.').map_or((None, name), |(module, function)| (Some(module), function));
        let mut found = Vec::new();
        for (module_name, entry) in &usable {
            if module.is_some_and(|module| module != *module_name) {
                continue;
            }
            let same = entry.functions().iter().find(|f| f.name == function);
            found.extend(same.map(|function| Found { module: entry.id(), module_name: entry.name(), function }));
        }
        // Deployed functions take precedence over built-in ones.
        let is_deployed = |found: &Found<'_>| !is_builtin(found.module_name);
        if found.iter().any(is_deployed) {
            found.retain(is_deployed);
        }
        match found.len() {
            1 => found.pop().ok_or_else(String::new),
            0 => Err(unknown(name, &usable)),
            _ => {
                let names: Vec<String> = found.iter().map(Found::full_name).collect();
                Err(format!("{name} is ambiguous: there are {}", names.join(" and ")))
            }
        }
    }
}

fn unknown(name: &str, usable: &LiteMap<&str, &ModuleEntry>) -> String {
    let name = text::name(name);
    let deployed = usable.iter().filter(|(module, _)| !is_builtin(module));
    let all =
        deployed.flat_map(|(module, entry)| entry.functions().iter().map(move |f| format!("{module}.{}", f.name)));
    let mut all: Vec<String> = all.collect();
    if all.is_empty() {
        return format!("no function {name}: nothing is deployed yet");
    }
    let more = all.len().saturating_sub(LISTED_MAX);
    all.truncate(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("no function {name}; there are {}{more}", all.join(", "))
}
