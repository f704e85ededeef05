//! What a test needs of the machine it runs on.
//!
//! A test that returns early looks like one that passed. So what is missing is said on standard
//! error, past the harness, which keeps the words of tests that pass; and where `BANGER_TESTS_NEED`
//! is set, on a machine that has to have everything, it is a failure.

use std::io::Write;

const VARIABLE: &str = "BANGER_TESTS_NEED";

/// Whether `what` is there, as the caller has found out; `cure` says what to type where it is not.
pub fn is_met(what: &str, cure: &str, present: bool) -> bool {
    if !present {
        let line = excuse(what, cure, std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()));
        // Nobody may be listening; then the harness's own lines are lost as well.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    present
}

fn excuse(what: &str, cure: &str, is_demanded: bool) -> String {
    assert!(!is_demanded, "{VARIABLE} is set, but {what} is missing: {cure}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    format!("{test}: not run, {what} is missing: {cure}\n")
}

#[test]
fn what_is_missing_is_said_with_its_test() {
    assert!(is_met("sh", "apt-get install dash", true));
    let said = excuse("sshd", "apt-get install openssh-server", false);
    assert!(said.ends_with("_its_test: not run, sshd is missing: apt-get install openssh-server\n"), "{said}");
}

#[test]
#[should_panic(expected = "apt-get install openssh-server")]
fn where_everything_is_demanded_what_is_missing_is_a_failure() {
    excuse("sshd", "apt-get install openssh-server", true);
}
