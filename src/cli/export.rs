//! `scorpioctl export`: a workspace's changes as a file that can be kept and applied elsewhere.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{
    Session,
    exit::Exit,
    failure::{Failure, io_failure},
    place::{self, Nearness},
    screen::output_failure,
    text::bytes,
};
use crate::client::{self, ExportFormat};

/// A pipe's worth.
const BUFFER_BYTES: usize = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  scorpioctl export ~/linux -o linux.patch                   for git apply
  scorpioctl export ~/linux --format tar -o changes.tar      every changed file, whole
  scorpioctl export ~/linux --format tar | tar -t";

/// Save what was changed in a workspace. Nothing in the workspace is touched.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// Its id, or a directory in it
    #[arg(value_name = "ID|DIR", default_value = ".")]
    workspace: OsString,

    /// How
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Where to; standard output unless given. The file is there whole or not at all
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// What an export looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A git patch, binary files included
    #[default]
    Patch,
    /// An archive of the changed files, with whiteouts for what was deleted
    Tar,
}

impl From<Format> for ExportFormat {
    fn from(format: Format) -> ExportFormat {
        match format {
            Format::Patch => ExportFormat::Patch,
            Format::Tar => ExportFormat::Tar,
        }
    }
}

impl Export {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let to_terminal = self.output.is_none() && io::stdout().is_terminal();
        if to_terminal && self.format == Format::Tar {
            return Err(Failure::new(Exit::Usage, "an archive is not written to a terminal")
                .try_this("add -o FILE, or pipe it into tar"));
        }
        let daemon = session.daemon();
        let id = place::workspace(&daemon, &self.workspace, Nearness::Inside).await?.id;
        let changes = daemon.export(&id, self.format.into()).await?;
        let spinner = session.spinner("exporting");
        let written = match &self.output {
            Some(path) => to_file(changes, path).await,
            None => copy(changes, &mut io::stdout().lock(), &output_failure).await,
        };
        spinner.finish_and_clear();
        let target = self.output.map_or_else(String::new, |path| format!(" to {}", path.display()));
        session.screen.note(&format!("exported {} of changes{target}", bytes(written?)));
        Ok(Exit::Ok)
    }
}

/// A temporary file beside the target, renamed over it at the end: half an export would pass for a whole one.
async fn to_file(changes: client::Export, path: &Path) -> Result<u64, Failure> {
    let failed = io_failure("write", path);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(&failed)?;
    let written = copy(changes, file.as_file_mut(), &failed).await?;
    file.as_file().sync_all().map_err(&failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(written)
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl Write + ?Sized),
    failed: &impl Fn(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut written = 0;
    loop {
        let bytes = from.read(&mut buffer).await.map_err(broken_off)?;
        if bytes == 0 {
            to.flush().map_err(failed)?;
            return Ok(written);
        }
        to.write_all(&buffer[..bytes]).map_err(failed)?;
        written += bytes as u64;
    }
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` hands it over
fn broken_off(error: io::Error) -> Failure {
    Failure::new(Exit::Partial, "the export broke off before its end")
        .because(error.to_string())
        .try_this("export again; what was written so far is not whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_export_that_breaks_off_is_no_export() {
        let whole = copy(&b"diff --git"[..], &mut Vec::new(), &output_failure).await;
        assert_eq!(whole, Ok(10));
        let broken = breaks_off();
        let failure = copy(broken, &mut Vec::new(), &output_failure).await.unwrap_err();
        assert_eq!((failure.exit, failure.why.as_deref()), (Exit::Partial, Some("unexpected end of file")));
    }

    /// Some bytes, then an error.
    fn breaks_off() -> impl AsyncRead + Unpin {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                _: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
        }
        (&b"diff"[..]).chain(Broken)
    }
}
