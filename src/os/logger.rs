//! Where log lines go: the journal under systemd, else a file, else standard error.
//!
//! Under systemd a line begins with `<N>`, its syslog priority (sd-daemon(3)); journald adds time
//! and unit. Lines of an operation begin with its id in brackets: one greppable form in every sink.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Above this size a log file is rotated: one `.1` is kept. A root helper's lies in `/run`, which is
/// memory, and whoever may speak to it makes it write.
const ROTATE_BYTES: u64 = 4 << 20;

enum Sink {
    Journal,
    File(Mutex<LogFile>),
    Stderr,
}

struct Logger {
    sink: Sink,
}

/// Installs the logger of a daemon: the journal when systemd connected stderr to it
/// (`JOURNAL_STREAM`, systemd.exec(5)), else `file`.
pub fn install_for_daemon(file: &Path) -> io::Result<()> {
    let sink = if std::env::var_os("JOURNAL_STREAM").is_some() {
        Sink::Journal
    } else {
        Sink::File(Mutex::new(LogFile::open(file, ROTATE_BYTES)?))
    };
    install(sink);
    Ok(())
}

/// Installs a logger to standard error.
pub fn install_for_terminal() {
    install(Sink::Stderr);
}

fn install(sink: Sink) {
    let level = std::env::var("BANGER_LOG").ok().and_then(|v| v.parse().ok()).unwrap_or(LevelFilter::Info);
    // Fails only when one is installed already: the first one stays.
    if log::set_boxed_logger(Box::new(Logger { sink })).is_ok() {
        log::set_max_level(level);
    }
}

/// A log file that never grows much beyond its limit.
struct LogFile {
    path: PathBuf,
    limit: u64,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if std::fs::metadata(path).is_ok_and(|m| m.len() > limit) {
            std::fs::rename(path, path.with_extension("log.1"))?;
        }
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = opened.map_err(super::files::named("open", path))?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), limit, file, size })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.size > self.limit {
            *self = Self::open(&self.path, self.limit)?;
        }
        self.size += line.len() as u64;
        self.file.write_all(line.as_bytes())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Only banger's own: libraries have nothing to say to an operator.
        metadata.target().starts_with("banger")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // One line per record, and nothing that a terminal obeys, whatever a guest or a peer put in.
        let text = record.args().to_string().replace(char::is_control, " ");
        // A log that cannot be written has nowhere to say so.
        let _ = match &self.sink {
            Sink::Journal => writeln!(io::stderr(), "<{}>{text}", priority(record.level())),
            Sink::Stderr => writeln!(io::stderr(), "{}: {text}", record.level().as_str().to_lowercase()),
            Sink::File(file) => match file.lock() {
                Ok(mut file) => {
                    let now = timestamp(crate::os::clock::unix_seconds());
                    file.write(&format!("{now} {:5} {text}\n", record.level()))
                }
                Err(_) => Ok(()),
            },
        };
    }

    fn flush(&self) {}
}

fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// `2026-11-23T15:04:05Z` (Howard Hinnant's days-to-civil algorithm).
pub fn timestamp(seconds: u64) -> String {
    let (days, of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_rotated_while_it_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.log");
        let mut log = LogFile::open(&path, 100).expect("opens");
        for _ in 0..100 {
            log.write("nine bytes").expect("written");
        }
        for file in ["x.log", "x.log.1"] {
            let size = std::fs::metadata(folder.path().join(file)).expect("there").len();
            assert!((1..=110).contains(&size), "{file} has {size}");
        }
    }

    #[test]
    fn timestamps_are_iso_8601() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(timestamp(1_795_453_445), "2026-11-23T17:04:05Z");
    }
}
