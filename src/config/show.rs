//! [`Config`] → text: the effective configuration, and the reference of all keys.

use std::fmt::Write as _;

use super::{
    Config, Source,
    keys::{KEYS, Key, ORIGIN_KEYS, OriginDraft},
};

impl Config {
    /// The effective configuration as TOML that loads to the same again; a comment behind each key says who set it.
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut config = self.clone();
        let mut section = "";
        for key in KEYS {
            let (its_section, name) = key.name.split_once('.').expect("every key of the table has a section");
            if its_section != section {
                let blank = if section.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{blank}[{its_section}]");
                section = its_section;
            }
            self.show_key(&mut text, name, key.name, (key.slot)(&mut config).show());
        }
        for (name, origin) in &self.origins {
            let _ = writeln!(text, "\n[origin.{}]", toml_key(name.as_str()));
            let mut draft = OriginDraft::from(origin);
            for key in ORIGIN_KEYS {
                let dotted = format!("origin.{name}.{}", key.name);
                self.show_key(&mut text, key.name, &dotted, (key.slot)(&mut draft).show());
            }
        }
        text
    }

    fn show_key(&self, text: &mut String, name: &str, dotted: &str, value: Option<String>) {
        let Some(value) = value else { return };
        let source = self.set_by.get(dotted).unwrap_or(&Source::Default);
        let source = source.to_string().replace(char::is_control, "?");
        let _ = writeln!(text, "{name} = {value}  # {source}");
    }
}

/// A dot in a bare key would part it.
fn toml_key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// The reference of all keys: one line of a Markdown table for each, with what it takes, its default and its meaning.
pub fn reference() -> Vec<String> {
    let mut config = Config::default();
    let mut origin = OriginDraft::new();
    let sections = KEYS.iter().map(|key| line("", key, &mut config));
    sections.chain(ORIGIN_KEYS.iter().map(|key| line("origin.NAME.", key, &mut origin))).collect()
}

fn line<T>(prefix: &str, key: &Key<T>, from: &mut T) -> String {
    let slot = (key.slot)(from);
    let default = slot.show().map_or_else(|| "–".to_owned(), |value| format!("`{value}`"));
    let mut expects = slot.expects();
    expects[..1].make_ascii_uppercase();
    format!("| `{prefix}{}` | {expects} | {default} | {} |", key.name, key.meaning)
}
