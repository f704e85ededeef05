//! `--secret NAME=SOURCE@HOST[,HOST...]`, as typed.

use std::path::PathBuf;
use std::str::FromStr;

use crate::model::secret::{SecretError, SecretHost, VariableName};

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a variable of the caller's environment.
    Variable(String),
    /// In a file, all of it but a line end at its end.
    File(PathBuf),
}

/// What `--secret` takes: never the secret itself, which everybody could read in the list of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedSecret {
    /// The variable in the guest.
    pub name: VariableName,
    /// Where its value is.
    pub source: Source,
    /// Whom it is for.
    pub hosts: Vec<SecretHost>,
}

impl FromStr for AskedSecret {
    type Err = SecretError;
    fn from_str(text: &str) -> Result<Self, SecretError> {
        let (name, rest) = text.split_once('=').ok_or(SecretError::Form)?;
        // A path may hold an `@`, a host does not.
        let (source, hosts) = rest.rsplit_once('@').ok_or(SecretError::Form)?;
        let source = match source.split_once(':') {
            Some(("env", variable)) if !variable.is_empty() => Source::Variable(variable.to_owned()),
            Some(("file", path)) if !path.is_empty() => Source::File(path.into()),
            _ => return Err(SecretError::Form),
        };
        let hosts = hosts.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { name: name.parse()?, source, hosts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_name_a_source_and_hosts() {
        let asked: AskedSecret = "GH_TOKEN=env:MY_TOKEN@api.github.com,github.com:8443".parse().expect("a secret");
        assert_eq!((asked.name.as_str(), &asked.source), ("GH_TOKEN", &Source::Variable("MY_TOKEN".into())));
        let hosts: Vec<String> = asked.hosts.iter().map(SecretHost::to_string).collect();
        assert_eq!(hosts, ["api.github.com", "github.com:8443"]);
        let asked: AskedSecret = "T=file:/run/a@b=c@a.example".parse().expect("a secret");
        assert_eq!(asked.source, Source::File("/run/a@b=c".into()));
    }

    #[test]
    fn whatever_else_is_written_is_refused_and_never_repeats_a_value() {
        for bad in
            ["T", "T=hunter2", "T=hunter2@a.example", "T=env:@a.example", "T=env:X", "T=env:X@", "=env:X@a.example"]
        {
            let error = bad.parse::<AskedSecret>().expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
