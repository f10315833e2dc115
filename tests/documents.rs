//! The documents name commands, files, tests, keys, errors and journal entries: all of them exist.

#![allow(clippy::unwrap_used)] // a test that fails panics

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use scorpio::{api::ErrorKind, cli, daemon, telemetry::event};

const README: &str = "README.md";
const README_ZH: &str = "README.zh-CN.md";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap()
}

/// README in both languages and all pages of `docs`, with their paths from the top.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = files(&top().join("docs"), "md");
    found.extend([README, README_ZH].map(|name| top().join(name)));
    assert!(found.len() > 10, "only {} documents were found", found.len());
    let name = |path: &Path| path.strip_prefix(top()).unwrap().to_owned();
    found.into_iter().map(|path| (name(&path), fs::read_to_string(path).unwrap())).collect()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found
}

/// All Rust sources as one text.
fn sources() -> String {
    let all = ["src", "tests"].into_iter().flat_map(|dir| files(&top().join(dir), "rs"));
    all.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// What stands between single backticks outside of code blocks.
fn inline_code(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        if !inside && !fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")).collect()
}

/// Lines of code blocks for a shell.
fn shell_lines(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.trim().strip_prefix("```") {
            Some(kind) => inside = matches!(kind, "sh" | "console"),
            None if inside => lines.push(line.to_owned()),
            None => {}
        }
    }
    lines
}

/// Command lines of our two programs in `text`, as words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in shell_lines(text).into_iter().chain(inline_code(text)) {
        let line = line.split(" #").next().unwrap_or_default().to_owned();
        for part in line.split(['|', ';', '>', '&']) {
            // `sudo scorpioctl …`, `$ scorpioctl …`, `… afterwards: scorpioctl …`
            let words: Vec<_> = part.split_whitespace().collect();
            let begin = words.iter().position(|word| matches!(*word, "scorpioctl" | "scorpiod"));
            let words = begin.map(|begin| &words[begin..]).unwrap_or_default();
            if words.len() > 1 {
                let filled = words.iter().flat_map(|word| match *word {
                    "…" => vec!["origin:path", "dir"],
                    word => vec![word],
                });
                found.push(filled.map(str::to_owned).collect());
            }
        }
    }
    found
}

#[test]
fn every_command_line_is_one_that_the_program_takes() {
    let mut seen = 0;
    for (name, text) in documents() {
        if name.ends_with("ARCHITECTURE.md")
            || name.ends_with("ON-DISK.md")
            || name.starts_with("docs/decisions")
        {
            continue; // they speak of what the daemon starts by itself
        }
        for words in commands(&text) {
            let refused = match words[0].as_str() {
                "scorpioctl" => cli::Arguments::try_parse_from(&words).err(),
                _ => daemon::args::Args::try_parse_from(&words).err(),
            };
            assert!(refused.is_none(), "{}: {}\n{}", name.display(), words.join(" "), refused.unwrap());
            seen += 1;
        }
    }
    assert!(seen >= 40, "only {seen} command lines were found");
}

#[test]
fn a_command_line_that_is_wrong_would_be_seen() {
    let found = commands("```sh\nsudo scorpioctl export --format zip  # no\n```\nand `scorpiod config shew`");
    assert_eq!(found, [vec!["scorpioctl", "export", "--format", "zip"], vec!["scorpiod", "config", "shew"]]);
    assert!(cli::Arguments::try_parse_from(&found[0]).is_err());
    assert!(daemon::args::Args::try_parse_from(&found[1]).is_err());
}

#[test]
fn every_link_leads_somewhere() {
    for (name, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => top().join(&name),
                file => top().join(&name).parent().unwrap().join(file),
            };
            assert!(path.exists(), "{}: {target} is not there", name.display());
            if !anchor.is_empty() {
                let headings = fs::read_to_string(path).unwrap();
                let found =
                    headings.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
                assert!(found, "{}: no heading {target}", name.display());
            }
        }
    }
}

/// A heading as links name it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_file_of_ours_that_is_named_is_there() {
    const DIRECTORIES: [&str; 6] = ["src/", "tests/", "docs/", "packaging/", "systemd/", "polkit/"];
    for (name, text) in documents() {
        for code in inline_code(&text).iter().chain(&shell_lines(&text)) {
            for word in
                code.split_whitespace().filter(|word| DIRECTORIES.iter().any(|dir| word.starts_with(dir)))
            {
                assert!(top().join(word).exists(), "{}: {word} is not there", name.display());
            }
        }
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let sources = sources();
    let mut seen = 0;
    for (name, text) in documents() {
        let is_test = |code: &&String| {
            let is_word = code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            is_word && code.matches('_').count() >= 3
        };
        if name.ends_with("GLOSSARY.md") {
            continue; // it names keys of another program
        }
        for test in inline_code(&text).iter().filter(is_test) {
            assert!(sources.contains(&format!("fn {test}(")), "{}: no test {test}", name.display());
            seen += 1;
        }
    }
    assert!(seen >= 40, "only {seen} tests are named");
}

