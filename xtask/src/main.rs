//! Everything a developer runs: `cargo xtask demo | test | e2e | cluster | tidy | codegen | new-check`.
fn main() {}
