//! Converts the failure of a run into the failure that other nodes get.

use alloc::format;
use alloc::string::ToString;

use broccoli_proto::Cause;
use broccoli_proto::message::Failure;
use broccoli_wasm::{Failure as Wasm, Limits};

/// The failure of a run on a node with these limits. A PC has the limits that are meant for tasks. If this node has a
/// lower limit, the node is too small and the function is not at fault: a larger node may run it.
pub(crate) fn failure_of(error: &Wasm, limits: &Limits) -> Failure {
    let full = Limits::host();
    let text = error.to_string();
    match error {
        Wasm::TaskError(_) => Failure::new(Cause::Returned, text),
        Wasm::Retry { after_ms, .. } => {
            Failure { retry_after_ms: Some(*after_ms), ..Failure::new(Cause::Returned, text) }
        }
        Wasm::BadArgs(_) | Wasm::BadResult(_) => Failure::new(Cause::Unfit, text),
        Wasm::ArgsTooLarge { max, .. } => Failure::too_small(text, Some(*max as u64)),
        Wasm::ResultTooLarge { bytes, max } => Failure::result_too_large(*bytes, *max),
        Wasm::OutOfMemory { limit: None, .. } => Failure::too_small(text, None),
        Wasm::OutOfMemory { limit: Some(limit), .. } if *limit < full.memory_bytes_max => {
            Failure::too_small(text, Some(*limit as u64))
        }
        Wasm::StackOverflow if limits.call_depth_max < full.call_depth_max => {
            let (calls, bytes) = (limits.call_depth_max, limits.stack_bytes_max);
            let text = format!("{text}: this node nests {calls} calls and {bytes} bytes of stack");
            Failure::too_small(text, Some(calls as u64))
        }
        _ => Failure::new(Cause::Crashed, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(error: Wasm, limits: &Limits) -> Option<Option<u64>> {
        failure_of(&error, limits).too_small.map(|too_small| too_small.has)
    }

    #[test]
    fn memory_and_depth_of_a_chip_are_none_of_the_function() {
        let chip = Limits::chip();
        assert_eq!(has(Wasm::OutOfMemory { wanted: 131_072, limit: Some(65_536) }, &chip), Some(Some(65_536)));
        assert_eq!(has(Wasm::OutOfMemory { wanted: 131_072, limit: None }, &chip), Some(None));
        assert_eq!(has(Wasm::StackOverflow, &chip), Some(Some(64)));
        assert_eq!(has(Wasm::ArgsTooLarge { bytes: 20_000, max: 16_384 }, &chip), Some(Some(16_384)));
        let result = failure_of(&Wasm::ResultTooLarge { bytes: 20_000, max: 16_384 }, &chip);
        assert_eq!(result, Failure::result_too_large(20_000, 16_384));
        let text = "stack overflow: this node nests 64 calls and 8192 bytes of stack";
        assert_eq!(failure_of(&Wasm::StackOverflow, &chip).text, text);
    }

    #[test]
    fn what_every_pc_limits_is_of_the_function() {
        let host = Limits::host();
        assert_eq!(has(Wasm::OutOfMemory { wanted: 17 << 20, limit: Some(16 << 20) }, &host), None);
        assert_eq!(has(Wasm::StackOverflow, &host), None);
        assert_eq!(has(Wasm::OutOfMemory { wanted: 131_072, limit: None }, &host), Some(None));
        assert_eq!(has(Wasm::ArgsTooLarge { bytes: 20_000, max: 16_384 }, &host), Some(Some(16_384)));
    }

    #[test]
    fn what_the_function_does_is_its_outcome() {
        let errors = [
            (Wasm::TaskError("no".into()), Cause::Returned),
            (Wasm::Retry { text: "busy".into(), after_ms: 5 }, Cause::Returned),
            (Wasm::Trap("unreachable".into()), Cause::Crashed),
            (Wasm::BadResult("no item".into()), Cause::Unfit),
        ];
        for (error, cause) in errors {
            let failure = failure_of(&error, &Limits::chip());
            assert_eq!((failure.cause, failure.too_small), (cause, None), "{error}");
        }
    }
}
