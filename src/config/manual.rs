//! The table of keys → the manual page `scorpio.toml(5)`.

use super::{
    Config,
    keys::{KEYS, Key, ORIGIN_KEYS, OriginDraft},
};

const HEAD: &str = r#".TH scorpio.toml 5 "" Scorpio
.SH NAME
scorpio.toml \- configuration of the Scorpio workspace daemon
.SH SYNOPSIS
/etc/scorpio/scorpio.toml
.br
/etc/scorpio/scorpio.toml.d/*.toml
.SH DESCRIPTION
TOML. The files below scorpio.toml.d are read after the first, in the order of their names; each may override single
keys, and a list replaces the list before it. A variable SCORPIO_SECTION__KEY in the environment of the service overrides
all of them. Times are text such as "90s" or "2h", sizes a number of bytes or text such as "64MiB". A key that is not below
is refused.
.PP
What is in force, and where each value comes from, is shown by
.BR "scorpiod config show" ;
whether the files will do is said by
.BR "scorpiod config validate" .
.SH KEYS
"#;

const TAIL: &str = r".SH SEE ALSO
.BR scorpiod (8),
.BR scorpioctl (1)
";

/// The manual page, in roff.
pub fn manual() -> String {
    let mut config = Config::default();
    let mut origin = OriginDraft::new();
    let sections = KEYS.iter().map(|key| paragraph("", key, &mut config));
    let origins = ORIGIN_KEYS.iter().map(|key| paragraph("origin.NAME.", key, &mut origin));
    let keys: String = sections.chain(origins).collect();
    format!("{HEAD}{keys}{TAIL}")
}

fn paragraph<T>(prefix: &str, key: &Key<T>, from: &mut T) -> String {
    let slot = (key.slot)(from);
    let default = slot.show().map(|value| format!(" Default: {value}.")).unwrap_or_default();
    let text = format!("{} Takes {}.{default}", key.meaning, slot.expects());
    format!(".TP\n.B {prefix}{}\n{}\n", key.name, escaped(&text))
}

/// Text that roff prints as it is: a backslash and a dash mean something to it, and so does what a line begins with.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', r"\e").replace('-', r"\-").replace('`', "");
    if text.starts_with(['.', '\'']) { format!(r"\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_paragraph_and_roff_is_told_nothing_else() {
        let page = manual();
        for name in KEYS.iter().map(|key| key.name) {
            assert!(page.contains(&format!("\n.TP\n.B {name}\n")), "{name}");
        }
        for key in ORIGIN_KEYS {
            assert!(page.contains(&format!("\n.TP\n.B origin.NAME.{}\n", key.name)), "{}", key.name);
        }
        let told = page.lines().filter_map(|line| line.strip_prefix('.')?.split(' ').next());
        let known = ["TH", "SH", "TP", "PP", "B", "BR", "br"];
        assert!(told.clone().count() > 2 * KEYS.len() && told.clone().all(|word| known.contains(&word)));
        assert!(!page.lines().any(|line| line.starts_with('\'')));
        assert_eq!(escaped(".a-b\\`c`"), "\\&.a\\-b\\ec");
    }
}
