//! Tests on real kernels.
fn main() {}
