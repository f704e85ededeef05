//! Every page of help, and every example on it: run as it is printed, or in a table here with the reason why not.

use std::collections::BTreeSet;
use std::time::Duration;

use banger::cli::{Page, pages};

use crate::session::{self, Said, Step};
use crate::stored::{full, in_turns, timed};
use crate::world::World;

/// Columns of the terminals that everybody has.
const COLUMNS: usize = 80;

/// Seconds for the lines of one example.
const LONG: u64 = 400;

/// How an example begins, and why it is not run here.
const NOT_RUN: [(&str, &str); 12] = [
    ("banger vm logs -f box", "goes on until Ctrl-C"),
    ("{\"mcpServers\"", "settings of a client"),
    ("\"args\"", "settings of a client"),
    ("sudo banger system ", "needs systemd: scenario `installed`"),
    ("banger system status", "speaks of the host's own installation: scenario `installed`"),
    ("banger update --check", "needs a signed release: scenario `updated`"),
    ("sudo banger update", "needs a signed release: scenario `updated`"),
    ("banger image pull python:3.12", "needs a registry: scenarios `image_trees`, `image_pulls_interrupted`"),
    ("banger vm run --rm --image python:3.12", "needs a registry: scenario `image_trees`"),
    ("banger vm run --rm --allow deb.debian.org", "needs the internet: scenario `flows`"),
    ("banger kernel import --host", "a host's kernel need not be one that VMs boot: `kernel_import_files`"),
    ("banger kernel import --vmlinuz", "no kernel of that release is here: `kernel_import_files`"),
];

/// A line, and with what it ends where that is not 0.
const ENDS: [(&str, &[i32]); 3] = [
    // It asks, and nobody is there to answer.
    ("banger vm prune", &[2]),
    // As the host of the tests is.
    ("banger doctor", &[0, 1]),
    ("banger doctor -v", &[0, 1]),
];

/// A line, and what must have been done before it.
const BEFORE: [(&str, &str); 18] = [
    ("banger image register --rootfs /srv/golden.ext4", GOLDEN),
    (
        "banger image promote golden",
        "banger image show golden >/dev/null || banger image register --rootfs /srv/golden.ext4",
    ),
    ("banger image pull oci-archive:image.tar --name mine", "banger image delete mine"),
    ("banger vm run --kernel mine", IMPORTED),
    ("banger kernel delete mine", IMPORTED),
    ("banger vm delete one two three", "for name in one two three; do banger vm create --no-start --name $name; done"),
    ("banger vm prune", "banger vm create --no-start --name idle"),
    ("banger vm stop $(banger ps -q)", "banger vm start box"),
    ("banger vm set box --allow example.org:443 --disallow 10.0.0.0/8", "banger vm set box --allow 10.0.0.0/8"),
    ("banger vm wait box && banger vm delete box", ENDING),
    ("banger vm attach box        # which commands there are", "banger vm exec -d box -- seq 2000"),
    ("banger vm exec box -- make test", PREPARED),
    ("banger vm run --rm ./repo --secret T=env:T@api.example.org -- ./publish", "export T=a-token"),
    ("banger vm workspace prepare box ./repo", UNCHANGED),
    ("banger vm workspace prepare box ./repo --include repo/.env", UNCHANGED),
    ("banger vm workspace export box -o changes.patch", CHANGED),
    ("banger vm workspace export box --apply", "git checkout -q ."),
    ("banger vm hosts | sudo tee -a /etc/hosts", "banger vm create --name other"),
];

const GOLDEN: &str =
    "cp --sparse=always --reflink=auto \"$BANGER_HOME/state/images/debian-bookworm.ext4\" /srv/golden.ext4";
