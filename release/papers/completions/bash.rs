//! For bash, without bash-completion's functions, which are not everywhere.

use banger::cli::Page;

use super::{ORIGIN, in_group, words};
use crate::values::{self, Flag, Value};

/// Which words have been typed leads to a command; what is offered depends on it and on the word before.
const BODY: &str = r#"_banger() {
    local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local path="" place=0 value="" word i
    COMPREPLY=()
    # `--flag=value` comes as three words.
    if [[ $cur == = ]]; then
        cur=""
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = ]]; then
            continue
        elif [[ -n $value ]]; then
            value=""
        elif [[ $word == -- ]]; then
            compopt -o default
            return
        elif [[ $word == -* ]]; then
            _banger_value "$path" "$word" && value=$word
        elif _banger_command "$path" "$word"; then
            path=$REPLY
        else
            ((++place))
        fi
    done
    if _banger_value "$path" "$before" && [[ $before == -* ]]; then
        _banger_offer "$cur"
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_banger_flags "$path")" -- "$cur")
    else
        _banger_argument "$path" "$place"
        _banger_offer "$cur"
    fi
}

# What was found, in REPLY: words, or what kind of name.
_banger_offer() {
    case $REPLY in
    "") ;;
    @files) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$1") ;;
    @folders) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- "$1") ;;
    @users) mapfile -t COMPREPLY < <(compgen -u -- "$1") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$REPLY" -- "$1") ;;
    esac
}

complete -F _banger banger
"#;

/// The whole file.
pub fn script(pages: &[Page]) -> String {
    let mut text = format!("# bash completion for banger, {ORIGIN}\n# shellcheck shell=bash\n\n");
    text += &function(
        "_banger_command \"$1 $2\": leads word $2 from command $1 to another?",
        "_banger_command",
        &commands(pages),
        "return 1",
    );
    text +=
        &function("Takes flag $2 of command $1 a value, and which?", "_banger_value", &flag_values(pages), "return 1");
    text += &function("What stands in place $2 of command $1?", "_banger_argument", &arguments(pages), "REPLY=\"\"");
    text += &flags(pages);
    text + BODY
}

/// A function that looks `$1:$2` up and answers in REPLY.
fn function(about: &str, name: &str, arms: &[(String, String)], otherwise: &str) -> String {
    let arms: String = arms.iter().map(|(key, reply)| format!("    {key}) REPLY=\"{reply}\" ;;\n")).collect();
    format!("# {about}\n{name}() {{\n    case \"$1:$2\" in\n{arms}    *) {otherwise} ;;\n    esac\n}}\n\n")
}

fn commands(pages: &[Page]) -> Vec<(String, String)> {
    let arm = |page: &Page| {
        let (group, names) = in_group(page)?;
        let keys: Vec<String> = names.iter().map(|name| format!("\"{group}:{name}\"")).collect();
        Some((keys.join(" | "), words(page)))
    };
    pages.iter().filter_map(arm).collect()
}

fn flag_values(pages: &[Page]) -> Vec<(String, String)> {
    let mut arms = Vec::new();
    for page in pages {
        for flag in values::flags(page) {
            if let Some(value) = &flag.value {
                let keys: Vec<String> = spellings(&flag).iter().map(|f| format!("\"{}:{f}\"", words(page))).collect();
                arms.push((keys.join(" | "), offer(value)));
            }
        }
    }
    arms
}

fn arguments(pages: &[Page]) -> Vec<(String, String)> {
    let mut arms = Vec::new();
    for page in pages {
        let commands: Vec<&str> = page.definition.commands.iter().map(|command| command.name).collect();
        if !commands.is_empty() {
            arms.push((format!("\"{}:0\"", words(page)), commands.join(" ")));
        }
        for (place, argument) in values::arguments(page).iter().enumerate() {
            let key = if argument.repeats {
                format!("\"{}:\"*", words(page))
            } else {
                format!("\"{}:{place}\"", words(page))
            };
            arms.push((key, offer(&argument.value)));
        }
    }
    arms.retain(|(_, reply)| !reply.is_empty());
    arms
}

fn flags(pages: &[Page]) -> String {
    let mut arms = String::new();
    for page in pages {
        let mut all: Vec<String> = values::flags(page).iter().flat_map(spellings).collect();
        all.extend(values::takes_command(page).then(|| "--".to_owned()));
        arms += &format!("    \"{}\") echo \"{}\" ;;\n", words(page), all.join(" "));
    }
    format!("# The flags of command $1.\n_banger_flags() {{\n    case $1 in\n{arms}    esac\n}}\n\n")
}

fn spellings(flag: &Flag) -> Vec<String> {
    flag.short.map(|letter| format!("-{letter}")).into_iter().chain([format!("--{}", flag.long)]).collect()
}

/// What `_banger_offer` makes words of.
fn offer(value: &Value) -> String {
    match value {
        Value::Words(words) => words.join(" "),
        Value::File => "@files".into(),
        Value::Folder => "@folders".into(),
        Value::User => "@users".into(),
        Value::Live(_) | Value::Free => String::new(),
    }
}
