//! bash, zsh and fish with the script of completion, loaded in each of the ways in which it is, on a terminal.

use std::path::Path;

use crate::completion::NAMES;
use crate::packages::text;
use crate::terminal::Terminal;
use crate::world::World;

/// What each says when it waits for a line.
const PROMPT: &str = "READY> ";

/// A shell that is set up.
pub struct Shell {
    /// Which, and how it got its script.
    pub name: &'static str,
    /// How it shows what a candidate is.
    pub described: &'static str,
    words: Vec<String>,
}

/// How one is set up: its name, what a description begins with, what it reads at its start.
type Way = (&'static str, &'static str, String);

impl Shell {
    /// All of them.
    pub fn all(world: &World) -> Vec<Self> {
        let share = world.folder().join("share");
        for (shell, file) in
            [("bash", "bash-completion/completions/banger"), ("zsh", "zsh/_banger"), ("fish", "fish/banger.fish")]
        {
            let script = world.tool("banger", &["completion", shell]).output().ok().stdout;
            write(&share.join(file), &script);
        }
        ways(&text(&share)).into_iter().map(|way| Self::set_up(world, way)).collect()
    }

    fn set_up(world: &World, (name, described, settings): Way) -> Self {
        let folder = world.folder().join(name);
        let file = folder.join(".zshrc");
        write(&file, settings.as_bytes());
        let (folder, file) = (text(&folder), text(&file));
        let words = match name.split(' ').next() {
            Some("bash") => vec!["bash".into(), "--rcfile".into(), file, "-i".into()],
            Some("zsh") => ["env", &format!("ZDOTDIR={folder}"), "zsh", "-d", "-i"].map(str::to_owned).to_vec(),
            _ => ["fish", "--no-config", "--private", "-C", &format!("source '{file}'"), "-i"]
                .map(str::to_owned)
                .to_vec(),
        };
        Self { name, described, words }
    }

    fn start(&self, world: &World) -> Terminal {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let terminal = Terminal::start(world, words[0], &words[1..], 100);
        terminal.wait_for(0, "the prompt", |text| text.contains(PROMPT).then_some(()));
        terminal
    }

    /// Each line, and Tab, becomes what stands beside it.
    pub fn complete(&self, world: &World, lines: &[(&str, &str)]) {
        let mut terminal = self.start(world);
        for (typed, expected) in lines {
            let from = terminal.now();
            terminal.press(&format!("{typed}\t\n"));
            let line = terminal.wait_for(from, &format!("{}: {typed}", self.name), |text| {
                let (_, rest) = text.split_once("<<")?;
                Some(rest.split_once(">>")?.0.trim().to_owned())
            });
            assert_eq!(line, *expected, "{}: {typed}", self.name);
        }
    }

    /// A second Tab shows all of `words`.
    pub fn shows(&self, world: &World, typed: &str, words: &[&str]) {
        let mut terminal = self.start(world);
        let from = terminal.now();
        terminal.press(&format!("{typed}\t\t"));
        let what = format!("{}: {words:?} behind {typed}", self.name);
        terminal.wait_for(from, &what, |text| words.iter().all(|word| text.contains(word)).then_some(()));
    }
}

/// Scripts by themselves, and where each shell finds files below `share`.
fn ways(share: &str) -> Vec<Way> {
    let posix = told_by("NAME() { echo '<<'SHOWN \"$@\"'>>'; }\n");
    let prompt = format!("PS1='{PROMPT}'\n");
    let bash = format!("{prompt}source <(banger completion bash)\n{posix}");
    let lazy = format!(
        "{prompt}XDG_DATA_DIRS='{share}'\n. /usr/share/bash-completion/bash_completion\n{posix}_completion_loader banger\n"
    );
    // It would take away the last `/` of a folder when the line is done.
    let zsh = format!("{prompt}unsetopt beep auto_remove_slash\nautoload -Uz compinit\n");
    let found = format!("{zsh}fpath=('{share}/zsh' $fpath)\ncompinit -u -D\n{posix}");
    let sourced = format!("{zsh}compinit -u -D\nsource <(banger completion zsh)\n{posix}");
    let calls = told_by("function NAME; echo '<<'SHOWN \"$argv\"'>>'; end\n");
    let fish = format!("function fish_prompt; echo '{PROMPT}'; end\nset -p fish_complete_path '{share}/fish'\n{calls}");
    vec![
        ("bash", "(bring a repository into", bash),
        ("bash with bash-completion", "(bring a repository into", lazy),
        ("zsh", "-- bring a repository into", found),
        ("zsh by source", "-- bring a repository into", sourced),
        ("fish", "(bring a repository into", fish),
    ]
}

/// For each of the names a function that tells its arguments.
fn told_by(function: &str) -> String {
    let shown = |name: &str| if name == "banger" { String::new() } else { name.to_owned() };
    NAMES.iter().map(|name| function.replace("NAME", name).replace("SHOWN", &shown(name))).collect()
}

fn write(file: &Path, content: &[u8]) {
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(file, content).expect("written");
}
