//! Who may import whom: the table of the architecture page, held against the sources.

#![allow(clippy::unwrap_used)] // a test that fails panics

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What lies below everything and may be imported by all.
const GROUND: [&str; 4] = ["types", "sys", "config", "telemetry"];

/// Module → what it may import besides [`GROUND`] and itself.
const MAY_IMPORT: [(&str, &[&str]); 17] = [
    ("types", &[]),
    ("sys", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("origin", &[]),
    ("cache", &[]),
    ("store", &["cache", "origin"]),
    ("dicfuse", &["store", "cache", "origin"]),
    ("fusedev", &[]),
    ("engine", &["dicfuse", "fusedev", "store", "origin"]),
    ("antares", &["engine", "dicfuse", "store", "origin"]),
    ("manager", &["antares", "engine", "dicfuse", "store", "cache", "origin"]),
    ("auth", &[]),
    ("api", &[]),
    (
        "rpc",
        &["manager", "antares", "engine", "dicfuse", "store", "cache", "origin", "auth", "api", "fusedev"],
    ),
    ("client", &["api"]),
    ("cli", &["client", "api"]),
];

/// The wiring may import everything but the clients.
const DAEMON_MAY_NOT: [&str; 2] = ["client", "cli"];

#[test]
fn no_module_imports_upwards() {
    let table: BTreeMap<_, _> = MAY_IMPORT.into_iter().collect();
    let mut forbidden = Vec::new();
    for (module, file) in sources() {
        for imported in imports(&fs::read_to_string(&file).unwrap()) {
            let allowed = match module.as_str() {
                "daemon" => !DAEMON_MAY_NOT.contains(&imported.as_str()),
                _ => may_import(&table, &module, &imported),
            };
            if !allowed {
                forbidden.push(format!("{} imports {imported}", file.display()));
            }
        }
    }
    assert!(forbidden.is_empty(), "forbidden imports:\n{}", forbidden.join("\n"));
}

#[test]
fn the_table_names_every_module() {
    let named: BTreeSet<String> =
        MAY_IMPORT.iter().map(|(module, _)| (*module).to_owned()).chain(["daemon".to_owned()]).collect();
    let there: BTreeSet<String> = sources().into_iter().map(|(module, _)| module).collect();
    assert_eq!(there, named);
}

#[test]
fn an_upward_import_is_seen() {
    let seen = imports(
        "use crate::{\n    antares::{Antares, X},\n    types::Oid,\n};\nlet x = crate::rpc::serve();\n",
    );
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["antares", "rpc", "types"]);
}

fn may_import(table: &BTreeMap<&str, &[&str]>, module: &str, imported: &str) -> bool {
    // The ground itself is layered: types below sys below config and telemetry.
    let ground: &[&str] = match module {
        "types" => &[],
        "sys" => &["types"],
        "config" | "telemetry" => &["types", "sys"],
        _ => &GROUND,
    };
    module == imported || ground.contains(&imported) || table[module].contains(&imported)
}

/// Every library source file with the top-level module it belongs to.
fn sources() -> Vec<(String, PathBuf)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let module = |file: &Path| {
        let top = file.strip_prefix(&src).unwrap().components().next().unwrap();
        top.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    let named = files.into_iter().map(|file| (module(&file), file));
    named.filter(|(module, _)| module != "lib" && module != "bin").collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Top-level modules that a source names by `crate::…` in code, alone or in a braced list.
fn imports(source: &str) -> BTreeSet<String> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_names(list)),
            None => found.extend(first_word(rest)),
        }
    }
    found
}

/// First words of the items of a braced list, not of the lists nested in it.
fn top_names(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = Vec::new();
    let mut item = String::new();
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(first_word(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(letter),
            _ => {}
        }
    }
    names.extend(first_word(item.trim()));
    names
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let is_module = word.chars().next().is_some_and(|letter| letter.is_ascii_lowercase());
    is_module.then_some(word)
}

#[test]
fn the_architecture_page_has_the_same_table() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let page = fs::read_to_string(page).unwrap();
    let table =
        page.split("| module | what it is | may import |").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut rows = BTreeMap::new();
    for row in table.lines().filter(|row| row.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [module, _, imports] = cells[..] else { panic!("no row of three cells: {row}") };
        let names: Vec<_> = imports.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.insert(module.trim_matches('`').to_owned(), names);
    }
    let mut expected: BTreeMap<String, Vec<String>> = MAY_IMPORT
        .into_iter()
        .map(|(module, may)| (module.to_owned(), may.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    // Of the wiring the page says what it may not.
    expected.insert("daemon".to_owned(), DAEMON_MAY_NOT.map(str::to_owned).to_vec());
    assert_eq!(rows, expected);
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let mut readers = Vec::new();
    for (module, file) in sources() {
        let is_test = file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests");
        if module == "config" || is_test {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        if ["env::var", "env::vars", "env::set_var"].iter().any(|call| code.contains(call)) {
            readers.push(file);
        }
    }
    assert!(readers.is_empty(), "these read the environment: {readers:?}");
}
