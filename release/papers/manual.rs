//! One page of the manual per command, as `git` has them: `man banger-vm-run`, and so `man banger vm run`.

use std::path::Path;

use argh::{FlagInfo, FlagInfoKind, Optionality, PositionalInfo};
use banger::cli::{self, Page};

use crate::roff::{argument, example, paragraphs, prose, typed};
use crate::{Outcome, write_file};

/// Pages of the processes in the background, which have no commands.
const DAEMONS: [(&str, &str); 2] =
    [("bangerd", include_str!("bangerd.8")), ("bangerd-root", include_str!("bangerd-root.8"))];

/// Writes `man1/` and `man8/` below `folder`.
pub fn write(folder: &Path) -> Outcome {
    let pages = cli::pages();
    for page in &pages {
        write_file(&folder.join(format!("man1/{}.1", name(page))), &text(page, &pages))?;
    }
    for (daemon, text) in DAEMONS {
        let text = format!("{}{text}", heading(daemon, 8));
        write_file(&folder.join(format!("man8/{daemon}.8")), &text)?;
    }
    Ok(())
}

/// `banger-vm-run`.
fn name(page: &Page) -> String {
    [&["banger"], page.path.as_slice()].concat().join("-")
}

fn heading(name: &str, section: u8) -> String {
    let version = concat!("banger ", env!("CARGO_PKG_VERSION"));
    format!(
        ".\\\" Written by release/papers from the definitions of the commands.\n.TH {} {section} {} {} {}\n.nh\n.ad l\n",
        argument(&name.to_uppercase()),
        env!("BANGER_BUILT"),
        argument(version),
        argument("banger")
    )
}

fn text(page: &Page, all: &[Page]) -> String {
    let definition = &page.definition;
    let mut text = heading(&name(page), 1);
    let summary = definition.description.trim_end_matches('.');
    text += &format!(".SH NAME\n{} \\- {}\n", typed(&name(page)), prose(summary));
    text += &format!(".SH SYNOPSIS\n{}", synopsis(page));
    text += &description(page);
    text += &list("ARGUMENTS", definition.positionals.iter().filter(|p| !p.hidden).map(positional));
    text += &list("OPTIONS", definition.flags.iter().filter(|f| !f.hidden).map(flag));
    text += &list("COMMANDS", definition.commands.iter().map(|c| command(page, c.name, c.command.description)));
    let examples: Vec<String> = definition.examples.iter().map(|e| example(e)).collect();
    if !examples.is_empty() {
        text += &format!(".SH EXAMPLES\n{}", examples.join(".PP\n"));
    }
    text + &see_also(page, all)
}

/// The line behind `Usage:`; flags and words as typed, what stands for something in capitals in italics.
fn synopsis(page: &Page) -> String {
    let line = page.help.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Usage: ").unwrap_or(line);
    let program = format!("banger {}", page.path.join(" "));
    let rest = line.strip_prefix(program.trim_end()).unwrap_or(line);
    format!("\\fB{}\\fR{}\n", typed(program.trim_end()), typed(rest))
}

fn description(page: &Page) -> String {
    let mut text = String::from(".SH DESCRIPTION\n");
    text += &format!("{}.\n", prose(&capital(page.definition.description.trim_end_matches('.'))));
    for note in page.definition.notes {
        text += &format!(".PP\n{}", paragraphs(note));
    }
    text
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn list(title: &str, items: impl Iterator<Item = String>) -> String {
    let items: String = items.collect();
    if items.is_empty() { items } else { format!(".SH {title}\n{items}") }
}

fn item(tag: &str, text: &str) -> String {
    format!(".TP\n{tag}\n{}\n", prose(text))
}

fn positional(about: &PositionalInfo) -> String {
    let more = match about.optionality {
        Optionality::Repeating | Optionality::Greedy => "...",
        Optionality::Required | Optionality::Optional => "",
    };
    item(&format!("\\fI{}\\fR{more}", typed(&about.name.to_uppercase())), about.description)
}

fn flag(about: &FlagInfo) -> String {
    let short = short(about).map(|letter| format!("\\fB\\-{letter}\\fR, ")).unwrap_or_default();
    let value = match about.kind {
        FlagInfoKind::Switch => String::new(),
        FlagInfoKind::Option { arg_name } => format!(" \\fI{}\\fR", typed(&arg_name.to_uppercase())),
    };
    item(&format!("{short}\\fB{}\\fR{value}", typed(about.long)), about.description)
}

/// The letter of a flag. argh tells that of `--help`, which each command has, to nobody.
fn short(flag: &FlagInfo) -> Option<char> {
    flag.short.or_else(|| (flag.long == "--help").then_some('h'))
}

fn command(group: &Page, word: &str, text: &str) -> String {
    item(&format!("\\fB{}\\fR(1)", typed(&format!("{}-{word}", name(group)))), text)
}

/// The group, and from `banger` itself the processes in the background.
fn see_also(page: &Page, all: &[Page]) -> String {
    let mut others: Vec<String> = Vec::new();
    if let Some((_, group)) = page.path.split_last() {
        others.extend(all.iter().filter(|p| p.path == group).map(|p| format!("\\fB{}\\fR(1)", typed(&name(p)))));
    } else {
        others.extend(DAEMONS.iter().map(|(name, _)| format!("\\fB{}\\fR(8)", typed(name))));
    }
    format!(".SH \"SEE ALSO\"\n{}\n", others.join(",\n"))
}
