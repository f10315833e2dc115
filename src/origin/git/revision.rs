//! [`Revision`]: the text that names a commit, taken apart. Pure.
//!
//! Taken are a commit id or an abbreviation of one, and names of references, each with `~n` and `^n` behind it. Of
//! git's wider language the rest is refused: searches (`:/text`, `^{/text}`) and reflogs (`@{1.day.ago}`) would name
//! something else tomorrow, ranges name no commit, and an option-like text is never a name.

/// Longest text of a revision: reference names are file names, and a name of 255 bytes is as long as these get.
const LENGTH_MAX: usize = 256;
/// Furthest ancestor that can be asked for: each step reads and checks one commit.
const STEPS_MAX: u32 = 65_536;

/// A name and the way from it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Revision<'text> {
    /// An id, an abbreviation, or the name of a reference.
    pub(super) base: &'text str,
    /// The steps from there, in order.
    pub(super) steps: Vec<Step>,
}

/// One suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `~n`: first parents, so many times.
    Ancestor(u32),
    /// `^n`: the n-th parent; 0 is the commit itself.
    Parent(u32),
}

impl Revision<'_> {
    /// Takes `text` apart; `None` when it names nothing that is taken here.
    pub(super) fn parse(text: &str) -> Option<Revision<'_>> {
        let refused = text.len() > LENGTH_MAX
            || text.starts_with('-')
            || text.contains("..")
            || text.contains("@{")
            || text.contains([':', '\\', '?', '*', '[', ' '])
            || text.contains(char::is_control);
        if refused {
            return None;
        }
        let (base, suffixes) = text.split_at(text.find(['~', '^']).unwrap_or(text.len()));
        let steps = steps(suffixes)?;
        (!base.is_empty()).then_some(Revision { base, steps })
    }
}

fn steps(mut suffixes: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut total = 0_u32;
    while !suffixes.is_empty() {
        let (step, rest): (fn(u32) -> Step, _) = match suffixes.strip_prefix('~') {
            Some(rest) => (Step::Ancestor, rest),
            None => (Step::Parent, suffixes.strip_prefix('^')?),
        };
        let digits = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
        let number = if digits == 0 { 1 } else { rest[..digits].parse().ok()? };
        steps.push(step(number));
        total = total.checked_add(number)?;
        suffixes = &rest[digits..];
    }
    (total <= STEPS_MAX).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_steps_are_told_apart() {
        use Step::{Ancestor, Parent};
        for (text, base, steps) in [
            ("main", "main", vec![]),
            ("HEAD~1", "HEAD", vec![Ancestor(1)]),
            ("v1.0^", "v1.0", vec![Parent(1)]),
            ("a/b~2^2~", "a/b", vec![Ancestor(2), Parent(2), Ancestor(1)]),
            ("x^^0", "x", vec![Parent(1), Parent(0)]),
            ("x~65536", "x", vec![Ancestor(65_536)]),
            ("user@host", "user@host", vec![]),
            ("größe", "größe", vec![]),
        ] {
            assert_eq!(Revision::parse(text), Some(Revision { base, steps }), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_plain_name_is_refused() {
        let long = "x".repeat(257);
        for text in [
            "",
            "~1",
            "^main",
            "-x",
            "--all",
            ":/fix",
            "HEAD:src",
            "a..b",
            "a...b",
            "@{1}",
            "main@{u}",
            "x^{}",
            "x^{tree}",
            "x~1a",
            "x~-1",
            "x^+1",
            "x~65537",
            "x~40000~40000",
            "x~99999999999",
            "a b",
            "a\n",
            "a\0b",
            "a\\b",
            "a*",
            "a?",
            "a[b]",
            "\u{85}",
            "x^é",
            &long,
        ] {
            assert_eq!(Revision::parse(text), None, "{text:?}");
        }
    }
}
