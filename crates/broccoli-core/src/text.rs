//! Texts for people: error texts that quote input of other nodes, cut to a readable length.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::Failure;
use broccoli_proto::{Cause, TaskError};

/// Longest quoted name, such as a function or a label, in bytes.
const NAME_BYTES_MAX: usize = 80;
/// Longest text of a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 1_024;
/// Longest text of a failure, and longest log line, in bytes.
pub(crate) const FAILURE_BYTES_MAX: usize = 4_096;

/// A name to quote, cut if it is too long.
pub(crate) fn name(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX {
        return Cow::Borrowed(name);
    }
    let shown = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
    Cow::Owned(format!("{shown}… ({} bytes)", name.len()))
}

/// The text of a refusal, cut if it is too long.
pub(crate) fn refusal(mut text: String) -> String {
    cut(&mut text, REFUSAL_BYTES_MAX);
    text
}

/// Shortens a text to at most this many bytes.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.shrink_to_fit();
    }
}

/// The failure of a task whose arguments are too large for a node.
pub(crate) fn too_many_args(len: usize, len_max: usize) -> Failure {
    Failure::too_small(format!("the arguments have {len} bytes, this node takes {len_max}"), Some(len_max as u64))
}

/// The failure of a task whose result is too large for its origin, which no other worker can change.
pub(crate) fn too_long(bytes: usize, max: u32) -> Failure {
    Failure::new(Cause::Unfit, format!("the result has {bytes} bytes, its origin takes {max}"))
}

/// The error for a client that cannot receive the result of its job.
pub(crate) fn result_too_large(bytes: usize, bytes_max: u32) -> TaskError {
    TaskError {
        function: "result".into(),
        task: 0,
        node: None,
        attempt: 0,
        cause: Cause::Unfit,
        text: format!(
            "the result of the job has {bytes} bytes, a client can be sent {bytes_max}; return less, or reduce it on the cluster"
        ),
        members: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_quoted_in_part_and_texts_are_cut_between_letters() {
        assert_eq!(name("add"), "add");
        let long = "é".repeat(500);
        let shown = name(&long);
        assert!(shown.len() < 120 && shown.ends_with("… (1000 bytes)"), "{shown}");
        let mut text = "é".repeat(10);
        cut(&mut text, 7);
        assert_eq!(text, "ééé");
    }
}
