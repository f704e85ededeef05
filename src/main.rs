//! Looks at the name it was started under and hands over.

fn main() -> std::process::ExitCode {
    banger::personality::run(std::env::args_os().collect())
}
