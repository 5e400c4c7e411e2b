//! The `fanrun` program: hands its arguments over.

fn main() {}
