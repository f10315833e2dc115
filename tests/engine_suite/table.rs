//! The page of results: what a run found, held against what the page says, or written into it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::{
    Case, Family, NOT_HERE, Outcome,
    place::{self, Kind, Place},
    unlike::WHERE_SCORPIO_DIFFERS,
};

/// Whether the page is to be written instead of compared.
const BLESS: &str = "SCORPIO_BLESS";
const FAILS: &str = "FAILS";

/// The page's sections are written one at a time.
static PAGE: Mutex<()> = Mutex::new(());

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ENGINE-SUITE.md")
}

/// Runs a family in every place and holds the results against the page.
#[track_caller]
pub fn check(family: &Family) {
    let columns = Kind::ALL.map(|kind| column(kind, family));
    let rows: Vec<[String; 4]> =
        (0..family.cases.len()).map(|row| [0, 1, 2, 3].map(|column| columns[column][row].clone())).collect();
    let section = section(family, &rows);
    for (case, row) in family.cases.iter().zip(&rows) {
        judge(case, row);
    }
    let _alone = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(page()).unwrap();
    let heading = format!("## {}\n", family.title);
    let (before, rest) = text.split_once(&heading).unwrap_or((&text, ""));
    let (old, after) = rest.find("\n## ").map_or((rest, ""), |end| rest.split_at(end));
    if std::env::var_os(BLESS).is_some() {
        let before = before.trim_end();
        fs::write(page(), format!("{before}\n\n{heading}\n{section}{after}")).unwrap();
    } else {
        assert_eq!(section, old.trim_start_matches('\n'), "docs/ENGINE-SUITE.md says something else");
    }
}

/// That no place failed, and that a workspace does what overlayfs does on ext4 or is listed as doing something else.
#[track_caller]
fn judge(case: &Case, [native, overlay, shared, per_owner]: &[String; 4]) {
    let all = [native, overlay, shared, per_owner];
    assert!(!all.iter().any(|cell| cell.starts_with(FAILS)), "{}: {all:#?}", case.name);
    assert_eq!(shared, per_owner, "{}: the two lowers", case.name);
    let listed = WHERE_SCORPIO_DIFFERS.contains(&case.name);
    let differs = overlay != NOT_HERE && overlay != shared;
    assert_eq!(differs, listed, "{}: {all:#?}", case.name);
}

/// The outcomes of all cases in places of `kind`, as the table has them.
fn column(kind: Kind, family: &Family) -> Vec<String> {
    let places = place::make(kind, family);
    family.cases.iter().map(|case| cell(kind, &places, case)).collect()
}

/// All users at once, who must find the same.
fn cell(kind: Kind, places: &[Place], case: &Case) -> String {
    let begin = Instant::now();
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let users: Vec<_> = places.iter().map(|place| scope.spawn(|| (case.run)(place))).collect();
        users.into_iter().map(|user| user.join().unwrap_or_else(|_| Err("panicked".to_owned()))).collect()
    });
    eprintln!("{:>26} {:60} {:6.1} s  {outcomes:?}", kind.title(), case.name, begin.elapsed().as_secs_f32());
    let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    let text = match failed {
        Some(why) => {
            eprintln!("{}", places[0].log());
            format!("{FAILS}: {why}")
        }
        None if outcomes.iter().all(|outcome| *outcome == outcomes[0]) => outcomes[0].clone().unwrap(),
        None => format!("{FAILS}: users differ: {outcomes:?}"),
    };
    text.replace('|', "\\|").replace('\n', "; ")
}

fn section(family: &Family, rows: &[[String; 4]]) -> String {
    let titles = Kind::ALL.map(Kind::title).join(" | ");
    let lines = family
        .cases
        .iter()
        .zip(rows)
        .map(|(case, row)| format!("| `{}` | {} |\n", case.name, row.join(" | ")));
    format!("| test | {titles} |\n|---|---|---|---|---|\n{}", lines.collect::<String>())
}
