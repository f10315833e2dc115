//! The daemon, and the short-lived process it mounts with.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(verb) if verb == "mounter" => scorpio::engine::kernel::mounter::main(args),
        _ => ExitCode::FAILURE,
    }
}
