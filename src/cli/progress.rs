//! What happens during a long operation, on standard error: on a terminal a moving line, and one that stays for each
//! stage that took a while; elsewhere one plain line per stage. A stage in which nothing happens says what it waits for.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::manner;
use super::render::{self, Style};
use super::slow::{Pace, SILENCE, Watch};
use crate::os::tty;
use crate::protocol::Event;

/// How often a moving line moves.
const TICK: Duration = Duration::from_millis(120);

/// A stage that took less leaves no line.
const NOTABLE: Duration = Duration::from_secs(1);

const WORKING: &str = "{spinner} {wide_msg}";
const COUNTING: &str = "{spinner} {wide_msg} {bytes}  {binary_bytes_per_sec}";
const NEARING: &str = "{spinner} {wide_msg} [{bar:16}] {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left";

/// Writes a line that stays.
type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Shows events until dropped.
pub struct Progress {
    bar: Option<ProgressBar>,
    say: Say,
    style: Style,
    stage: String,
    watch: Option<Watch>,
    /// Whether stages leave lines on a terminal.
    leaves_lines: bool,
}

impl Progress {
    /// For standard error as it is.
    pub fn new() -> Self {
        let moves = tty::is_terminal(io::stderr().as_fd()) && !manner::current().json;
        let target = moves.then(ProgressDrawTarget::stderr);
        Self::on(target, Arc::new(render::note), Style::of_stderr())
    }

    fn on(target: Option<ProgressDrawTarget>, say: Say, style: Style) -> Self {
        // What it looks like by itself is a bar of nothing.
        let bar = target.map(|target| ProgressBar::with_draw_target(None, target).with_style(self::style(WORKING)));
        Self { bar, say, style, stage: String::new(), watch: None, leaves_lines: true }
    }

    /// From now on stages leave no lines on a terminal: what they come to is one line that somebody else writes.
    pub fn be_brief(&mut self) {
        self.end_stage();
        self.leaves_lines = false;
    }

    /// A stage of our own.
    pub fn stage(&mut self, name: &str) {
        self.show(&Event::Stage { name: name.to_owned() });
    }

    /// What the present stage waits for, should it take long.
    pub fn waits_for(&mut self, what: &str) {
        self.show(&Event::Waiting { what: what.to_owned() });
    }

    /// Shows `event`.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Stage { name } => self.begin(render::plain(name)),
            Event::Progress { done, total } => self.advance(*done, *total),
            Event::Line { text } => {
                self.hear();
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("{}: {}", self.stage, render::plain(text)));
                }
            }
            Event::Warning { text } => self.note(&format!("banger: warning: {}", render::plain(text))),
            Event::Waiting { what } => {
                if let Some(watch) = &self.watch {
                    watch.waits_for(&render::plain(what));
                }
            }
        }
    }

    /// A line that stays.
    pub fn note(&self, text: &str) {
        beside(self.bar.as_ref(), &self.say, text);
    }

    /// Writes lines that stay, as [`Progress::note`] does, from any thread.
    pub fn notes(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let (bar, say) = (self.bar.clone(), self.say.clone());
        move |text| beside(bar.as_ref(), &say, &render::plain(text))
    }

    /// The last stage is done: the moving line goes.
    pub fn clear(&mut self) {
        self.end_stage();
        self.take_away();
    }

    fn take_away(&mut self) {
        self.watch = None;
        self.stage.clear();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn begin(&mut self, name: String) {
        if name == self.stage {
            return;
        }
        self.end_stage();
        match &self.bar {
            Some(bar) => {
                bar.set_style(style(WORKING));
                bar.set_message(name.clone());
                bar.reset();
                bar.enable_steady_tick(TICK);
            }
            None => (self.say)(&name),
        }
        match &self.watch {
            Some(watch) => drop(watch.next(&name)),
            None => self.watch = Some(self.watch(&name)),
        }
        self.stage = name;
    }

    fn watch(&self, name: &str) -> Watch {
        let (bar, say) = (self.bar.clone(), self.say.clone());
        let pace = if bar.is_some() { Pace::Moving } else { Pace::Growing };
        Watch::begin(name, SILENCE, pace, move |text| match &bar {
            Some(bar) => {
                bar.set_style(style(WORKING));
                bar.set_message(text.to_owned());
            }
            None => say(text),
        })
    }

    /// On a terminal, where its name goes with the moving line, a stage that took a while leaves it and its time.
    fn end_stage(&mut self) {
        let (Some(watch), Some(_), true) = (&self.watch, &self.bar, self.leaves_lines) else { return };
        let took = watch.took();
        if took >= NOTABLE && !self.stage.is_empty() {
            self.note(&format!("{}  {}", self.style.dim(&format!("{:>7}", seconds(took))), self.stage));
        }
        self.stage.clear();
    }

    fn hear(&self) {
        if let Some(watch) = &self.watch {
            watch.hear();
        }
    }

    fn advance(&mut self, done: u64, total: Option<u64>) {
        self.hear();
        let Some(bar) = &self.bar else { return };
        match total {
            Some(total) => {
                bar.set_style(style(NEARING));
                bar.set_length(total);
            }
            None => bar.set_style(style(COUNTING)),
        }
        // It may say that nothing happens.
        bar.set_message(self.stage.clone());
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.take_away();
    }
}

