//! For fish: one `complete` line per thing, each under the condition that its command was typed.

use banger::cli::Page;

use super::{ORIGIN, in_group, quoted, words};
use crate::values::{self, Flag, Value};

/// Which command the words before the cursor lead to; `--` behind it when that was typed.
const BODY: &str = r#"function __banger_path
    set -l path
    set -l value 0
    for word in (commandline -opc)[2..]
        if test $value = 1
            set value 0
        else if test "$word" = --
            set path "$path --"
            break
        else if string match -q -- '-*' $word
            contains -- "$path:$word" $__banger_values; and set value 1
        else
            for step in $__banger_steps
                set -l parts (string split '|' $step)
                if test "$parts[1]" = "$path" -a "$parts[2]" = "$word"
                    set path $parts[3]
                    break
                end
            end
        end
    end
    echo "$path"
end

function __banger_at
    test (__banger_path) = "$argv"
end

complete -c banger -f
complete -c banger -n 'string match -q "* --" (__banger_path)' -F
"#;

/// The whole file.
pub fn script(pages: &[Page]) -> String {
    let steps: Vec<String> = pages.iter().flat_map(steps).collect();
    let with_value: Vec<String> = pages.iter().flat_map(with_value).collect();
    let lines: String = pages.iter().flat_map(|page| lines(page, pages)).map(|line| line + "\n").collect();
    format!(
        "# fish completion for banger, {ORIGIN}\n\nset -g __banger_steps \\\n    {}\nset -g __banger_values \\\n    {}\n\n{BODY}{lines}",
        steps.join(" \\\n    "),
        with_value.join(" \\\n    ")
    )
}

/// From which command which word leads to which.
fn steps(page: &Page) -> Vec<String> {
    let (group, names) = in_group(page).unwrap_or_default();
    names.iter().map(|name| quoted(&format!("{group}|{name}|{}", words(page)))).collect()
}

fn with_value(page: &Page) -> Vec<String> {
    let flags = values::flags(page).into_iter().filter(|flag| flag.value.is_some());
    let spelled = |flag: Flag| flag.short.map(|c| format!("-{c}")).into_iter().chain([format!("--{}", flag.long)]);
    flags.flat_map(spelled).map(|flag| quoted(&format!("{}:{flag}", words(page)))).collect()
}

fn lines(page: &Page, pages: &[Page]) -> Vec<String> {
    let condition = quoted(&format!("__banger_at {}", quoted(&words(page))));
    let at = format!("complete -c banger -n {condition}");
    let mut lines = Vec::new();
    for below in pages.iter().filter(|p| p.path.split_last().is_some_and(|(_, group)| group == page.path)) {
        let word = below.path.last().copied().unwrap_or_default();
        lines.push(format!("{at} -a {word} -d {}", quoted(below.definition.description)));
    }
    for flag in values::flags(page) {
        let short = flag.short.map(|c| format!(" -s {c}")).unwrap_or_default();
        let value = flag.value.as_ref().map_or_else(String::new, behind);
        lines.push(format!("{at}{short} -l {}{value} -d {}", flag.long, quoted(flag.description)));
    }
    // Which place it is fish does not say; offered is what any place takes.
    let mut offers: Vec<String> = values::arguments(page).iter().map(|argument| offer(&argument.value)).collect();
    offers.sort();
    offers.dedup();
    lines.extend(offers.iter().filter(|offer| !offer.is_empty()).map(|offer| format!("{at}{offer}")));
    lines
}

/// A flag needs its value; files are no value of most.
fn behind(value: &Value) -> String {
    let kind = if *value == Value::File { " -r" } else { " -x" };
    kind.to_owned() + &offer(value)
}

fn offer(value: &Value) -> String {
    match value {
        Value::Words(words) => format!(" -a {}", quoted(&words.join(" "))),
        Value::File => " -F".into(),
        Value::Folder => " -a '(__fish_complete_directories)'".into(),
        Value::User => " -a '(__fish_complete_users)'".into(),
        Value::Live(_) | Value::Free => String::new(),
    }
}
