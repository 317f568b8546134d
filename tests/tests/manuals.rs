//! Manual pages and completions say all that the programs take: every subcommand and every flag, as `--help` shows them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use offhost_tests::programs::program;

/// What `--help` of one command shows.
#[derive(Debug)]
struct Help {
    /// Words behind the program's name.
    words: Vec<String>,
    subcommands: Vec<String>,
    flags: BTreeSet<String>,
}

fn help(name: &str, words: &[String]) -> Help {
    let output = Command::new(program(name)).args(words).arg("--help").env("COLUMNS", "200").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{name} {words:?} --help");
    let mut section = "";
    let (mut subcommands, mut flags) = (Vec::new(), BTreeSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with(' ') && line.ends_with(':') {
            section = line;
        } else if section == "Commands:" && line.starts_with("  ") && !line.starts_with("    ") {
            let (name, about) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            assert!(!about.trim().is_empty() || name == "help", "{name} {words:?}: {line} says nothing");
            subcommands.push(name.to_owned());
        } else if let Some(at) = line.find("--").filter(|at| *at < 8 && section == "Options:") {
            let flag = line[at..].split([' ', '=', '[']).next().unwrap().to_owned();
            let rest = line[at + flag.len()..].trim();
            let below = lines.peek().is_some_and(|below| !below.trim().is_empty());
            assert!(
                rest.contains("  ") || below || !rest.starts_with('<') && !rest.is_empty(),
                "{name} {words:?} {flag} says nothing"
            );
            flags.insert(flag);
        }
    }
    subcommands.retain(|one| one != "help");
    Help { words: words.to_vec(), subcommands, flags }
}

/// A command and all below it.
fn tree(name: &str, words: &[String], all: &mut Vec<Help>) {
    let here = help(name, words);
    let below: Vec<Vec<String>> = here.subcommands.iter().map(|one| [words, std::slice::from_ref(one)].concat()).collect();
    all.push(here);
    below.iter().for_each(|words| tree(name, words, all));
}

fn pages(name: &str, folder: &Path) {
    let status = Command::new(program(name)).arg("man").arg(folder).status().unwrap();
    assert!(status.success(), "{name} man");
}

fn completions(name: &str, shell: &str) -> String {
    let output = Command::new(program(name)).args(["completions", shell]).output().unwrap();
    assert!(output.status.success(), "{name} completions {shell}");
    String::from_utf8(output.stdout).unwrap()
}

fn complete(name: &str, at_least: usize) {
    let folder = tempfile::tempdir().unwrap();
    pages(name, folder.path());
    let mut all = Vec::new();
    tree(name, &[], &mut all);
    assert!(all.len() >= at_least, "{name}: {} commands were found", all.len());
    let scripts = ["bash", "zsh", "fish"].map(|shell| completions(name, shell));
    for help in &all {
        let page = [&[name.to_owned()][..], &help.words].concat().join("-");
        let text =
            std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap_or_else(|_| panic!("no page {page}.1"));
        // Minus signs are escaped in roff.
        let text = text.replace('\\', "");
        for flag in &help.flags {
            assert!(text.contains(flag.as_str()), "{page}.1 does not tell of {flag}");
            assert!(scripts[0].contains(flag.as_str()), "the completions of {page} do not know {flag}");
            assert!(scripts[1].contains(flag.as_str()) && scripts[2].contains(flag.trim_start_matches('-')), "{page} {flag}");
        }
        for word in &help.words {
            assert!(scripts.iter().all(|script| script.contains(word.as_str())), "the completions do not know {word}");
        }
    }
}

#[test]
fn every_command_of_offhost_has_its_page_and_its_completions() {
    complete("offhost", 25);
}

#[test]
fn every_command_of_the_target_has_its_page_and_its_completions() {
    complete("offhost-target", 5);
}

#[test]
fn every_command_of_the_simulated_initiator_has_its_page_and_its_completions() {
    complete("offhost-sim", 8);
}

#[test]
fn the_programs_tell_their_exit_codes() {
    for (name, codes) in [("offhost", &["0", "1", "2", "3", "4", "5"][..]), ("offhost-target", &["0", "1", "2", "78"])] {
        let output = Command::new(program(name)).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, told) = text.split_once("Exit codes:").unwrap_or_else(|| panic!("{name} tells no exit codes"));
        for code in codes {
            assert!(told.split([' ', ',', '\n']).any(|word| word == *code), "{name}: {code} in {told}");
        }
    }
}

#[test]
fn every_key_of_the_example_configuration_is_in_its_manual() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist");
    let read = |name: &str| std::fs::read_to_string(dist.join(name)).unwrap();
    let (example, manual) = (read("offhost.toml"), read("offhost.toml.5").replace('\\', ""));
    for line in example.lines() {
        let line = line.trim_start_matches('#').trim();
        let key = line.split([' ', '=']).next().unwrap_or_default();
        let is_key = line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
        assert!(!is_key || manual.contains(key), "offhost.toml.5 does not tell of {key}");
    }
}

#[test]
fn without_a_target_offhost_says_where_it_looked_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let ask = || {
        let mut offhost = Command::new(program("offhost"));
        let output = offhost.arg("status").current_dir(folder.path()).env_remove("OFFHOST_CONTROL").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    if !Path::new("/run/offhost/control.sock").exists() {
        let said = ask();
        assert!(said.contains("/run/offhost/control.sock") && said.contains("--control"), "{said}");
        assert_eq!(said.matches("No such file").count(), 1, "{said}");
    }
    std::fs::create_dir(folder.path().join("offhost-data")).unwrap();
    std::fs::write(folder.path().join("offhost-data/control.sock"), "").unwrap();
    assert!(ask().contains("offhost-data/control.sock"), "what stands here goes before the service");
}
