//! The functions that every node has by itself: the modules `sys` and `board`.
//!
//! Their descriptions are [`broccoli_abi::builtin`]'s, so that nodes of every kind describe them equally.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use broccoli_abi::builtin::{self, MODULE_BOARD, MODULE_SYS};
use broccoli_abi::{Function, HostCall};
use broccoli_proto::cbor::{put_map_header, put_text};
use broccoli_proto::message::Failure;
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Cause, Cbor, ModuleHash};
use embassy_time::{Duration, Instant};

use crate::device::Device;
use crate::settings::Settings;

/// As the standard library calls them elsewhere.
const ARCH: &str = if cfg!(target_arch = "riscv32") {
    "riscv32"
} else if cfg!(target_arch = "xtensa") {
    "xtensa"
} else {
    "other"
};

/// Both modules, as this node has them.
#[derive(Debug)]
pub(crate) struct Builtins {
    /// How each is described: made anew when it is needed, which is seldom.
    modules: [(ModuleHash, Describe); 2],
    device: Device,
    info: Cbor,
    /// Whether its settings let tasks reboot it.
    reboots: bool,
    started: Instant,
}

/// Describes the functions of a module.
type Describe = fn() -> Vec<Function>;

/// What a call has led to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its result.
    Value(Cbor),
    /// It goes on.
    Blink(Blink),
    /// The node is to start again, once it has answered with null.
    Reboot,
}

/// A LED that blinks.
#[derive(Debug)]
pub(crate) struct Blink {
    /// Times that it is to be switched.
    left: u32,
    half: Duration,
}

impl Builtins {
    pub(crate) fn new(settings: &Settings, features: &[String], slots: u16, device: &Device) -> Builtins {
        let info = [
            ("arch", Cbor::encode(&ARCH)),
            ("board", Cbor::encode(&device.board_kind)),
            ("labels", Cbor::encode(&features)),
            ("name", Cbor::encode(&settings.name.as_str())),
            ("os", Cbor::encode(&"none")),
            ("slots", Cbor::encode(&slots)),
            ("version", Cbor::encode(&env!("CARGO_PKG_VERSION"))),
        ];
        Builtins {
            modules: [
                (native(MODULE_SYS, builtin::sys).id(), builtin::sys),
                (native(MODULE_BOARD, builtin::board).id(), builtin::board),
            ],
            device: device.clone(),
            info: map(&info),
            reboots: settings.reboots,
            started: Instant::now(),
        }
    }

    /// Both modules, for the state machine.
    pub(crate) fn natives() -> Vec<NativeModule> {
        [native(MODULE_SYS, builtin::sys), native(MODULE_BOARD, builtin::board)].into()
    }

    /// Whether this is one of the modules.
    pub(crate) fn has(&self, module: &ModuleHash) -> bool {
        self.modules.iter().any(|(id, _)| id == module)
    }

    /// Calls a function.
    ///
    /// # Errors
    /// The function's own, or what is wrong with the call.
    pub(crate) fn call(&self, module: &ModuleHash, function: &str, args: &Cbor) -> Result<Answer, Failure> {
        let unfit = |text: &str| Failure::new(Cause::Unfit, text);
        let functions = self.modules.iter().find(|(id, _)| id == module).map(|(_, functions)| functions());
        let known = functions.unwrap_or_default().into_iter().find(|known| known.name == function);
        let description = known.ok_or_else(|| unfit("no such function"))?;
        description.check_args(args.as_bytes()).map_err(|error| unfit(&error.to_string()))?;
        self.answer(&description, args).map_err(|text| Failure::new(Cause::Returned, text))
    }

    /// What a function gives whose arguments have been checked.
    fn answer(&self, function: &Function, args: &Cbor) -> Result<Answer, String> {
        let args = || args.elements().unwrap_or_default();
        let number = |at: usize| args().get(at).and_then(|arg| minicbor::decode::<u32>(arg).ok()).unwrap_or(0);
        let perform = |call| (self.device.board)(call).map_err(ToString::to_string);
        let value = match function.name.as_str() {
            "ping" => Cbor::encode(&"pong"),
            "info" => self.info.clone(),
            "vitals" => self.vitals(),
            "reboot" if self.reboots => return Ok(Answer::Reboot),
            "reboot" => return Err("this node may not be rebooted by tasks: its settings lack reboot=yes".into()),
            "blink" => return Blink::new(number(0), number(1)).map(Answer::Blink),
            "gpio_read" => Cbor::encode(&(perform(HostCall::GpioRead { pin: number(0) as u16 })? != 0)),
            "gpio_write" => {
                let high = args().get(1).and_then(|arg| minicbor::decode::<bool>(arg).ok()).unwrap_or(false);
                perform(HostCall::GpioWrite { pin: number(0) as u16, high })?;
                Cbor::null()
            }
            name => return Err(format!("{name} is not there")),
        };
        Ok(Answer::Value(value))
    }

    /// What cannot be told is left out.
    fn vitals(&self) -> Cbor {
        let memory = (self.device.memory)();
        let mut vitals = vec![
            ("memory_bytes", Cbor::encode(&(memory.used + memory.free))),
            ("memory_free_bytes", Cbor::encode(&memory.free)),
        ];
        if let Ok(thousandths) = (self.device.board)(HostCall::TemperatureRead) {
            vitals.push(("temperature_c", Cbor::encode(&(f64::from(thousandths) / 1_000.0))));
        }
        vitals.push(("uptime_s", Cbor::encode(&self.started.elapsed().as_secs())));
        map(&vitals)
    }

