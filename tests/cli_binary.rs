//! `scorpioctl` as a program: what it prints where, and how it ends, without a daemon behind it.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
};

const VERBS: [&str; 21] = [
    "mount",
    "list",
    "info",
    "du",
    "unmount",
    "remove",
    "give",
    "watch",
    "origins",
    "login",
    "logout",
    "orphans",
    "drain",
    "export",
    "stats",
    "health",
    "whoami",
    "logs",
    "log-level",
    "doctor",
    "completions",
];

fn scorpioctl(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scorpioctl"));
    command.arg("--socket").arg(socket).args(arguments);
    command.env_remove("NO_COLOR").env("COLUMNS", "100").stdin(Stdio::null());
    command
}

fn nobody(arguments: &[&str]) -> Output {
    scorpioctl(Path::new("/nonexistent/scorpio.sock"), arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_names_every_verb_and_gives_examples() {
    let output = nobody(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = out(&output);
    let listed: Vec<_> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(listed, VERBS);
    assert!(help.contains("\nExamples:\n  scorpioctl origins"), "{help}");
    assert!(help.contains("\nExit status:\n  0    done\n  1    failed\n"), "{help}");
}

#[test]
fn the_help_of_every_verb_has_an_example() {
    for verb in VERBS {
        let output = nobody(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(
            out(&output).contains(&format!("Examples:\n  scorpioctl {verb}")),
            "{verb}: {}",
            out(&output)
        );
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_says_so_on_standard_error() {
    for (arguments, sentence) in [
        (vec!["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (vec![], "Usage: scorpioctl"),
        (vec!["mount"], "required arguments were not provided"),
        (vec!["mount", "linux:"], "required arguments were not provided"),
        (vec!["mount", "linux", "/tmp/x"], "`linux` names no origin; write ORIGIN:PATH"),
        (vec!["mount", "a@v1", "/tmp/x"], "`a@v1` names no origin; write ORIGIN:PATH"),
        (vec!["mount", "linux:../etc", "/tmp/x"], "`../etc` is no path in a repository"),
        (vec!["mount", "linux:", "/tmp/x", "--ttl", "soon"], "write a time such as 90s"),
        (vec!["mount", "linux:", "/tmp/x", "--mode", "4755"], "from 0000 to 0777"),
        (vec!["mount", "linux:", "/tmp/x", "--label", "x"], "write KEY=VALUE"),
        (vec!["mount", "--workspace", "abcdefghijkm", "a", "b"], "at most one other argument"),
        (vec!["mount", "--workspace", "abcdefghijkm", "--ephemeral"], "cannot be used with"),
        (vec!["list", "--quiet", "--verbose"], "cannot be used with"),
        (vec!["du", "abcdefghijkm", "--all"], "cannot be used with"),
        (vec!["drain", "--undo", "--timeout", "5s"], "cannot be used with"),
        (vec!["drain", "--timeout", "soon"], "write a time such as 0s, 90s or 2h"),
        (vec!["completions", "dosshell"], "invalid value 'dosshell'"),
        (vec!["export", "--format", "zip"], "invalid value 'zip'"),
    ] {
        let output = nobody(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(sentence), "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{arguments:?}");
    }
}

#[test]
fn without_a_daemon_every_verb_that_needs_one_ends_with_5_and_says_what_to_do() {
    for arguments in [
        vec!["mount", "linux:", "/tmp/scorpio-never-made"],
        vec!["mount", "--workspace", "abcdefghijkm"],
        vec!["list"],
        vec!["info", "abcdefghijkm"],
        vec!["unmount", "/tmp"],
        vec!["remove", "abcdefghijkm", "--yes"],
        vec!["watch"],
        vec!["origins"],
        vec!["du"],
        vec!["drain"],
        vec!["orphans", "list"],
        vec!["orphans", "adopt", "abcdefghijkm", "linux:", "/tmp/x", "--uid", "1000"],
        vec!["orphans", "discard", "abcdefghijkm"],
        vec!["export", "abcdefghijkm"],
        vec!["stats"],
        vec!["health"],
        vec!["whoami"],
        vec!["log-level", "debug"],
    ] {
        let output = nobody(&arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", err(&output));
        assert_eq!(
            err(&output),
            "error: there is no socket /nonexistent/scorpio.sock\n  \
             try: see whether it runs: systemctl status scorpio.socket scorpio.service; then: scorpioctl doctor\n",
            "{arguments:?}"
        );
        assert_eq!(out(&output), "");
    }
    assert!(!Path::new("/tmp/scorpio-never-made").exists());
}

#[test]
fn with_json_an_error_is_one_object_on_standard_error() {
    let output = nobody(&["list", "--json"]);
    assert_eq!(output.status.code(), Some(5));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["exit"], 5);
    assert_eq!(error["error"]["what"], "there is no socket /nonexistent/scorpio.sock");
}

#[test]
fn a_daemon_that_goes_away_in_the_middle_of_a_call_is_told_and_not_died_of() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let child = scorpioctl(&socket, &["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();
    drop((stream, listener));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", err(&output));
    assert!(err(&output).starts_with("error: "), "{}", err(&output));
}

#[test]
fn doctor_goes_on_without_a_daemon_and_fails() {
    let output = nobody(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_name = |name: &str| checks.as_array().unwrap().iter().find(|check| check["name"] == name).cloned();
    assert_eq!(by_name("socket").unwrap()["outcome"], "fail");
    for name in ["kernel", "file systems", "/dev/fuse", "mount namespace", "waiting requests"] {
        assert!(by_name(name).is_some(), "{name} is missing in {checks}");
    }
}

#[test]
fn completions_are_scripts_that_name_the_verbs() {
    for (shell, word) in
        [("bash", "complete -F"), ("zsh", "#compdef scorpioctl"), ("fish", "complete -c scorpioctl")]
    {
        let output = nobody(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = out(&output);
        assert!(script.contains(word) && script.contains("unmount"), "{shell}");
    }
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&nobody(&["completions", "bash"]).stdout).unwrap();
    assert!(bash.wait().unwrap().success());
}

#[test]
fn there_is_a_manual_page_for_every_verb() {
    let place = tempfile::tempdir().unwrap();
    let output = nobody(&["gen-man", place.path().to_str().unwrap()]);
    assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), String::new(), String::new()));
    let top = fs::read_to_string(place.path().join("scorpioctl.1")).unwrap();
    assert!(top.starts_with(".ie") && top.contains(".TH scorpioctl 1"), "{top}");
    for verb in VERBS {
        let page = fs::read_to_string(place.path().join(format!("scorpioctl-{verb}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{verb}");
    }
    assert!(place.path().join("scorpioctl-orphans-adopt.1").exists());
    assert!(!place.path().join("scorpioctl-gen-man.1").exists());
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = scorpioctl(Path::new("/nonexistent"), &["completions", "zsh"]);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(err(&output), "");
    assert_eq!(output.status.code(), Some(141));
}
