//! `--format`: lines that a script wants, as docker's users write them. `{{.Name}}` is a field of what `--json` prints,
//! in any spelling; `\t` and `\n` are what they are; `table` before it adds headers; `json` is an object a line.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use super::args::{Usage, nearest};
use super::report::Failure;
use super::table::Table;
use crate::protocol::Fault;

/// A form for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// An object on each line.
    Json,
    /// A line by this template.
    Lines(Template),
    /// The same as columns below headers; tabs are between columns.
    Table(Template),
}

/// Text with fields in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Names from the outside inwards; none: the whole object.
    Field {
        path: Vec<String>,
        as_json: bool,
    },
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "json" => Ok(Self::Json),
            other => match other.strip_prefix("table ") {
                Some(template) => template.trim_start().parse().map(Self::Table),
                None => text.parse().map(Self::Lines),
            },
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let (mut pieces, mut rest) = (Vec::new(), text.as_str());
        while let Some((before, behind)) = rest.split_once("{{") {
            pieces.push(Piece::Text(before.to_owned()));
            let (field, after) = behind.split_once("}}").ok_or("a `{{` without `}}`")?;
            pieces.push(piece(field.trim())?);
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        match pieces.iter().any(|piece| matches!(piece, Piece::Field { .. })) {
            true => Ok(Self(pieces)),
            false => Err("there is no field in it, such as {{.name}}; or it is `json`".to_owned()),
        }
    }
}

fn piece(field: &str) -> Result<Piece, String> {
    let (as_json, name) = match field.strip_prefix("json ") {
        Some(name) => (true, name.trim_start()),
        None => (false, field),
    };
    let path = name.strip_prefix('.').ok_or_else(|| format!("{{{{{field}}}}} is no field: {{{{.name}}}} is one"))?;
    let path: Vec<String> = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Piece::Field { path, as_json })
}

impl Format {
    /// `items` in this form.
    pub fn text<T: Serialize>(&self, items: &[T]) -> Result<String, Failure> {
        let values: Result<Vec<Value>, _> = items.iter().map(serde_json::to_value).collect();
        let values = values.map_err(|e| Fault::failed("cannot write JSON", &e))?;
        match self {
            Self::Json => Ok(values.iter().map(|value| format!("{value}\n")).collect()),
            Self::Lines(template) => {
                let lines = values.iter().map(|value| Ok(format!("{}\n", template.fill(value)?)));
                lines.collect::<Result<String, Usage>>().map_err(Failure::from)
            }
            Self::Table(template) => {
                let rows = values.iter().map(|value| Ok(cells(&template.fill(value)?)));
                let rows = rows.collect::<Result<Vec<_>, Usage>>()?;
                let headers = cells(&template.headers());
                let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                Ok(Table::new(&headers, rows).text(true))
            }
        }
    }
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

impl Template {
    fn fill(&self, value: &Value) -> Result<String, Usage> {
        let shown = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Field { path, as_json } => {
                let found = path.iter().try_fold(value, |value, name| member(value, name))?;
                Ok(if *as_json { found.to_string() } else { shown(found) })
            }
        });
        shown.collect()
    }

    fn headers(&self) -> String {
        let header = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field { path, .. } => path.last().map(|name| name.to_uppercase()).unwrap_or_default(),
        };
        self.0.iter().map(header).collect()
    }
}

/// `CreatedAt` is `created_at`.
fn member<'v>(value: &'v Value, name: &str) -> Result<&'v Value, Usage> {
    let known = match value {
        Value::Object(known) => known,
        // What is not there has no parts.
        _ => return Ok(&Value::Null),
    };
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let found = known.iter().find(|(known, _)| plain(known) == plain(name));
    found.map(|(_, value)| value).ok_or_else(|| {
        let fields = known.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
        let usage = Usage::new(format!("--format: there is no field {name:?}"), &[]);
        let usage = usage.suggest(nearest(&name.to_lowercase(), known.keys().map(String::as_str)));
        usage.hint(format!("fields: {fields}"))
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => super::render::plain(text),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(format: &str) -> Result<String, Failure> {
        let items = [
            json!({"name": "box", "created_at": "now", "ports": ["a", "b"], "workspace": null}),
            json!({"name": "a\x1b[2J", "created_at": "then", "ports": [], "workspace": {"folder": "/root/x"}}),
        ];
        format.parse::<Format>().expect("a format").text(&items)
    }

    #[test]
    fn fields_are_found_however_they_are_spelled() {
        assert_eq!(text("{{.Name}}\\t{{ .CreatedAt }}").expect("filled"), "box\tnow\na\\u{1b}[2J\tthen\n");
        assert_eq!(text("{{.ports}}|{{.workspace.folder}}").expect("filled"), "a,b|\n|/root/x\n");
        assert_eq!(text("{{json .ports}}").expect("filled"), "[\"a\",\"b\"]\n[]\n");
        assert!(text("{{json .}}").expect("filled").starts_with("{\"created_at\":\"now\""));
        assert_eq!(text("json").expect("filled").lines().count(), 2);
        assert_eq!(
            text("table {{.Name}}\\t{{.created_at}}").expect("filled").lines().next(),
            Some("NAME        CREATED_AT")
        );
    }

    #[test]
    fn what_is_no_field_is_said_with_those_that_are() {
        let Failure::Usage(usage) = text("{{.nme}}").expect_err("no field") else { panic!("a usage") };
        assert!(usage.message.ends_with("did you mean `name`?") && usage.hint.contains("created_at"), "{usage:?}");
        for bad in ["{{.name", "{{name}}", "plain", "", "{{}}"] {
            bad.parse::<Format>().expect_err(bad);
        }
    }
}
