//! The stores of the comparison, configured for a small computer: about 16 MiB of memory for caches and buffers.

#[cfg(feature = "fjall")]
mod fjall;
mod log;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "fjall")]
pub use self::fjall::Fjall;
pub use self::log::Log;
#[cfg(feature = "redb")]
pub use self::redb::Redb;
#[cfg(feature = "sqlite")]
pub use self::sqlite::Sqlite;
