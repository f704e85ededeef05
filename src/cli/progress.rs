//! What happens during a long operation, on standard error: a moving line on a terminal, one plain
//! line per stage elsewhere.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::manner;
use super::render;
use crate::os::tty;
use crate::protocol::Event;

/// How often a moving line moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows events until dropped.
pub struct Progress {
    bar: Option<ProgressBar>,
    stage: String,
}

impl Progress {
    /// For standard error as it is.
    pub fn new() -> Self {
        let bar = (tty::is_terminal(io::stderr().as_fd()) && !manner::current().json).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {msg}"));
            bar
        });
        Self { bar, stage: String::new() }
    }

    /// A stage of our own.
    pub fn stage(&mut self, name: &str) {
        self.show(&Event::Stage { name: name.to_owned() });
    }

    /// Shows `event`.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Stage { name } => self.begin(render::plain(name)),
            Event::Progress { done, total } => self.advance(*done, *total),
            Event::Line { text } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("{}: {}", self.stage, render::plain(text)));
                }
            }
            Event::Warning { text } => self.note(&format!("banger: warning: {}", render::plain(text))),
        }
    }

    /// A line that stays.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| render::note(text)),
            None => render::note(text),
        }
    }

    /// Writes lines that stay, as [`Progress::note`] does, from any thread.
    pub fn notes(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let bar = self.bar.clone();
        move |text| match &bar {
            Some(bar) => bar.suspend(|| render::note(&render::plain(text))),
            None => render::note(&render::plain(text)),
        }
    }

    /// Takes the moving line away.
    pub fn clear(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn begin(&mut self, name: String) {
        if name == self.stage {
            return;
        }
        match &self.bar {
            Some(bar) => {
                bar.set_style(style("{spinner} {msg}"));
                bar.set_message(name.clone());
                bar.enable_steady_tick(TICK);
            }
            None => render::note(&name),
        }
        self.stage = name;
    }

    fn advance(&mut self, done: u64, total: Option<u64>) {
        let Some(bar) = &self.bar else { return };
        match total {
            Some(total) => {
                bar.set_style(style("{spinner} {msg} [{bar:24}] {bytes}/{total_bytes}"));
                bar.set_length(total);
            }
            None => bar.set_style(style("{spinner} {msg} {bytes}")),
        }
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.progress_chars("=> ").tick_chars("|/-\\ ")
}