fn beside(bar: Option<&ProgressBar>, say: &Say, text: &str) {
    match bar {
        Some(bar) => bar.suspend(|| say(text)),
        None => say(text),
    }
}

/// `12.3s`, `2m03s`.
fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        seconds => format!("{}m{:02}s", seconds / 60, seconds % 60),
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.progress_chars("=> ").tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::sync::Mutex;

    /// A terminal of 80 columns that keeps what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn text(&self) -> String {
            self.0.lock().expect("whole").clone()
        }

        fn add(&self, text: &str) {
            self.0.lock().expect("whole").push_str(text);
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.add(&format!("{text}\n"));
            Ok(())
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.add(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.add("\r");
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// On a terminal or a pipe: what moves, and the lines that stay.
    fn shown(is_terminal: bool) -> (Progress, Screen, Screen) {
        let (moving, staying) = (Screen::default(), Screen::default());
        let target = is_terminal.then(|| ProgressDrawTarget::term_like(Box::new(moving.clone())));
        let lines = staying.clone();
        let say: Say = Arc::new(move |text| lines.add(&format!("{text}\n")));
        (Progress::on(target, say, Style::PLAIN), moving, staying)
    }

    fn took(progress: &Progress, time: Duration) {
        progress.watch.as_ref().expect("a stage").began_earlier(time);
    }

    #[test]
    fn a_pipe_gets_a_line_per_stage_and_nothing_else() {
        let (mut progress, moving, staying) = shown(false);
        progress.stage("pulling");
        took(&progress, Duration::from_secs(5));
        progress.show(&Event::Progress { done: 1, total: Some(2) });
        progress.show(&Event::Line { text: "a layer".into() });
        progress.stage("pulling");
        progress.stage("writing\x1b[2J");
        progress.clear();
        assert_eq!((staying.text().as_str(), moving.text().as_str()), ("pulling\nwriting\\u{1b}[2J\n", ""));
    }

    #[test]
    fn a_terminal_keeps_what_took_a_while_with_its_time() {
        let (mut progress, _, staying) = shown(true);
        progress.stage("pulling");
        took(&progress, Duration::from_millis(12_340));
        progress.stage("short");
        progress.stage("writing");
        took(&progress, Duration::from_secs(123));
        progress.clear();
        progress.clear();
        assert_eq!(staying.text(), "  12.3s  pulling\n  2m03s  writing\n");
    }

    #[test]
    fn what_failed_and_what_is_brief_leaves_no_line() {
        let (mut progress, _, staying) = shown(true);
        progress.stage("pulling");
        took(&progress, Duration::from_secs(5));
        progress.be_brief();
        progress.stage("starting");
        took(&progress, Duration::from_secs(5));
        progress.clear();
        progress.stage("failing");
        took(&progress, Duration::from_secs(5));
        drop(progress);
        assert_eq!(staying.text(), "   5.0s  pulling\n");
    }

    #[test]
    fn a_download_has_a_bar_with_bytes_rate_and_time_left_that_fits() {
        let (mut progress, moving, _) = shown(true);
        progress.stage(&format!("downloading {}", "x".repeat(200)));
        progress.show(&Event::Progress { done: 5 << 20, total: Some(10 << 20) });
        progress.bar.as_ref().expect("a bar").force_draw();
        let text = moving.text();
        let line = text.rsplit(['\r', '\n']).find(|line| line.contains("MiB/10.00 MiB")).expect("a bar").trim_end();
        assert!(line.contains("5.00 MiB/10.00 MiB") && line.contains("/s  ") && line.ends_with(" left"), "{line}");
        assert!(line.chars().count() <= 80 && line.contains("[========>"), "{line}");
    }

    #[test]
    fn a_slow_stage_says_what_it_waits_for() {
        let (mut progress, _, staying) = shown(false);
        progress.stage("waiting for ssh");
        progress.waits_for("the guest's agent has not answered yet");
        took(&progress, Duration::from_secs(12));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let said = "waiting for ssh\nstill waiting for ssh (12s): the guest's agent has not answered yet\n";
        while staying.text() != said {
            assert!(std::time::Instant::now() < deadline, "{}", staying.text());
            std::thread::yield_now();
        }
    }
}
