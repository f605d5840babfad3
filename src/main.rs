//! The binary: kubectl finds it on PATH by its name.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    bookaccess::cli::main(&args)
}
