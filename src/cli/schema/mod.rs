//! `banger schema`: what `--json` prints, as JSON Schema (draft 2020-12). It is written in `forms.txt`, in fewer words;
//! the tests hold what is printed against it.

use serde_json::{Map, Value, json};

use super::args::{Usage, nearest};

const FORMS: &str = include_str!("forms.txt");

/// The version of all forms: a larger one when a field goes or changes its meaning.
pub const VERSION: u32 = 1;

/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// For all commands, or for what `command` prints.
pub fn schema(command: &[String]) -> Result<Value, Usage> {
    let forms = Forms::read();
    if command.is_empty() {
        let commands: Map<String, Value> =
            forms.commands.iter().map(|(command, kind)| ((*command).to_owned(), schema_of(kind))).collect();
        return Ok(json!({
            "$schema": DIALECT,
            "title": "what `banger ... --json` prints",
            "version": VERSION,
            "commands": commands,
            "$defs": forms.definitions,
        }));
    }
    let wanted = command.join(" ");
    let (_, kind) = forms.commands.iter().find(|(command, _)| *command == wanted).ok_or_else(|| {
        let usage = Usage::new(format!("`banger {wanted}` prints no JSON of its own"), &["schema"]);
        usage.suggest(nearest(&wanted, forms.commands.iter().map(|(command, _)| *command)))
    })?;
    let mut schema = schema_of(kind);
    schema["$schema"] = DIALECT.into();
    schema["version"] = VERSION.into();
    schema["$defs"] = forms.definitions.into();
    Ok(schema)
}

struct Forms {
    commands: Vec<(&'static str, &'static str)>,
    definitions: Map<String, Value>,
}

impl Forms {
    fn read() -> Self {
        let mut forms = Self { commands: Vec::new(), definitions: Map::new() };
        let mut form = String::new();
        for line in FORMS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((command, kind)) = line.split_once(" = ") {
                forms.commands.push((command, kind));
            } else if let Some(field) = line.strip_prefix("  ") {
                forms.add_field(&form, field);
            } else {
                let (name, about) = line.split_once(' ').unwrap_or((line, ""));
                form = name.to_owned();
                let empty = json!({
                    "type": "object", "description": about.trim(), "properties": {}, "required": [],
                    "additionalProperties": false,
                });
                forms.definitions.insert(form.clone(), empty);
            }
        }
        forms
    }

    fn add_field(&mut self, form: &str, field: &str) {
        let (name, rest) = field.split_once(' ').unwrap_or((field, ""));
        let (kind, about) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
        let (kind, is_required) = match kind.strip_suffix("??") {
            Some(kind) => (format!("{kind}?"), false),
            None => (kind.to_owned(), true),
        };
        let mut schema = schema_of(&kind);
        schema["description"] = about.trim().into();
        let definition = &mut self.definitions[form];
        definition["properties"][name] = schema;
        if let (true, Some(required)) = (is_required, definition["required"].as_array_mut()) {
            required.push(name.into());
        }
    }
}

fn schema_of(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix('?') {
        return json!({ "anyOf": [schema_of(kind), { "type": "null" }] });
    }
    if let Some(kind) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
        return json!({ "type": "array", "items": schema_of(kind) });
    }
    match kind {
        "text" => json!({ "type": "string" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "integer" | "number" | "boolean" => json!({ "type": kind }),
        words if words.contains('|') => json!({ "enum": words.split('|').collect::<Vec<_>>() }),
        form => json!({ "$ref": format!("#/$defs/{form}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_is_named_is_there() {
        let whole = schema(&[]).expect("a schema").to_string();
        let forms = Forms::read();
        for part in whole.split("#/$defs/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(forms.definitions.contains_key(name), "{name}");
        }
        for (name, form) in &forms.definitions {
            assert!(whole.contains(&format!("#/$defs/{name}\"")) || name == "Failure", "{name} is of no use");
            for (field, about) in form["properties"].as_object().expect("fields") {
                assert!(about["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}.{field}");
            }
        }
    }

    #[test]
    fn each_command_is_one() {
        let pages: Vec<String> = crate::cli::pages().iter().map(|page| page.path.join(" ")).collect();
        for (command, _) in Forms::read().commands {
            let words = command.split(" --").next().expect("words");
            assert!(pages.iter().any(|page| page == words), "{command}");
        }
        let missing = schema(&["vm".into(), "lisst".into()]).expect_err("none");
        assert!(missing.message.ends_with("did you mean `vm list`?"), "{missing:?}");
    }

    #[test]
    fn a_failure_is_as_its_form_says() {
        use crate::cli::failure_view::{FailureView, code};
        use crate::cli::report::Failure;
        use crate::protocol::FaultKind;
        let failure = Failure::new(FaultKind::NotFound, "no");
        let shown = serde_json::to_value(FailureView::of(&failure, 3).expect("said")).expect("JSON");
        let form = &Forms::read().definitions["Failure"];
        let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&shown), names(&form["properties"]));
        assert!(
            form["properties"]["code"]["enum"].as_array().expect("words").contains(&code(FaultKind::Refused).into())
        );
    }
}
