//! The `fanrun` program: hands its arguments over.

fn main() -> std::process::ExitCode {
    fanrun::cli::main()
}