#[test]
fn every_key_that_is_named_is_one_of_the_configuration() {
    let reference = read("docs/CONFIGURATION.md");
    for (name, text) in documents() {
        for code in inline_code(&text) {
            let key = code.split(" = ").next().unwrap_or_default();
            let section = key.split('.').next().unwrap_or_default();
            let is_key = ["daemon", "cache", "fetch", "engine", "limits", "auth"].contains(&section)
                && key.split('.').count() == 2
                && !key.contains([' ', '*', '/'])
                && !key.ends_with(".rs");
            assert!(
                !is_key || reference.contains(&format!("| `{key}` |")),
                "{}: no key {key}",
                name.display()
            );
        }
    }
}

#[test]
fn operations_explains_every_kind_of_error() {
    let text = read("docs/OPERATIONS.md");
    for kind in ErrorKind::ALL {
        assert!(text.contains(&format!("`{kind:?}`")), "{kind:?} is not explained");
    }
}

#[test]
fn every_bound_in_operations_names_a_test_that_reaches_it() {
    let text = read("docs/OPERATIONS.md");
    let rows: Vec<&str> =
        text.split("## Limits").nth(1).unwrap().lines().filter(|line| line.starts_with("| ")).collect();
    let code = sources();
    for row in &rows[1..] {
        let tests: Vec<&str> = row.split(" | ").nth(2).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            assert!(code.contains(&format!("fn {test}()")), "there is no test {test}");
        }
    }
}

#[test]
fn operations_names_the_classes_of_events_that_are_used() {
    let text = read("docs/OPERATIONS.md");
    let without_the_list: String = files(&top().join("src"), "rs")
        .into_iter()
        .filter(|path| !path.ends_with("telemetry/event.rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .map(|text| text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned())
        .collect();
    for (class, id) in event::ALL {
        let used = without_the_list.match_indices(&format!("event::{class}")).any(|(at, found)| {
            !without_the_list[at + found.len()..].starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        });
        let named = text.contains(&format!("| `{class}` | `{id}` |"));
        assert_eq!(named, used, "{class}: named in OPERATIONS: {named}, used in the sources: {used}");
    }
    for id in text.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 32) {
        assert!(event::ALL.iter().any(|(_, known)| *known == id), "{id} is no message id");
    }
}

#[test]
fn operations_quotes_the_journal_word_for_word_and_names_its_fields() {
    let (text, sources) = (read("docs/OPERATIONS.md"), sources());
    let mut quoted = 0;
    for quote in text.split("ournal: *").skip(1).filter_map(|rest| rest.split('*').next()) {
        assert!(sources.contains(quote), "nothing says `{quote}`");
        quoted += 1;
    }
    assert!(quoted >= 8, "only {quoted} entries are quoted");
    let named: BTreeSet<String> = text
        .split('`')
        .filter(|code| {
            code.starts_with("SCORPIO_") && code.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
        .map(str::to_lowercase)
        .collect();
    let src: String =
        files(&top().join("src"), "rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let used = src
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("scorpio_") && src.contains(&format!("{word} = ")));
    let used: BTreeSet<String> = used.map(str::to_owned).collect();
    assert_eq!(named, used);
}

#[test]
fn every_right_is_an_action_of_polkit_and_is_named_in_operations() {
    let (sources, policy) = (read("src/auth.rs"), read("polkit/org.scorpio.policy"));
    let rights: BTreeSet<&str> =
        sources.split('"').filter(|text| text.starts_with("org.scorpio.") && !text.contains(' ')).collect();
    let actions: BTreeSet<&str> =
        policy.split("<action id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(rights.len() >= 3, "only {rights:?}");
    assert_eq!(actions, rights);
    let text = read("docs/OPERATIONS.md");
    for right in rights {
        assert!(text.contains(&format!("`{right}`")), "{right} is not named");
    }
}

#[test]
fn every_counter_has_a_line_in_operations() {
    let text = read("docs/OPERATIONS.md");
    let views = read("src/api/views.rs");
    let counters = [
        "pub struct Counters",
        "pub struct SessionCounters",
        "pub struct OriginCounters",
        "pub struct CacheCounters",
        "pub struct TreeCounters",
        "pub struct CallCounters",
    ];
    for structure in counters {
        let body = views.split(structure).nth(1).unwrap().split("\n}").next().unwrap();
        for field in body.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
            let name = field.split(':').next().unwrap();
            let stands = |code: &str| code.split('.').any(|part| part == name);
            assert!(text.split('`').any(stands), "no line for {name}");
        }
    }
}

/// Rows of a table whose first or last cell is a name in backticks: that name, and the other cells.
fn rows_of_cases(text: &str) -> Vec<(String, Vec<String>)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(name, cells)| {
        (name.to_owned(), cells.trim_end_matches(" |").split(" | ").map(str::to_owned).collect())
    })
    .collect()
}

/// The cases of the engine suite: functions that have one place.
fn suite_cases() -> BTreeSet<String> {
    let all = files(&top().join("tests/engine_suite"), "rs");
    let text: String = all.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let lists = text.split("cases![").skip(1).filter_map(|list| list.split(']').next());
    lists
        .flat_map(|list| list.split(',').map(|name| name.trim().to_owned()))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_engine_suites_page_has_a_row_for_each_case_and_no_other() {
    let named: Vec<_> =
        rows_of_cases(&read("docs/ENGINE-SUITE.md")).into_iter().map(|(name, _)| name).collect();
    assert!(named.len() >= 100, "only {} cases", named.len());
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), suite_cases());
    assert_eq!(named.len(), suite_cases().len(), "a case has two rows");
}

