//! For zsh: one function of `_arguments` per command, zshcompsys(1).

use banger::cli::Page;

use super::{ORIGIN, quoted};
use crate::values::{self, Argument, Flag, Value};

/// The whole file.
pub fn script(pages: &[Page]) -> String {
    let functions: String = pages.iter().map(|page| function(page, pages)).collect();
    // Loaded by its own name the file is that function, and loaded by `source` it registers it.
    let end = "if [[ $funcstack[1] == _banger ]]; then\n    _banger \"$@\"\nelse\n    compdef _banger banger\nfi\n";
    format!("#compdef banger\n# zsh completion for banger, {ORIGIN}\n\n{functions}{end}")
}

fn function(page: &Page, pages: &[Page]) -> String {
    let mut lines: Vec<String> = values::flags(page).iter().map(flag).collect();
    let below: Vec<&Page> = pages.iter().filter(|p| p.path.split_last().is_some_and(|(_, g)| g == page.path)).collect();
    if below.is_empty() {
        lines.extend(values::arguments(page).iter().enumerate().map(|(at, about)| argument(at + 1, about)));
        // What stands behind `--` are files for all that is known here.
        let rest = values::takes_command(page).then(|| quoted("*::: :_default"));
        let has_rest = values::arguments(page).iter().any(|about| about.repeats);
        lines.extend(rest.filter(|_| !has_rest));
        return format!("{}() {{\n    _arguments -s \\\n        {}\n}}\n\n", name(page), lines.join(" \\\n        "));
    }
    lines.extend([quoted("1: :->command"), quoted("*:: :->rest")]);
    let listed: String = below.iter().map(|p| format!("            {}\n", described(p))).collect();
    let arms: String = below.iter().map(|p| format!("        {}) {} ;;\n", words(p).join(" | "), name(p))).collect();
    format!(
        "{}() {{\n    local context state state_descr line ret=1\n    typeset -A opt_args\n    local -a commands\n    \
         _arguments -s -C \\\n        {} && ret=0\n    case $state in\n    command)\n        commands=(\n{listed}        )\n        \
         _describe -t commands command commands && ret=0\n        ;;\n    rest)\n        case $line[1] in\n{arms}        esac && ret=0\n        \
         ;;\n    esac\n    return ret\n}}\n\n",
        name(page),
        lines.join(" \\\n        "),
    )
}

/// `_banger_vm_run`.
fn name(page: &Page) -> String {
    [&["_banger"], page.path.as_slice()].concat().join("_").replace('-', "_")
}

fn words(page: &Page) -> Vec<&'static str> {
    page.path.last().copied().into_iter().chain(page.aliases.iter().copied()).collect()
}

fn described(page: &Page) -> String {
    let word = page.path.last().copied().unwrap_or_default();
    quoted(&format!("{word}:{}", page.definition.description))
}

fn flag(flag: &Flag) -> String {
    let long = format!("--{}{}", flag.long, if flag.value.is_some() { "=" } else { "" });
    let about = format!("[{}]{}", escaped(flag.description), flag.value.as_ref().map_or_else(String::new, behind));
    let short = flag.short.map(|c| format!("-{c}{}", if flag.value.is_some() { "+" } else { "" }));
    match (short, flag.repeats) {
        (None, false) => quoted(&format!("{long}{about}")),
        (None, true) => quoted(&format!("*{long}{about}")),
        (Some(short), true) => format!("\\*{{{short},{long}}}{}", quoted(&about)),
        (Some(short), false) => {
            let excluded = format!("(-{} --{})", flag.short.unwrap_or_default(), flag.long);
            format!("{}{{{short},{long}}}{}", quoted(&excluded), quoted(&about))
        }
    }
}

fn behind(value: &Value) -> String {
    format!(":value:{}", action(value))
}

fn argument(place: usize, about: &Argument) -> String {
    let place = if about.repeats { "*".to_owned() } else { place.to_string() };
    quoted(&format!("{place}:{}:{}", escaped(about.description), action(&about.value)))
}

fn action(value: &Value) -> String {
    match value {
        Value::Words(words) => format!("({})", words.join(" ")),
        Value::File => "_files".into(),
        Value::Folder => "_files -/".into(),
        Value::User => "_users".into(),
        Value::Live(_) | Value::Free => " ".into(),
    }
}

/// Brackets end a description, colons a field.
fn escaped(text: &str) -> String {
    text.replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}
