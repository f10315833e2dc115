//! [`Screen`]: data goes to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use super::{exit::Exit, failure::Failure, text::plain};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Data and errors as JSON.
    pub(crate) json: bool,
    /// Nothing but data and errors.
    pub(crate) quiet: bool,
    /// How the work goes, too.
    pub(crate) verbose: bool,
    /// Colours for standard output.
    color_data: bool,
    /// Colours for standard error.
    color_notes: bool,
}

/// What a word's colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Green.
    Good,
    /// Yellow.
    Warning,
    /// Red.
    Bad,
}

impl Screen {
    /// Decides about colours once. `no_color` says whether NO_COLOR is set and not empty.
    pub(crate) fn new(json: bool, quiet: bool, verbose: bool, color: Color, no_color: bool) -> Screen {
        let colored = |is_terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !no_color,
        };
        Screen {
            json,
            quiet,
            verbose,
            color_data: colored(io::stdout().is_terminal()),
            color_notes: colored(io::stderr().is_terminal()),
        }
    }

    /// Writes what was asked for: `value` with `--json`, else what `text` makes of it.
    pub(crate) fn data<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let out = if self.json { json_line(value)? } else { text(value) };
        self.print(&out)
    }

    /// Writes a line to standard output.
    pub(crate) fn print(&self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(output_failure)
    }

    /// A sentence about what was done, unless `--quiet`.
    pub(crate) fn note(&self, sentence: &str) {
        if !self.quiet {
            to_stderr(&plain(sentence));
        }
    }

    /// Several lines of a note; each is made safe for itself.
    pub(crate) fn notes(&self, lines: &[String]) {
        lines.iter().for_each(|line| self.note(line));
    }

    /// How the work goes, with `-v`.
    pub(crate) fn detail(&self, sentence: &str) {
        if self.verbose {
            to_stderr(&plain(sentence));
        }
    }

    /// A failure, as lines or as JSON.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            return to_stderr(&failure.json());
        }
        let label = paint("error:", Tone::Bad, self.color_notes);
        to_stderr(&format!("{label} {}", failure.lines().join("\n")));
    }

    /// A word of the data in its colour.
    pub(crate) fn tone(&self, word: &str, tone: Tone) -> String {
        paint(word, tone, self.color_data)
    }

    /// Whether a person can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a yes-or-no question; anything but yes is no.
    pub(crate) fn ask(&self, question: &str) -> Result<bool, Failure> {
        let mut err = io::stderr().lock();
        let asked = write!(err, "{} [y/N] ", plain(question)).and_then(|()| err.flush());
        asked.map_err(|error| {
            Failure::new(Exit::Failed, "cannot ask on the terminal").because(error.to_string())
        })?;
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.map_err(|error| Failure::new(Exit::Failed, "no answer was read").because(error.to_string()))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// One line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| {
        Failure::new(Exit::Failed, "the answer cannot be written as JSON").because(error.to_string())
    })
}

/// A reader that goes away (`| head`) is no failure to speak about. SIGPIPE stays ignored, because with its default
/// action a daemon that goes away would kill this process in the middle of a sentence, too.
#[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
pub(crate) fn output_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Exit::BrokenPipe, "the reader of the output went away"),
        _ => Failure::new(Exit::Failed, "cannot write the output").because(error.to_string()),
    }
}

/// With nobody left to tell, there is nothing to do about a failed write to standard error.
fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn paint(word: &str, tone: Tone, colored: bool) -> String {
    let code = match tone {
        Tone::Good => 32,
        Tone::Warning => 33,
        Tone::Bad => 31,
    };
    if colored { format!("\u{1b}[1;{code}m{word}\u{1b}[0m") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_option_then_no_color() {
        let word = |color, no_color| Screen::new(false, false, false, color, no_color).tone("ok", Tone::Good);
        assert_eq!(word(Color::Always, true), "\u{1b}[1;32mok\u{1b}[0m");
        assert_eq!(word(Color::Never, false), "ok");
        assert_eq!(word(Color::Auto, true), "ok");
    }
}
