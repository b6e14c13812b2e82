//! Benchmarks of the parallel executor.

fn main() {}
