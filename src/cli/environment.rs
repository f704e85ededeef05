//! Variables as asked for: `--env NAME=VALUE`, `--env NAME` (the caller's own), `--env-file FILE`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::report::Failure;
use crate::model::Variable;
use crate::model::environment::VariableError;
use crate::model::secret::VariableName;
use crate::os::files::read_limited;
use crate::protocol::{Fault, FaultKind};

/// Most bytes of a file of variables: more than a VM can have.
const MAX_FILE: u64 = 1 << 20;

/// One `--env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedVariable {
    /// `NAME=VALUE`.
    Given(Variable),
    /// `NAME`: what it is here; nothing where it is not set, as docker has it.
    Here(VariableName),
}

impl FromStr for AskedVariable {
    type Err = VariableError;
    fn from_str(text: &str) -> Result<Self, VariableError> {
        if text.contains('=') { text.parse().map(Self::Given) } else { Ok(Self::Here(text.parse()?)) }
    }
}

/// All that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedEnvironment {
    /// Files with lines of `NAME=VALUE` or `NAME`.
    pub files: Vec<PathBuf>,
    /// What stands above what is in files.
    pub variables: Vec<AskedVariable>,
}

/// The variables of a new VM; the last of each name counts.
pub fn variables(asked: &AskedEnvironment) -> Result<Vec<Variable>, Failure> {
    let mut all: Vec<AskedVariable> = Vec::new();
    for file in &asked.files {
        all.extend(read(file)?);
    }
    all.extend(asked.variables.iter().cloned());
    let mut variables: Vec<Variable> = Vec::new();
    for asked in all {
        if let Some(variable) = value(asked)? {
            variables.retain(|other| other.name() != variable.name());
            variables.push(variable);
        }
    }
    Ok(variables)
}

fn value(asked: AskedVariable) -> Result<Option<Variable>, Failure> {
    let name = match asked {
        AskedVariable::Given(variable) => return Ok(Some(variable)),
        AskedVariable::Here(name) => name,
    };
    let Some(value) = std::env::var_os(name.as_str()) else { return Ok(None) };
    let value = value.into_string().map_err(|_| refused(format!("the variable {name} is no text here")))?;
    Variable::new(name, &value).map(Some).map_err(|e| Fault::of(FaultKind::BadRequest, &e).into())
}

/// Lines of a file; empty ones and those that begin with `#` say nothing.
fn read(file: &Path) -> Result<Vec<AskedVariable>, Failure> {
    let bytes = read_limited(file, MAX_FILE).map_err(|e| Fault::of(FaultKind::BadRequest, &e))?;
    let text = String::from_utf8(bytes).map_err(|_| refused(format!("{} is no text", file.display())))?;
    let said = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let lines = text.lines().enumerate().map(|(number, line)| (number, line.trim_start())).filter(|(_, l)| said(l));
    lines
        .map(|(number, line)| line.parse().map_err(|e| refused(format!("{}:{}: {e}", file.display(), number + 1))))
        .collect()
}

fn refused(message: String) -> Failure {
    Failure::new(FaultKind::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_the_last_of_a_name_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("env");
        std::fs::write(&file, "# no\n\nA=1\n  B=two words \nNO_SUCH_VARIABLE_HERE\nA=2\n").expect("written");
        let asked = |variables: &[&str]| AskedEnvironment {
            files: vec![file.clone()],
            variables: variables.iter().map(|v| v.parse().expect("one")).collect(),
        };
        let text = |asked| variables(&asked).expect("read").iter().map(|v| v.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(text(asked(&[])), ["B=two words ", "A=2"]);
        assert_eq!(text(asked(&["B=3"])), ["A=2", "B=3"]);
        assert_eq!(text(asked(&["CARGO_PKG_NAME"])).last().map(String::as_str), Some("CARGO_PKG_NAME=banger"));
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("env");
        std::fs::write(&file, "A=1\n2=x\n").expect("written");
        let asked = AskedEnvironment { files: vec![file.clone()], variables: Vec::new() };
        let said = variables(&asked).expect_err("refused").line();
        assert!(said.contains(&format!("{}:2: ", file.display())), "{said}");
    }
}