/// The kernel of the base once more, from its files.
const IMPORTED: &str = "banger kernel show mine >/dev/null 2>&1 || {
    kernel=$BANGER_HOME/state/kernels/debian-bookworm release=$(banger vm run --rm -- uname -r)
    mkdir -p \"../modules/$release\"
    debugfs -R \"rdump / ../modules/$release\" \"$kernel/modules.ext4\"
    banger kernel import --vmlinuz \"$kernel/vmlinux\" --modules \"../modules/$release\" --name mine
}";
const ENDING: &str = "banger vm stop box >/dev/null 2>&1 &";
const PREPARED: &str = "banger vm workspace prepare box ./repo --force";
const UNCHANGED: &str = "banger vm exec box -- sh -c 'cd /root/repo && git checkout -q .' || true";
const CHANGED: &str =
    "cd repo; git checkout -q .; banger vm workspace prepare box . --force; banger vm exec box -- ./fix-everything";

/// All of it.
pub fn every_page(world: &World) {
    let pages = pages();
    let mut failures: Vec<String> = pages.iter().flat_map(|page| flaws(world, page)).collect();
    failures.iter().for_each(|flaw| println!("{flaw}"));
    println!("| pages of help | {} | no line wider than {COLUMNS} columns, each with an example |", pages.len());
    session::furnish(world);
    let mut examples: Vec<Example> = pages.iter().flat_map(Example::of).collect();
    no_entry_is_stale(&examples);
    examples.sort_by_key(Example::turn);
    let (mut run, mut left) = (BTreeSet::new(), BTreeSet::new());
    for example in &examples {
        let (these, those): (Vec<&str>, Vec<&str>) = example.lines().partition(|line| reason(line).is_none());
        left.extend(those);
        let wrong = example.play(world, &these);
        // At once: where time is over, it is known what was wrong until then.
        wrong.iter().for_each(|failure| println!("{failure}"));
        failures.extend(wrong);
        run.extend(these);
    }
    for line in &left {
        println!("| not run: {line} | {} |", reason(line).unwrap_or_default());
    }
    println!("| examples | {} run | {} not |", run.len(), left.len());
    assert!(failures.is_empty(), "{} failures", failures.len());
}

fn reason(line: &str) -> Option<&'static str> {
    NOT_RUN.iter().find(|(begins, _)| line.starts_with(begins)).map(|(_, why)| *why)
}

/// `banger vm run --help` and `banger help vm run` are the page, which fits and has its examples; what is not so.
fn flaws(world: &World, page: &Page) -> Vec<String> {
    let asked = |before: &[&'static str], after: &[&'static str]| {
        let words = [before, page.path.as_slice(), after].concat();
        world.banger(&words).output().ok().text()
    };
    let help = asked(&[], &["--help"]);
    let name = page.path.join(" ");
    let mut flaws = Vec::new();
    let mut check = |fine: bool, what: &str| {
        if !fine {
            flaws.push(format!("banger {name} --help: {what}"));
        }
    };
    check(asked(&["help"], &[]) == help, "`banger help` says something else");
    for line in help.lines() {
        check(line.chars().count() <= COLUMNS, &format!("too wide: {line}"));
    }
    check(!page.definition.examples.is_empty(), "no example");
    for line in page.definition.examples.iter().flat_map(|example| example.lines()).map(unescaped) {
        check(help.contains(&line), &format!("not as it is defined: {line}"));
    }
    flaws
}

/// What is typed all day is there at once, however many VMs are stored.
pub fn is_quick(world: &World) {
    let full = full(world);
    world.start();
    let timed_in = |world: &World, word: &str| timed(world.command(world.binary(), &[word]), world);
    let (mut help, _) = in_turns(50, || timed_in(world, "--help"), || Duration::ZERO);
    let (mut many, mut none) = in_turns(50, || timed_in(&full, "ps"), || timed_in(world, "ps"));
    full.banger(&["daemon", "stop"]).output().ok();
    world.banger(&["daemon", "stop"]).output().ok();
    let median = |samples: &mut Vec<Duration>| {
        samples.sort();
        samples[samples.len() / 2].as_secs_f64() * 1000.0
    };
    let [help, many, none] = [&mut help, &mut many, &mut none].map(median);
    println!("| --help | {help:.2} ms | ps with 1,000 stored VMs {many:.2} ms, with none {none:.2} ms |");
    assert!(help <= 5.0, "--help takes {help:.2} ms");
    assert!(many <= 2.0 * none, "ps takes {many:.2} ms with 1,000 stored VMs, {none:.2} ms with none");
}