    /// Switches the LED once.
    ///
    /// # Errors
    /// The board's.
    pub(crate) fn switch(&self, blink: &mut Blink) -> Result<Option<Duration>, Failure> {
        let Some(left) = blink.left.checked_sub(1) else { return Ok(None) };
        let switched = (self.device.board)(HostCall::LedSet { on: blink.left.is_multiple_of(2) });
        switched.map_err(|text| Failure::new(Cause::Returned, text))?;
        blink.left = left;
        Ok(Some(blink.half))
    }
}

fn native(name: &str, functions: Describe) -> NativeModule {
    NativeModule { name: name.into(), functions: functions().into() }
}

/// A map of values that are encoded already. `items` are in the order of their keys, as a PC sends them.
fn map(items: &[(&str, Cbor)]) -> Cbor {
    let mut map = Vec::new();
    put_map_header(&mut map, items.len());
    for (key, value) in items {
        put_text(&mut map, key);
        map.extend_from_slice(value.as_bytes());
    }
    Cbor::from_encoded(map)
}

impl Blink {
    fn new(times: u32, period_ms: u32) -> Result<Blink, String> {
        let half = builtin::blink_half(times, period_ms)?;
        Ok(Blink { left: 2 * times, half: Duration::from_micros(half.as_micros() as u64) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Memory;
    use core::sync::atomic::{AtomicU32, Ordering};

    /// What the LED and the pin were set to last: 1 is off, 2 is on; the pin that was made high.
    static LED: AtomicU32 = AtomicU32::new(0);
    static PIN: AtomicU32 = AtomicU32::new(0);

    fn board(call: HostCall) -> Result<i32, &'static str> {
        match call {
            HostCall::LedSet { on } => LED.store(1 + u32::from(on), Ordering::Relaxed),
            HostCall::GpioWrite { pin, high: true } => PIN.store(u32::from(pin), Ordering::Relaxed),
            HostCall::GpioRead { pin: 7 } => return Ok(1),
            HostCall::TemperatureRead => return Ok(21_500),
            _ => return Err("not on this board"),
        }
        Ok(0)
    }

    fn builtins(reboot: &str) -> Builtins {
        let hex = "0f".repeat(32);
        let text = format!(
            "broccoli settings 1\nname=g1\nserver=s:1\ncluster=c1\nkey={hex}\ndeploy_public={hex}\nreboot={reboot}\n"
        );
        let settings = Settings::parse(text.as_bytes()).expect("settings");
        let device = Device {
            epoch: [0; 16],
            seed: 0,
            unix_ms: || None,
            memory: || Memory { used: 1, peak: 2, free: 3 },
            board,
            connected: |_| {},
            board_kind: "test",
            capabilities: &[],
        };
        Builtins::new(&settings, &["led".into()], 1, &device)
    }

    fn call<A: minicbor::Encode<()>>(builtins: &Builtins, name: &str, args: A) -> Result<Answer, String> {
        let modules = Builtins::natives();
        let module = modules.iter().find(|module| module.functions.iter().any(|f| f.name == name)).expect("is there");
        builtins.call(&module.id(), name, &Cbor::encode(&args)).map_err(|failure| failure.text)
    }

    fn value<A: minicbor::Encode<()>>(name: &str, args: A) -> Result<Cbor, String> {
        match call(&builtins("no"), name, args)? {
            Answer::Value(value) => Ok(value),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn functions_answer_as_on_other_nodes() {
        let none: [u8; 0] = [];
        assert_eq!(value("ping", none), Ok(Cbor::encode(&"pong")));
        assert_eq!(value("gpio_read", [7]), Ok(Cbor::encode(&true)));
        assert_eq!(value("gpio_read", [8]), Err("not on this board".into()));
        assert_eq!(value("gpio_write", (9, true)), Ok(Cbor::null()));
        assert_eq!(PIN.load(Ordering::Relaxed), 9);
        let vitals = value("vitals", none).expect("a map");
        let mut vitals = minicbor::Decoder::new(vitals.as_bytes());
        assert_eq!(vitals.map().ok(), Some(Some(4)));
        for (name, value) in [("memory_bytes", 4), ("memory_free_bytes", 3)] {
            assert_eq!((vitals.str().ok(), vitals.u32().ok()), (Some(name), Some(value)));
        }
        assert_eq!((vitals.str().ok(), vitals.f64().ok()), (Some("temperature_c"), Some(21.5)));
        assert_eq!((vitals.str().ok(), vitals.u64().ok()), (Some("uptime_s"), Some(0)));
        let info = value("info", none).expect("a map");
        assert!(info.as_bytes().starts_with(b"\xa7\x64arch") && info.as_bytes().ends_with(b"\x650.1.0"), "{info:?}");
        assert_eq!(value("ping", [1]).expect_err("one argument too many"), "ping() -> str takes 0 arguments, got 1");
    }

    #[test]
    fn only_who_may_is_rebooted() {
        let none: [u8; 0] = [];
        let refused = "this node may not be rebooted by tasks: its settings lack reboot=yes";
        assert_eq!(value("reboot", none), Err(refused.into()));
        assert!(matches!(call(&builtins("yes"), "reboot", none), Ok(Answer::Reboot)));
    }

    #[test]
    fn a_blink_is_on_for_half_of_each_period() {
        let builtins = builtins("no");
        let Ok(Answer::Blink(mut blink)) = call(&builtins, "blink", (2, 30)) else { panic!("no blink") };
        for led in [2, 1, 2, 1] {
            assert_eq!(builtins.switch(&mut blink), Ok(Some(Duration::from_millis(15))));
            assert_eq!(LED.load(Ordering::Relaxed), led);
        }
        assert_eq!(builtins.switch(&mut blink), Ok(None));
        for too_much in [(1_001, 1), (61, 1_000)] {
            let error = call(&builtins, "blink", too_much).expect_err("over the limit");
            assert_eq!(error, "at most 1000 times and 60 s in all");
        }
    }
}
