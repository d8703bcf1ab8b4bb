//! The functions that every node with slots has by itself: the modules `sys` and `board`.
//!
//! Their descriptions are [`broccoli_abi::builtin`]'s, so that nodes of every kind describe them equally.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use std::{fs, thread};

use broccoli_abi::builtin::{self, MODULE_BOARD, MODULE_SYS};
use broccoli_abi::{Function, HostCall, Type};
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Cbor, NodeId};
use tokio::sync::mpsc::UnboundedSender;

use crate::board::{Board, BoardError};
use crate::executor::Report;
use crate::native::{Native, NativeFunction};

/// What the functions need to know of their node.
pub(crate) struct Context {
    pub(crate) name: NodeId,
    pub(crate) slots: u16,
    pub(crate) features: Vec<String>,
    pub(crate) board: Arc<Board>,
    /// Whether the operator lets tasks reboot the machine.
    pub(crate) reboots: bool,
    pub(crate) reports: UnboundedSender<Report>,
}

/// Both modules.
pub(crate) fn modules(context: Context) -> [(NativeModule, HashMap<String, Native>); 2] {
    let Context { name, slots, features, board, reboots, reports } = context;
    let started = Instant::now();
    let info = info(name, slots, &features, &board);
    let measured = board.clone();
    let sys = [
        native("info", move || info.clone()),
        native("ping", || "pong".to_owned()),
        native("reboot", move || reboot(reboots, &reports)),
        native("vitals", move || vitals(started, &measured)),
    ];
    let (reading, writing) = (board.clone(), board.clone());
    let read = move |pin: u16| reading.perform(HostCall::GpioRead { pin }).map(|level| level != 0);
    let write = move |pin: u16, high: bool| writing.perform(HostCall::GpioWrite { pin, high }).map(drop);
    let board = [
        native("blink", move |times: u32, period_ms: u32| blink(&board, times, period_ms)),
        native("gpio_read", read),
        native("gpio_write", write),
    ];
    [module(MODULE_SYS, builtin::sys(), sys), module(MODULE_BOARD, builtin::board(), board)]
}

fn native<Args: 'static>(name: &'static str, function: impl NativeFunction<Args>) -> (&'static str, Native) {
    (name, Native::new(name, function))
}

/// Functions under their common descriptions, which name their arguments.
fn module<const N: usize>(
    name: &str,
    descriptions: Vec<Function>,
    natives: [(&'static str, Native); N],
) -> (NativeModule, HashMap<String, Native>) {
    let mut natives = HashMap::from(natives);
    assert_eq!(natives.len(), descriptions.len(), "each function of {name} is described once");
    for description in &descriptions {
        let native = natives.get_mut(description.name.as_str()).expect("what is described is there");
        assert_eq!(types(&native.description), types(description), "{description}");
        native.description = Arc::new(description.clone());
    }
    let natives = natives.into_iter().map(|(name, native)| (name.to_owned(), native)).collect();
    (NativeModule { name: name.into(), functions: descriptions.into() }, natives)
}

fn types(function: &Function) -> (Vec<&Type>, &Type) {
    (function.args.iter().map(|arg| &arg.ty).collect(), &function.ret)
}

fn info(name: NodeId, slots: u16, features: &[String], board: &Board) -> BTreeMap<String, Cbor> {
    map([
        ("name", Cbor::encode(&name.as_str())),
        ("version", Cbor::encode(&env!("CARGO_PKG_VERSION"))),
        ("os", Cbor::encode(&std::env::consts::OS)),
        ("arch", Cbor::encode(&std::env::consts::ARCH)),
        ("board", Cbor::encode(&board.kind())),
        ("slots", Cbor::encode(&slots)),
        ("labels", Cbor::encode(&features)),
    ])
}

/// What cannot be told is left out.
fn vitals(started: Instant, board: &Board) -> BTreeMap<String, Cbor> {
    let mut vitals = map([("uptime_s", Cbor::encode(&started.elapsed().as_secs()))]);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for (key, field) in [("memory_bytes", "MemTotal:"), ("memory_free_bytes", "MemAvailable:")] {
        vitals.extend(kibibytes(&memory, field).map(|kib| (key.to_owned(), Cbor::encode(&(kib * 1_024)))));
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|minute| minute.parse::<f64>().ok());
    vitals.extend(load.map(|load| ("load".to_owned(), Cbor::encode(&load))));
    let temperature = board.perform(HostCall::TemperatureRead).ok();
    let celsius = temperature.map(|thousandths| f64::from(thousandths) / 1_000.0);
    vitals.extend(celsius.map(|celsius| ("temperature_c".to_owned(), Cbor::encode(&celsius))));
    vitals
}

fn kibibytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn map<const N: usize>(items: [(&str, Cbor); N]) -> BTreeMap<String, Cbor> {
    items.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Only asks for it: the node drains first, so that this answer and the results of others arrive.
fn reboot(is_allowed: bool, reports: &UnboundedSender<Report>) -> Result<(), &'static str> {
    if !is_allowed {
        return Err("this node may not be rebooted by tasks: start it with `broccoli node --allow-reboot`");
    }
    // A node that ends already needs no reason to.
    let _ = reports.send(Report::Reboot);
    Ok(())
}

fn blink(board: &Board, times: u32, period_ms: u32) -> Result<(), String> {
    let half = builtin::blink_half(times, period_ms)?;
    let set = |on| board.perform(HostCall::LedSet { on }).map_err(|error: BoardError| error.to_string());
    for _ in 0..times {
        set(true)?;
        thread::sleep(half);
        set(false)?;
        thread::sleep(half);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read() {
        let meminfo = "MemTotal:         948304 kB\nMemFree:   1 kB\nMemAvailable:     512 kB\n";
        assert_eq!(kibibytes(meminfo, "MemTotal:"), Some(948_304));
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), Some(512));
        assert_eq!(kibibytes("", "MemTotal:"), None);
    }

    #[test]
    fn functions_do_what_their_common_descriptions_say() {
        let (reports, _) = tokio::sync::mpsc::unbounded_channel();
        let name = "n1".parse().expect("is a name");
        let context = Context { name, slots: 1, features: vec![], board: Arc::default(), reboots: false, reports };
        // It asserts that the types are those of the functions.
        for (module, natives) in modules(context) {
            for function in module.functions.iter() {
                assert_eq!(*natives[&function.name].description, *function);
            }
        }
    }
}
