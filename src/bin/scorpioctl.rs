//! The command line of Scorpio; all of it is in [`scorpio::cli`].

fn main() -> std::process::ExitCode {
    scorpio::cli::main(std::env::args_os())
}
