//! The built-in functions, which every node with slots has without a deployment: names, types and documentation.
//!
//! The descriptions are here because all nodes of a cluster must describe these functions in the same way, whatever
//! they run on. A module with other descriptions is another module, and a call finds only one of them. This module
//! does not implement the functions; `broccoli-run` does.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::{Arg, Function, Type};

/// The module with functions of a node: ping, info, vitals, reboot.
pub const MODULE_SYS: &str = "sys";
/// The module with functions of its board: LED and pins.
pub const MODULE_BOARD: &str = "board";

/// The highest number of times of one [`board`] blink.
pub const BLINK_TIMES_MAX: u32 = 1_000;
/// Longest duration of one blink call, in milliseconds.
pub const BLINK_MS_MAX: u64 = 60_000;

/// How long the LED is on, and then off, in each period of a blink.
///
/// # Errors
/// If it exceeds a limit. The text is for the caller.
pub fn blink_half(times: u32, period_ms: u32) -> Result<Duration, String> {
    if times > BLINK_TIMES_MAX || u64::from(times) * u64::from(period_ms) > BLINK_MS_MAX {
        return Err(format!("at most {BLINK_TIMES_MAX} times and {} s in all", BLINK_MS_MAX / 1_000));
    }
    Ok(Duration::from_millis(period_ms.into()) / 2)
}

/// Whether this is the name of a built-in module, which nobody may deploy.
#[must_use]
pub fn is_builtin(module: &str) -> bool {
    matches!(module, MODULE_SYS | MODULE_BOARD)
}

/// The functions of the module [`MODULE_SYS`].
#[must_use]
pub fn sys() -> Vec<Function> {
    [
        function("info", &[], map(), "What this node is: name, version, platform, board."),
        function("ping", &[], Type::Str, "Answers pong."),
        function("reboot", &[], fallible(Type::Null), "Answers, finishes what runs, and reboots; where it is allowed."),
        function("vitals", &[], map(), "How this node is: uptime_s, memory, load, temperature_c."),
    ]
    .into()
}

/// The functions of the module [`MODULE_BOARD`].
#[must_use]
pub fn board() -> Vec<Function> {
    let blink = [("times", Type::U32), ("period_ms", Type::U32)];
    [
        function("blink", &blink, fallible(Type::Null), "Blinks with the LED: on for half of each period."),
        function("gpio_read", &[("pin", Type::U16)], fallible(Type::Bool), "Level of a pin: true is high."),
        function(
            "gpio_write",
            &[("pin", Type::U16), ("high", Type::Bool)],
            fallible(Type::Null),
            "Makes a pin an output and sets its level.",
        ),
    ]
    .into()
}

fn function(name: &str, args: &[(&str, Type)], ret: Type, doc: &str) -> Function {
    let args = args.iter().map(|(name, ty)| Arg { name: (*name).into(), ty: ty.clone() }).collect();
    Function { name: name.into(), args, ret, doc: String::from(doc) }
}

fn map() -> Type {
    Type::Map(Type::Any.into())
}

fn fallible(ty: Type) -> Type {
    Type::Fallible(ty.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_valid_and_in_the_order_of_names() {
        for functions in [sys(), board()] {
            functions.iter().for_each(|function| assert_eq!(function.validate(), Ok(())));
            assert!(functions.is_sorted_by_key(|function| function.name.clone()));
        }
        assert_eq!(alloc::format!("{}", board()[0]), "blink(times: u32, period_ms: u32) -> !null");
        assert!(is_builtin("sys") && is_builtin("board") && !is_builtin("tasks"));
    }
}
