//! `broccoli token`: prints the token with which another machine joins.

use crate::connect::Common;
use crate::exit::Failure;
use crate::output;

/// Prints only the token, so that it can go into a file or a pipe. It is as secret as a password.
///
/// # Errors
/// If there is no cluster file.
pub(crate) fn run(common: &Common) -> Result<(), Failure> {
    let cluster = common.cluster()?;
    let server = common.server_for_others(&cluster);
    if server.is_loopback() {
        output::note(format_args!(
            "this token works on this machine only, because others cannot reach {server}: give an address that they \
             can reach with --server, or start `broccoli up` with --listen and an address of this machine"
        ));
    }
    output::print(cluster.token(&server))
}
