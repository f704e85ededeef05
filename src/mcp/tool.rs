//! What a tool takes. One table makes both the schema that a model reads and the check of what it sends: they cannot
//! differ.

use serde_json::{Map, Value, json};

/// A tool as models see it.
#[derive(Debug)]
pub struct Tool {
    /// What it is called by.
    pub name: &'static str,
    /// What people see.
    pub title: &'static str,
    /// What it does and when to use it, for a language model.
    pub description: &'static str,
    /// What it takes.
    pub fields: &'static [Field],
    /// What calling it may mean.
    pub hints: Hints,
}

/// What a client may want to ask its person about first. Only hints: nothing is permitted by them.
#[derive(Debug, Clone, Copy)]
pub struct Hints {
    /// Changes nothing.
    pub read_only: bool,
    /// Destroys something.
    pub destructive: bool,
    /// Once more changes nothing more.
    pub idempotent: bool,
    /// Reaches what is outside.
    pub open_world: bool,
}

/// One argument.
#[derive(Debug)]
pub struct Field {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Whether the tool needs it.
    pub required: bool,
    /// What it means, for a language model.
    pub says: &'static str,
}

/// Most items of a list or a map.
const MAX_ITEMS: usize = 1024;

/// Most characters of a text.
pub const MAX_TEXT: usize = 2 << 20;

/// What an argument is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text of at most so many characters, no more than [`MAX_TEXT`].
    Text(usize),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number between these, both possible.
    Integer(u64, u64),
    /// Yes or no.
    Switch,
    /// Texts, at least one, each of at most so many characters.
    Words(usize),
    /// Texts by name, each of at most so many characters.
    Named(usize),
}

impl Kind {
    fn schema(self) -> Value {
        let text = |max: usize| json!({"type": "string", "maxLength": max});
        match self {
            Self::Text(max) => text(max),
            Self::Choice(words) => json!({"type": "string", "enum": words}),
            Self::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Self::Switch => json!({"type": "boolean"}),
            Self::Words(max) => json!({"type": "array", "items": text(max), "minItems": 1, "maxItems": MAX_ITEMS}),
            Self::Named(max) => {
                json!({"type": "object", "additionalProperties": text(max), "maxProperties": MAX_ITEMS})
            }
        }
    }

    fn takes(self, value: &Value) -> bool {
        let is_text = |value: &Value, max| value.as_str().is_some_and(|text| text.chars().count() <= max);
        match self {
            Self::Text(max) => is_text(value, max),
            Self::Choice(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Self::Integer(min, max) => value.as_u64().is_some_and(|number| (min..=max).contains(&number)),
            Self::Switch => value.is_boolean(),
            Self::Words(max) => value.as_array().is_some_and(|words| {
                (1..=MAX_ITEMS).contains(&words.len()) && words.iter().all(|word| is_text(word, max))
            }),
            Self::Named(max) => value
                .as_object()
                .is_some_and(|named| named.len() <= MAX_ITEMS && named.values().all(|value| is_text(value, max))),
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Text(max) => format!("text of at most {max} characters"),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Integer(min, max) => format!("a whole number between {min} and {max}"),
            Self::Switch => "true or false".to_owned(),
            Self::Words(max) => format!("a list of texts of at most {max} characters, not empty"),
            Self::Named(max) => format!("an object whose values are texts of at most {max} characters"),
        }
    }
}

impl Tool {
    /// How `tools/list` shows it.
    pub fn listed(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.schema(),
            "annotations": {
                "title": self.title,
                "readOnlyHint": self.hints.read_only,
                "destructiveHint": self.hints.destructive,
                "idempotentHint": self.hints.idempotent,
                "openWorldHint": self.hints.open_world,
            },
        })
    }

    fn schema(&self) -> Value {
        let described = |field: &Field| {
            let mut schema = field.kind.schema();
            schema["description"] = field.says.into();
            (field.name.to_owned(), schema)
        };
        let properties: Map<String, Value> = self.fields.iter().map(described).collect();
        let required: Vec<&str> = self.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }
}

/// What a tool was given, as its table wants it.
#[derive(Debug, Default)]
pub struct Arguments(Map<String, Value>);