#[test]
fn what_differs_from_a_local_file_system_is_said_in_semantics() {
    let semantics = read("docs/SEMANTICS.md");
    let section = semantics.split("## What is not as on a local file system").nth(1).unwrap();
    let mut expected = BTreeSet::new();
    for (name, cells) in rows_of_cases(&read("docs/ENGINE-SUITE.md")) {
        let [native, _, shared, _] = &cells[..] else { panic!("{name}: {cells:?}") };
        if native != shared && native != "–" {
            expected.insert(name);
        }
    }
    let said: BTreeSet<_> = section
        .lines()
        .filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"))
        .map(|(_, name)| name.to_owned())
        .collect();
    assert_eq!(said, expected);
}

/// Names of the cases that `tests/system/abuse` tries or says where they are proved.
fn cases_of_abuse() -> Vec<String> {
    let sources = files(&top().join("tests/system/abuse"), "py");
    let text: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let rows =
        text.lines().filter_map(|line| line.strip_prefix("proved(\"").or(line.strip_prefix("@case(\"")));
    rows.map(|row| row.split("\", ").next().unwrap().replace("\\\\", "\\")).collect()
}

#[test]
fn the_page_of_abuse_has_a_row_for_each_case_and_no_other() {
    let page = read("docs/ABUSE.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let mut named: Vec<_> = rows.filter(|name| *name != "case").map(str::to_owned).collect();
    let mut cases = cases_of_abuse();
    assert!(cases.len() >= 100, "only {} cases", cases.len());
    named.sort();
    cases.sort();
    assert_eq!(named, cases);
}

/// What a translation shares with its original, in order: levels of headings, code blocks, rows of tables, links, commands.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    headings: Vec<usize>,
    code: Vec<String>,
    columns: Vec<usize>,
    links: Vec<String>,
    commands: Vec<String>,
}

fn shape(text: &str) -> Shape {
    let (mut headings, mut code, mut columns, mut block) = (Vec::new(), Vec::new(), Vec::new(), None);
    for line in text.lines() {
        match (&mut block, line.starts_with("```")) {
            (None, true) => block = Some(format!("{line}\n")),
            (Some(_), true) => code.extend(block.take()),
            (Some(block), false) => block.extend([line, "\n"]),
            (None, false) if line.starts_with('#') => headings.push(line.split(' ').next().unwrap().len()),
            (None, false) if line.starts_with('|') => columns.push(line.matches('|').count()),
            (None, false) => {}
        }
    }
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned());
    let commands = inline_code(text).into_iter().filter(|code| code.contains("scorpioctl"));
    Shape {
        headings,
        code,
        columns,
        links: links.filter(|link| !link.starts_with("README")).collect(),
        commands: commands.collect(),
    }
}

#[test]
fn the_chinese_readme_has_the_sections_code_tables_and_links_of_the_english_one() {
    let english = shape(&read(README));
    assert!(english.headings.len() > 5 && english.code.len() > 4 && english.columns.len() > 15);
    assert_eq!(shape(&read(README_ZH)), english);
    assert!(read(README).contains(&format!("]({README_ZH})")), "nobody finds the translation");
    assert!(read(README_ZH).contains(&format!("]({README})")), "nobody finds back");
}

#[test]
fn the_benchmark_script_can_be_loaded_and_explains_itself() {
    let script = top().join("tests/bench/run.py");
    let done = std::process::Command::new("python3").arg(script).arg("--help").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("--write-docs"));
}

#[test]
fn the_benchmark_script_finds_its_places_in_the_document() {
    let (script, text) = (read("tests/bench/report.py"), read("docs/BENCHMARKS.md"));
    let sections = script.split("SECTIONS = {").nth(1).unwrap().split('}').next().unwrap();
    let mut names: Vec<&str> = sections.split('"').skip(1).step_by(2).collect();
    let mut places: Vec<&str> = Vec::new();
    for rest in text.split("<!-- measured: ").skip(1) {
        assert!(rest.contains("<!-- end -->"), "a section has no end");
        places.push(rest.split(" -->").next().unwrap());
    }
    assert!(names.len() >= 6, "only {names:?}");
    names.sort_unstable();
    places.sort_unstable();
    assert_eq!(places, names);
}
