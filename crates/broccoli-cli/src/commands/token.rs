//! `broccoli token`: what another machine joins with.

use crate::connect::Common;
use crate::exit::Failure;
use crate::output;

/// Prints the token alone, so that it can go into a file or a pipe. It is as secret as a password.
///
/// # Errors
/// If there is no cluster file.
pub(crate) fn run(common: &Common) -> Result<(), Failure> {
    let cluster = common.cluster()?;
    let server = common.server_for_others(&cluster);
    if server.is_loopback() {
        output::note(format_args!(
            "this token joins nodes of this machine only, as others cannot reach {server}: name the server as they reach it \
             with --server, or start `broccoli up` with --listen and an address of this machine"
        ));
    }
    output::print(cluster.token(&server))
}