impl Arguments {
    /// Checks `given` for `tool`; in words what is wrong.
    pub fn check(tool: &Tool, given: Value) -> Result<Self, String> {
        let mut given = match given {
            Value::Null => Map::new(),
            Value::Object(given) => given,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err("arguments are an object".to_owned());
            }
        };
        // What a client that fills in everything means by it.
        given.retain(|_, value| !value.is_null());
        for (name, value) in &given {
            let Some(field) = tool.fields.iter().find(|field| field.name == name) else {
                let known: Vec<&str> = tool.fields.iter().map(|field| field.name).collect();
                let shown: String = name.chars().take(40).collect();
                return Err(format!("{} takes no {shown:?}: it takes {}", tool.name, known.join(", ")));
            };
            if !field.kind.takes(value) {
                return Err(format!("{} is {}", field.name, field.kind.in_words()));
            }
        }
        match tool.fields.iter().find(|field| field.required && !given.contains_key(field.name)) {
            Some(missing) => Err(format!("{} needs {}", tool.name, missing.name)),
            None => Ok(Self(given)),
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// Whether it is there, and true.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Texts; none where it is not there.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Texts by name; none where it is not there.
    pub fn named(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let named = self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        named.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [(&str, Kind); 6] = [
        ("text", Kind::Text(3)),
        ("choice", Kind::Choice(&["a", "b"])),
        ("integer", Kind::Integer(1, 3)),
        ("switch", Kind::Switch),
        ("words", Kind::Words(3)),
        ("named", Kind::Named(3)),
    ];

    fn tool() -> Tool {
        let field = |(name, kind)| Field { name, kind, required: name == "text", says: "what it is" };
        let fields: Vec<Field> = KINDS.into_iter().map(field).collect();
        let hints = Hints { read_only: true, destructive: false, idempotent: true, open_world: false };
        Tool { name: "t", title: "T", description: "d", fields: fields.leak(), hints }
    }

    #[test]
    fn what_fits_is_read_as_it_was_sent() {
        let given = json!({
            "text": "äöü", "choice": "b", "integer": 3, "switch": true, "words": ["x", ""], "named": {"A": "1"},
        });
        let arguments = Arguments::check(&tool(), given).expect("fits");
        assert_eq!((arguments.text("text"), arguments.text("choice")), (Some("äöü"), Some("b")));
        assert_eq!((arguments.integer("integer"), arguments.is_set("switch")), (Some(3), true));
        assert_eq!(arguments.words("words").collect::<Vec<_>>(), ["x", ""]);
        assert_eq!(arguments.named("named").collect::<Vec<_>>(), [("A", "1")]);
        let least = Arguments::check(&tool(), json!({"text": "", "integer": null})).expect("fits");
        assert_eq!((least.integer("integer"), least.is_set("switch"), least.words("words").count()), (None, false, 0));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_name() {
        for (given, word) in [
            (json!({}), "needs text"),
            (json!([]), "object"),
            (json!({"text": "long"}), "text is text of at most 3"),
            (json!({"text": 1}), "text"),
            (json!({"text": "", "other": 1}), "takes no \"other\""),
            (json!({"text": "", "choice": "c"}), "one of a, b"),
            (json!({"text": "", "integer": 0}), "between 1 and 3"),
            (json!({"text": "", "integer": 4}), "between 1 and 3"),
            (json!({"text": "", "integer": 1.5}), "whole number"),
            (json!({"text": "", "integer": -1}), "whole number"),
            (json!({"text": "", "switch": "yes"}), "true or false"),
            (json!({"text": "", "words": []}), "not empty"),
            (json!({"text": "", "words": ["long"]}), "words"),
            (json!({"text": "", "words": [1]}), "words"),
            (json!({"text": "", "named": {"A": 1}}), "named"),
        ] {
            let said = Arguments::check(&tool(), given.clone()).expect_err("refused");
            assert!(said.contains(word), "{given}: {said}");
        }
    }

    #[test]
    fn a_schema_is_closed_and_describes_each_argument() {
        let listed = tool().listed();
        let schema = &listed["inputSchema"];
        assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
        assert_eq!(schema["required"], json!(["text"]));
        for (name, _) in KINDS {
            assert_eq!(schema["properties"][name]["description"], "what it is", "{name}");
        }
        assert_eq!(listed["annotations"]["readOnlyHint"], true);
    }
}
