//! Rebuilds when a text changes: rust-i18n reads `locales/` by a macro, which cargo does not see.
fn main() {
    println!("cargo::rerun-if-changed=locales");
}
