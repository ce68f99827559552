//! The lsgm binary.
fn main() {}