/// Commands that belong together: a block of a page.
struct Example {
    page: String,
    text: String,
}

/// argh has braces of its own in a text, as `format!` has.
fn unescaped(text: &str) -> String {
    text.replace("{{", "{").replace("}}", "}")
}

impl Example {
    fn of(page: &Page) -> Vec<Self> {
        let page_name = || format!("banger {}", page.path.join(" "));
        page.definition.examples.iter().map(|text| Self { page: page_name(), text: unescaped(text) }).collect()
    }

    /// What is typed: where the first line says what for, the lines that are set off from it.
    fn lines(&self) -> impl Iterator<Item = &str> {
        let set_off = self.text.lines().next().is_some_and(|line| line.ends_with(':'));
        let body = if set_off { self.text.split_once('\n').map_or("", |(_, body)| body) } else { &self.text };
        whole_lines(body).into_iter().map(str::trim)
    }

    /// The VM `box` must be there, running.
    fn needs_box(&self) -> bool {
        let names = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == "box");
        let first = self.lines().find(|line| names(line) || line.contains("$(banger ps -q)"));
        first.is_some_and(|line| !line.contains("--name box"))
    }

    /// What leaves all as it is before what does not, and what takes the base away last.
    fn turn(&self) -> u8 {
        let ends_box = ["stop", "kill", "restart", "delete", "prune", "wait", "start", "logs -f"];
        match () {
            () if self.text.contains("image delete") => 3,
            () if !self.needs_box() || ends_box.iter().any(|word| self.text.contains(word)) => 2,
            () => 1,
        }
    }

    /// Runs `lines`; what went wrong.
    fn play(&self, world: &World, lines: &[&str]) -> Vec<String> {
        if lines.is_empty() {
            return Vec::new();
        }
        let mut steps = vec![Step { text: prepared(self.needs_box()), strict: true }];
        for line in lines {
            let before = BEFORE.iter().find(|(of, _)| of == line).map_or("true", |(_, script)| script);
            steps.push(Step { text: before.into(), strict: true });
            steps.push(Step { text: (*line).into(), strict: false });
        }
        let said = session::play(world, &steps, LONG);
        let wrong = |(step, said): (&Step, &Said)| {
            let fine = ENDS.iter().find(|(line, _)| *line == step.text).map_or(&[0][..], |(_, codes)| codes);
            let text = || format!("{}: `{}` ends with {}:\n{}", self.page, step.text, said.code, said.output);
            (!fine.contains(&said.code)).then(text)
        };
        steps.iter().zip(&said).filter_map(wrong).collect()
    }
}

/// No VM is there but `box`, which runs if it is needed.
fn prepared(needs_box: bool) -> String {
    let clear = "banger vm list -q | grep -vx \"$keep\" | xargs -r banger vm delete";
    match needs_box {
        true => format!(
            "keep=box; {{ {clear} || true; }}
            banger vm show box >/dev/null 2>&1 || banger vm create --name box
            banger ps -q | grep -qx box || banger vm start box"
        ),
        false => format!("keep=; {{ {clear} || true; }}"),
    }
}

/// Lines, where one that ends in `\` goes on in the next.
fn whole_lines(text: &str) -> Vec<&str> {
    let (mut lines, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        at += line.len();
        if !line.trim_end().ends_with('\\') {
            lines.push(&text[start..at]);
            start = at;
        }
    }
    lines
}

/// What stands in a table and on no page is a mistake here.
fn no_entry_is_stale(examples: &[Example]) {
    let lines: Vec<&str> = examples.iter().flat_map(Example::lines).collect();
    for (begins, _) in NOT_RUN {
        assert!(lines.iter().any(|line| line.starts_with(begins)), "no example begins with {begins:?}");
    }
    for line in ENDS.iter().map(|(line, _)| line).chain(BEFORE.iter().map(|(line, _)| line)) {
        assert!(lines.contains(line), "no example is {line:?}");
    }
}
