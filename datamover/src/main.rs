//! `offhost`: the command people type. All of it is in [`datamover::agent`](offhost_datamover::agent).

fn main() -> std::process::ExitCode {
    offhost_datamover::agent::cli::main()
}
