//! Text for people: safe on a terminal, aligned, short.

use comfy_table::{Table, presets};

/// `text` without what would move the cursor, ring, recolour or reorder: paths and labels are other people's words.
pub(crate) fn plain(text: &str) -> String {
    let reorders =
        |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || reorders(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Columns as wide as their widest cell, two blanks apart; `header` first.
pub(crate) fn columns(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// `name: value` lines with the values aligned.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
    let lines: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{:<width$} {}", format!("{name}:"), plain(value)))
        .collect();
    lines.join("\n")
}

/// A number of bytes, to three digits, in powers of 1024.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let mut amount = count as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = if amount < 10.0 { 1 } else { 0 };
    format!("{amount:.digits$} {}", UNITS[unit])
}

/// The first 12 characters of a commit's id: enough for a person.
pub(crate) fn short(oid: &str) -> &str {
    oid.get(..12).unwrap_or(oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = vec![vec!["a".into(), "bcd".into()], vec!["long".into(), "x\ny".into()]];
        assert_eq!(columns(&["ID", "NAME"], rows), "ID    NAME\na     bcd\nlong  x\\ny");
        assert_eq!(columns(&["ID", "NAME"], Vec::new()), "ID  NAME");
    }

    #[test]
    fn bytes_are_shown_to_three_digits() {
        for (count, shown) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (65_536, "64 KiB"), (5_368_709_120, "5.0 GiB")]
        {
            assert_eq!(bytes(count), shown);
        }
    }
}
