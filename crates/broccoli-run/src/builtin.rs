//! The built-in functions, which every node with slots has: the modules `sys` and `board`.
//!
//! [`broccoli_abi::builtin`] describes them, so they are the same on all kinds of nodes. A call is a small state
//! machine: it asks its shell for what it needs of the board, and no thread waits while it sleeps.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_abi::builtin::{self, MODULE_BOARD, MODULE_SYS};
use broccoli_abi::{Function, HostCall};
use broccoli_proto::cbor::{put_map_header, put_text};
use broccoli_proto::message::Failure;
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Cause, Cbor, ModuleHash};

use crate::host::{Machine, MachineVitals};

/// Both modules on this node.
#[derive(Debug)]
pub struct Builtins {
    /// The descriptions are made when they are needed, which is seldom.
    modules: [(ModuleHash, Describe); 2],
    info: Cbor,
    reboot: Result<(), &'static str>,
    machine: Machine,
    started_us: u64,
}

/// Describes the functions of a module.
type Describe = fn() -> Vec<Function>;

/// The data of `sys.info`, and whether `sys.reboot` is allowed.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Number of tasks that it runs at the same time.
    pub slots: u16,
    /// Labels and capabilities that jobs can route by: see [`crate::features`].
    pub labels: &'a [String],
    /// The kind of board: `none`, `linux`, `esp32`, `esp32s3`, `esp32c3`, `esp32c6`.
    pub board: &'a str,
    /// The operating system; `none` on a chip.
    pub os: &'a str,
    /// The processor, as Rust's standard library names it.
    pub arch: &'a str,
    /// Version of the program.
    pub version: &'a str,
    /// Whether tasks may reboot the machine. If not, the text says how to allow it.
    pub reboot: Result<(), &'static str>,
}

/// A call that has not ended.
#[derive(Debug)]
pub(crate) enum Call {
    /// Ends with null after the answer of the board.
    Write,
    /// Ends with the level that the board answers.
    Read,
    /// Ends with the vitals after the board has answered with the temperature, in thousandths of a degree, or an error.
    Vitals { temperature: Option<i32> },
    /// Switches the LED `left` more times.
    Blink { left: u32, half_us: u64 },
}

/// What a call does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// The call ends with this value.
    Value(Cbor),
    /// The call ends with null, and the machine reboots.
    Reboot,
    /// The call asks the board.
    Board(HostCall),
    /// The call asks for the vitals of the machine.
    Vitals,
    /// The call sleeps for this many microseconds.
    Sleep(u64),
}

/// Both modules, as the core gets them.
#[must_use]
pub fn modules() -> [NativeModule; 2] {
    [described(MODULE_SYS, builtin::sys), described(MODULE_BOARD, builtin::board)]
}

fn described(name: &str, functions: Describe) -> NativeModule {
    NativeModule { name: name.into(), functions: functions().into() }
}

impl Builtins {
    /// The functions of a node that starts now.
    #[must_use]
    pub fn new(about: About<'_>, machine: Machine) -> Builtins {
        let info = [
            ("arch", Cbor::encode(&about.arch)),
            ("board", Cbor::encode(&about.board)),
            ("labels", Cbor::encode(&about.labels)),
            ("name", Cbor::encode(&about.name)),
            ("os", Cbor::encode(&about.os)),
            ("slots", Cbor::encode(&about.slots)),
            ("version", Cbor::encode(&about.version)),
        ];
        Builtins {
            modules: [
                (described(MODULE_SYS, builtin::sys).id(), builtin::sys),
                (described(MODULE_BOARD, builtin::board).id(), builtin::board),
            ],
            info: map(&info),
            reboot: about.reboot,
            machine,
            started_us: (machine.now_us)(),
        }
    }

    /// Whether a module is one of the two.
    pub(crate) fn has(&self, module: &ModuleHash) -> bool {
        self.modules.iter().any(|(id, _)| id == module)
    }

