//! The pages say what is true: their commands are run, one session for each page, and print what the pages show.
//!
//! `SMOKE_WRITE_PAGES=1` puts what was printed into the pages where they show something else; `SMOKE_PAGES=WORD` takes only
//! pages whose path contains it.

use std::path::{Path, PathBuf};

use banger::host::config::Config;

use crate::page::{self, Block, Entry, Kind};
use crate::session::{self, Said, Step};
use crate::world::World;

/// Seconds for one page.
const LONG: u64 = 600;

/// What the pages' output is of: a host without KVM whose VMs have one processor.
const SETTINGS: &str = "[vm_defaults]\nvcpu = 1\n";

/// Where pages lie, beside README.md.
const FOLDERS: [&str; 2] = ["src", "release"];

/// All pages.
pub fn every_page(world: &World) {
    let world = &world.with("BANGER_VMM", "qemu").with("BANGER_ACCEL", "tcg");
    std::fs::write(world.home().join("config.toml"), SETTINGS).expect("written");
    let mut wrong = Vec::new();
    for file in pages() {
        let text = std::fs::read_to_string(root().join(&file)).expect("a page");
        let lines: Vec<&str> = text.lines().collect();
        match page::blocks(&lines) {
            Ok(blocks) => wrong.extend(Page { file: &file, lines, blocks }.run(world)),
            Err(why) => wrong.push(format!("{}: {why}", file.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let below = |folder: &&str| crate::census::files_below(&root().join(folder));
    let is_page = |file: &PathBuf| file.extension().is_some_and(|e| e == "md");
    let mut found: Vec<PathBuf> = FOLDERS.iter().flat_map(below).filter(is_page).collect();
    found.push(root().join("README.md"));
    found.sort();
    let asked = std::env::var("SMOKE_PAGES").unwrap_or_default();
    let all = found.iter().map(|file| file.strip_prefix(root()).expect("below").to_owned());
    all.filter(|file| file.to_string_lossy().contains(&asked)).collect()
}

/// A page with its blocks.
struct Page<'a> {
    file: &'a Path,
    lines: Vec<&'a str>,
    blocks: Vec<Block>,
}

/// A command, and what it is to print.
struct Typed {
    step: Step,
    block: usize,
    /// Of a console.
    shows: Option<Entry>,
}

impl Page<'_> {
    /// Runs its blocks; what went wrong.
    fn run(&self, world: &World) -> Vec<String> {
        let run = self.blocks.iter().filter(|block| block.not_run.is_none()).count();
        for block in &self.blocks {
            if let Some(why) = &block.not_run {
                println!("| {}:{} | not run: {why} |", self.file.display(), block.lines.start);
            }
        }
        println!("| {} | {run} of {} blocks run |", self.file.display(), self.blocks.len());
        let refused = self.refused_settings(world);
        let typed = self.typed();
        if typed.is_empty() || !refused.is_empty() {
            return refused;
        }
        session::furnish(world);
        let mut steps = vec![Step { text: CLEAR.into(), strict: true }];
        steps.extend(typed.iter().map(|t| Step { text: t.step.text.clone(), strict: t.step.strict }));
        let said = session::play(world, &steps, LONG);
        if std::env::var_os("SMOKE_WRITE_PAGES").is_some() {
            self.write(&typed, &said[1..]);
        }
        if said.len() == 1 {
            return vec![format!("{}: the session did not begin: {}", self.file.display(), said[0].output)];
        }
        typed.iter().zip(&said[1..]).filter_map(|(typed, said)| self.complaint(typed, said)).collect()
    }

    fn typed(&self) -> Vec<Typed> {
        let mut all = Vec::new();
        for (block, about) in self.blocks.iter().enumerate().filter(|(_, block)| block.not_run.is_none()) {
            let mut strict = |text: String| all.push(Typed { step: Step { text, strict: true }, block, shows: None });
            about.first.iter().cloned().for_each(&mut strict);
            let lines = self.lines_of(about);
            match about.kind {
                Kind::Shell => strict(lines.join("\n")),
                Kind::Settings => {}
                Kind::Console => all.extend(page::entries(&lines).into_iter().map(|entry| {
                    let step = Step { text: entry.command.clone(), strict: false };
                    Typed { step, block, shows: Some(entry) }
                })),
            }
        }
        all
    }

    /// Settings that banger does not take.
    fn refused_settings(&self, world: &World) -> Vec<String> {
        let file = world.folder().join("settings.toml");
        let settings = self.blocks.iter().filter(|block| block.kind == Kind::Settings && block.not_run.is_none());
        let refused = settings.filter_map(|block| {
            std::fs::write(&file, self.lines_of(block).join("\n")).expect("written");
            let why = Config::load(&file).err()?;
            Some(format!("{}:{}: {why}", self.file.display(), block.lines.start))
        });
        refused.collect()
    }

    fn lines_of(&self, block: &Block) -> Vec<String> {
        let cut = |line: &&str| line.get(block.indent..).unwrap_or_default().to_owned();
        self.lines[block.lines.clone()].iter().map(cut).collect()
    }

    fn complaint(&self, typed: &Typed, said: &Said) -> Option<String> {
        let at = format!("{}:{}", self.file.display(), self.blocks[typed.block].lines.start);
        let Said { output, code } = said;
        let text = &typed.step.text;
        let Some(shows) = &typed.shows else {
            return (*code != 0).then(|| format!("{at}: ends with {code}:\n{text}\n{output}"));
        };
        let is_failure = |line: &String| ["banger: ", "{\"error\""].iter().any(|begins| line.starts_with(begins));
        let may_fail = shows.output.iter().any(is_failure);
        if *code != 0 && !may_fail {
            return Some(format!("{at}: `{text}` ends with {code}:\n{output}"));
        }
        let agree = page::agree(&shows.output, output);
        (!agree).then(|| format!("{at}: `{text}` prints\n{output}\nthe page shows\n{}", shows.output.join("\n")))
    }

    /// The page anew, with what was printed.
    fn write(&self, typed: &[Typed], said: &[Said]) {
        let mut text = String::new();
        let mut done = 0;
        for (number, block) in self.blocks.iter().enumerate().filter(|(_, block)| block.kind == Kind::Console) {
            let of_it: Vec<_> =
                typed.iter().zip(said).filter(|(t, _)| t.block == number && t.shows.is_some()).collect();
            if of_it.is_empty() {
                continue;
            }
            let set_off = " ".repeat(block.indent);
            self.lines[done..block.lines.start].iter().for_each(|line| text += &format!("{line}\n"));
            for (typed, said) in of_it {
                let shown = typed.shows.as_ref().map_or(&[][..], |shows| &shows.output);
                let printed = || said.output.trim_end().lines().map(str::to_owned).collect();
                let lines: Vec<String> = if page::agree(shown, &said.output) { shown.to_vec() } else { printed() };
                text += &format!("{set_off}$ {}\n", typed.step.text.replace('\n', &format!("\n{set_off}> ")));
                lines.iter().for_each(|line| text += &format!("{set_off}{}\n", line.trim_end()));
            }
            done = block.lines.end;
        }
        self.lines[done..].iter().for_each(|line| text += &format!("{line}\n"));
        std::fs::write(root().join(self.file), text).expect("the page can be written");
    }
}

/// No VM is left of the page before.
const CLEAR: &str = "banger vm list -q | xargs -r banger vm delete";
