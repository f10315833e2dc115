//! [`Found`]: what was written, before a key says what it must be; sizes, durations and principals as text.

use std::{fmt, time::Duration};

use toml::de::DeValue;

use super::Principal;

/// A value as it was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// A string.
    Text(String),
    /// An integer.
    Whole(i128),
    /// An array.
    List(Vec<Found>),
    /// A table.
    Table,
    /// Something that no key takes (a float, a boolean, a date), as written.
    Other(String),
    /// From a variable: TOML where it parses, text otherwise; the key decides.
    Untyped(String),
}

impl Found {
    pub(super) fn from_toml(value: &DeValue<'_>) -> Found {
        match value {
            DeValue::String(text) => Found::Text(text.clone().into_owned()),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Found::Other(number.to_string()), Found::Whole),
            DeValue::Array(items) => {
                Found::List(items.iter().map(|item| Found::from_toml(item.get_ref())).collect())
            }
            DeValue::Table(_) => Found::Table,
            DeValue::Float(number) => Found::Other(number.to_string()),
            DeValue::Boolean(truth) => Found::Other(truth.to_string()),
            DeValue::Datetime(time) => Found::Other(time.to_string()),
        }
    }

    /// The text, for keys that take nothing else; a variable needs no quotes for it.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Found::Text(text) => Some(text.clone()),
            Found::Untyped(raw) => match self.typed() {
                Found::Text(text) => Some(text),
                _ => Some(raw.clone()),
            },
            _ => None,
        }
    }

    /// This value with its TOML type.
    pub(super) fn typed(&self) -> Found {
        let Found::Untyped(raw) = self else { return self.clone() };
        match DeValue::parse(raw) {
            Ok(value) => Found::from_toml(value.get_ref()),
            Err(_) => Found::Text(raw.clone()),
        }
    }
}

/// As it would be written in TOML, on one line, cut after 80 characters.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        match self {
            Found::Text(text) => write!(f, "{:?}", short(text)),
            Found::Whole(number) => write!(f, "{number}"),
            Found::Table => f.write_str("a table"),
            Found::Other(text) => f.write_str(&short(text)),
            Found::Untyped(_) => self.typed().fmt(f),
            Found::List(items) => {
                let items: Vec<_> = items.iter().take(8).map(ToString::to_string).collect();
                write!(f, "[{}]", short(&items.join(", ")))
            }
        }
    }
}

/// Units of sizes, powers of 1024, largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `65536`, `"64KiB"`, `"64 KiB"`.
pub(super) fn size(found: &Found) -> Option<u64> {
    match found.typed() {
        Found::Whole(bytes) => u64::try_from(bytes).ok(),
        Found::Text(text) => UNITS.iter().find_map(|(unit, bytes)| {
            let count = text.strip_suffix(unit)?.trim_end();
            let plain = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| count.parse::<u64>().ok()?.checked_mul(*bytes))?
        }),
        _ => None,
    }
}

/// The shortest exact text for a size.
pub(super) fn size_text(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    let (name, unit) = exact.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

const FOREVER: &str = "forever";

/// `"90s"`, `"2h 30m"`, `"forever"`.
pub(super) fn duration(found: &Found) -> Option<Duration> {
    match found.typed() {
        Found::Text(text) if text == FOREVER => Some(Duration::MAX),
        Found::Text(text) => humantime::parse_duration(&text).ok(),
        _ => None,
    }
}

/// The text for a duration, without the spaces and approximations of larger units.
pub(super) fn duration_text(duration: Duration) -> String {
    if duration == Duration::MAX {
        return FOREVER.to_owned();
    }
    if duration.subsec_nanos() != 0 {
        return humantime::format_duration(duration).to_string();
    }
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    let exact = units.iter().find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (name, unit) = exact.unwrap_or(&("s", 1));
    format!("{}{name}", seconds / unit)
}

/// `alice`, `1000`, `@devs`, `*`.
pub(super) fn principal(text: &str) -> Option<Principal> {
    match text.strip_prefix('@') {
        Some(group) => is_account(group).then(|| Principal::Group(group.to_owned())),
        None if text == "*" => Some(Principal::Everybody),
        None => is_account(text).then(|| Principal::User(text.to_owned())),
    }
}

/// Whether `text` can be the name or number of an account: what `useradd` and directory services allow, and not `*` or
/// an address by mistake.
pub(super) fn is_account(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '$' | '\\' | '+' | '@');
    !text.is_empty() && text.len() <= 256 && !text.starts_with(['-', '@']) && text.chars().all(allowed)
}

/// Whether `text` is the URL of a server, with nothing in it that a secret could hide in.
pub(super) fn is_server(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

/// Whether `text` can be the name of a credential: what systemd takes, and no way out of its directory.
pub(super) fn is_credential(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=255).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.')
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Everybody => f.write_str("*"),
            Principal::User(name) => f.write_str(name),
            Principal::Group(name) => write!(f, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Found {
        Found::Text(text.to_owned())
    }

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (found, bytes) in [
            (Found::Whole(4096), Some(4096)),
            (text("64GiB"), Some(64 << 30)),
            (text("64 KiB"), Some(64 << 10)),
            (text("0B"), Some(0)),
            (Found::Untyped("64GiB".into()), Some(64 << 30)),
            (Found::Untyped("4096".into()), Some(4096)),
            (Found::Whole(-1), None),
            (text("64GB"), None),
            (text("GiB"), None),
            (text("-1GiB"), None),
            (text("+1GiB"), None),
            (text("99999999999TiB"), None),
        ] {
            assert_eq!(size(&found), bytes, "{found}");
        }
        for bytes in [0, 1, 1023, 1024, 65_536, 3 << 30, 1 << 40] {
            assert_eq!(size(&text(&size_text(bytes))), Some(bytes));
        }
        assert_eq!(size_text(64 << 30), "64GiB");
    }

    #[test]
    fn durations_are_read_back_as_they_are_shown() {
        for (duration_, shown) in [
            (Duration::from_secs(90), "90s"),
            (Duration::from_secs(120), "2m"),
            (Duration::from_secs(90 * 86_400), "90d"),
            (Duration::from_millis(1500), "1s 500ms"),
            (Duration::ZERO, "0s"),
            (Duration::MAX, "forever"),
        ] {
            assert_eq!(duration_text(duration_), shown);
            assert_eq!(duration(&text(shown)), Some(duration_));
        }
        assert_eq!(duration(&Found::Whole(60)), None);
        assert_eq!(duration(&text("soon")), None);
    }

    #[test]
    fn principals_are_users_groups_or_everybody() {
        assert_eq!(principal("alice"), Some(Principal::User("alice".into())));
        assert_eq!(principal("@devs"), Some(Principal::Group("devs".into())));
        assert_eq!(principal("*"), Some(Principal::Everybody));
        for wrong in ["", "@", "@*", "a b", "-rf", "a/b", "a\n", "**", "@@x"] {
            assert_eq!(principal(wrong), None, "{wrong:?}");
        }
    }
}