    /// Starts a call.
    ///
    /// # Errors
    /// The error of the function, or what is wrong with the call.
    pub(crate) fn begin(&self, module: &ModuleHash, function: &str, args: &Cbor) -> Result<(Call, Next), Failure> {
        let unfit = |text: &str| Failure::new(Cause::Unfit, text);
        let functions = self.modules.iter().find(|(id, _)| id == module).map(|(_, functions)| functions());
        let known = functions.unwrap_or_default().into_iter().find(|known| known.name == function);
        let description = known.ok_or_else(|| unfit("no such function"))?;
        description.check_args(args.as_bytes()).map_err(|error| unfit(&error.to_string()))?;
        self.checked(&description, args).map_err(|text| Failure::new(Cause::Returned, text))
    }

    /// Starts a call. The arguments were checked.
    fn checked(&self, function: &Function, args: &Cbor) -> Result<(Call, Next), String> {
        let args = args.elements().unwrap_or_default();
        let number = |at: usize| args.get(at).and_then(|arg| minicbor::decode::<u32>(arg).ok()).unwrap_or(0);
        let flag = |at: usize| args.get(at).and_then(|arg| minicbor::decode::<bool>(arg).ok()).unwrap_or(false);
        let call = match function.name.as_str() {
            "ping" => (Call::Write, Next::Value(Cbor::encode(&"pong"))),
            "info" => (Call::Write, Next::Value(self.info.clone())),
            "vitals" => (Call::Vitals { temperature: None }, Next::Board(HostCall::TemperatureRead)),
            "reboot" => {
                self.reboot?;
                (Call::Write, Next::Reboot)
            }
            "blink" => blink(number(0), number(1))?,
            "gpio_read" => (Call::Read, Next::Board(HostCall::GpioRead { pin: number(0) as u16 })),
            "gpio_write" => (Call::Write, Next::Board(HostCall::GpioWrite { pin: number(0) as u16, high: flag(1) })),
            name => return Err(format!("there is no function {name}")),
        };
        Ok(call)
    }

    /// The vitals of this node. Values that are not known are left out.
    pub(crate) fn vitals(&self, call: &Call, vitals: MachineVitals) -> Cbor {
        let celsius = match call {
            Call::Vitals { temperature } => temperature.map(|thousandths| f64::from(thousandths) / 1_000.0),
            _ => None,
        };
        let uptime_s = ((self.machine.now_us)() - self.started_us) / 1_000_000;
        let vitals = [
            ("load", vitals.load.map(|load| Cbor::encode(&load))),
            ("memory_bytes", vitals.memory_bytes.map(|bytes| Cbor::encode(&bytes))),
            ("memory_free_bytes", vitals.memory_free_bytes.map(|bytes| Cbor::encode(&bytes))),
            ("temperature_c", celsius.map(|celsius| Cbor::encode(&celsius))),
            ("uptime_s", Some(Cbor::encode(&uptime_s))),
        ];
        let known: Vec<_> = vitals.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        map(&known)
    }
}

impl Call {
    /// Continues with the answer of the board.
    ///
    /// # Errors
    /// The error of the board.
    pub(crate) fn answer(&mut self, answer: Result<i32, &str>) -> Result<Next, String> {
        Ok(match self {
            Call::Vitals { temperature } => {
                *temperature = answer.ok();
                Next::Vitals
            }
            Call::Write => {
                answer?;
                Next::Value(Cbor::null())
            }
            Call::Read => Next::Value(Cbor::encode(&(answer? != 0))),
            Call::Blink { left, half_us } => {
                answer?;
                *left -= 1;
                Next::Sleep(*half_us)
            }
        })
    }

    /// Continues after a pause.
    pub(crate) fn wake(&mut self) -> Next {
        match self {
            Call::Blink { left, .. } if *left > 0 => Next::Board(HostCall::LedSet { on: left.is_multiple_of(2) }),
            _ => Next::Value(Cbor::null()),
        }
    }
}

fn blink(times: u32, period_ms: u32) -> Result<(Call, Next), String> {
    let half_us = builtin::blink_half(times, period_ms)?.as_micros() as u64;
    let mut call = Call::Blink { left: 2 * times, half_us };
    let next = call.wake();
    Ok((call, next))
}

/// A map of encoded values, in the order of their keys.
fn map(items: &[(&str, Cbor)]) -> Cbor {
    let mut map = Vec::new();
    put_map_header(&mut map, items.len());
    for (key, value) in items {
        put_text(&mut map, key);
        map.extend_from_slice(value.as_bytes());
    }
    Cbor::from_encoded(map)
}
