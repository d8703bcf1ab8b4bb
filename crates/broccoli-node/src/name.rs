//! The rules for names and options, for programs that read them from people.

pub use broccoli_abi::builtin::is_builtin;
pub use broccoli_abi::{NAME_LEN_MAX, is_name};
pub use broccoli_proto::id::NODE_NAME_BYTES_MAX;
pub use broccoli_proto::options::{KEY_BYTES_MAX, LABEL_BYTES_MAX, ON_MAX, RETRIES, is_label};
