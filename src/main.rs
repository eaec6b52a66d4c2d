//! The `tandem` command. See `cli`.

use std::process::ExitCode;

/// A request is many small allocations, and the system's allocator takes a good part of an exact hit.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tandem::cli::run()
}
