//! Variables of a guest: what everything that is run in it gets.

use std::fmt;
use std::str::FromStr;

use super::checked_string_codec;
use super::secret::{Secret, SecretError, VariableName};

/// Why variables were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// Neither a name nor `NAME=VALUE`.
    #[error("{0:?} is not NAME=VALUE")]
    Form(String),
    /// The name cannot be.
    #[error(transparent)]
    Name(#[from] SecretError),
    /// The guest keeps them line by line.
    #[error("the value of {0} has a line end or a NUL in it: put it into a file in the guest")]
    Value(VariableName),
    /// Together too long.
    #[error("the variables have {0} bytes, at most {max} are possible", max = Variable::MAX_BYTES)]
    TooLong(usize),
    /// A variable and a secret.
    #[error("{0} is a secret and a variable")]
    Secret(VariableName),
}

/// One variable, `NAME=VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    name: VariableName,
    text: String,
}

impl Variable {
    /// Most bytes of all variables of a VM.
    pub const MAX_BYTES: usize = 48 << 10;

    /// A variable; `value` is one line.
    pub fn new(name: VariableName, value: &str) -> Result<Self, VariableError> {
        if value.contains(['\n', '\r', '\0']) {
            return Err(VariableError::Value(name));
        }
        Ok(Self { text: format!("{name}={value}"), name })
    }

    /// Its name.
    pub fn name(&self) -> &VariableName {
        &self.name
    }

    /// Its value.
    pub fn value(&self) -> &str {
        &self.text[self.name.as_str().len() + 1..]
    }

    /// `NAME=VALUE`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a VM can have all of `variables` beside `secrets`.
    pub(super) fn check_all(variables: &[Self], secrets: &[Secret]) -> Result<(), VariableError> {
        let bytes = variables.iter().map(|v| v.text.len() + 1).sum();
        if bytes > Self::MAX_BYTES {
            return Err(VariableError::TooLong(bytes));
        }
        let twice = variables.iter().find(|v| secrets.iter().any(|secret| secret.name == v.name));
        twice.map_or(Ok(()), |v| Err(VariableError::Secret(v.name.clone())))
    }
}

impl FromStr for Variable {
    type Err = VariableError;
    fn from_str(text: &str) -> Result<Self, VariableError> {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            // Perhaps a value that was to be secret: only its beginning is shown.
            VariableError::Form(text.chars().take(16).collect())
        })?;
        Self::new(name.parse()?, value)
    }
}

/// Values may be anybody's passwords: they are shown nowhere.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=…", self.name)
    }
}
checked_string_codec!(Variable);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_a_name_and_one_line() {
        let variable: Variable = "A=b=c d".parse().expect("a variable");
        assert_eq!((variable.name().as_str(), variable.value(), variable.as_str()), ("A", "b=c d", "A=b=c d"));
        assert_eq!("E=".parse::<Variable>().expect("a variable").value(), "");
        for bad in ["A", "=x", "1A=b", "A B=c", "PATH=/x", "LD_PRELOAD=x", "A=b\nc", "A=b\0"] {
            assert!(bad.parse::<Variable>().is_err(), "{bad:?}");
        }
        assert_eq!(format!("{variable:?}"), "A=…");
    }

    #[test]
    fn variables_fit_into_a_record_together() {
        let long = "x".repeat(Variable::MAX_BYTES / 2);
        let variables: Vec<Variable> = ["A", "B"].map(|n| format!("{n}={long}").parse().expect("one")).to_vec();
        assert_eq!(Variable::check_all(&variables[..1], &[]), Ok(()));
        assert!(matches!(Variable::check_all(&variables, &[]), Err(VariableError::TooLong(_))));
    }
}
