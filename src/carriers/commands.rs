//! What a command is, and how it ends.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use super::{Guest, output, script};
use crate::shell::{Command, Outcome, ShellError, capture};

pub fn exit_codes_come_back_as_they_are(guest: &dyn Guest) {
    let mut shell = guest.shell();
    for code in [0, 1, 2, 42, 126, 127, 255] {
        let ended = output(&mut *shell, &script(&format!("exit {code}")), b"");
        assert_eq!(ended.outcome, Outcome::Exited(code));
    }
    let table = [("kill -9 $$", 137, "KILL"), ("kill $$", 143, "TERM"), ("kill -2 $$", 130, "INT")];
    for (text, code, name) in table {
        let ended = output(&mut *shell, &script(text), b"").outcome;
        assert_eq!(ended.exit_code(), code);
        assert_eq!(ended, Outcome::Signaled { name: name.into(), number: i32::from(code) - 128 });
    }
    let table = [("/no/such/program", 127), ("/etc/passwd", 126), ("-x", 127)];
    for (program, code) in table {
        assert_eq!(output(&mut *shell, &Command::new([program]), b"").outcome, Outcome::Exited(code), "{program}");
    }
}

pub fn arguments_arrive_byte_for_byte(guest: &dyn Guest) {
    let arguments: Vec<Vec<u8>> = vec![
        b"".into(),
        b"two words".into(),
        b"it's \"quoted\" $HOME `id` \\ !1 *".into(),
        b"line\nbreak\n".into(),
        (1..=255).collect(),
        "Grüße 🦀".into(),
    ];
    let mut argv: Vec<OsString> = vec!["printf".into(), r"%s\0".into()];
    argv.extend(arguments.iter().cloned().map(OsString::from_vec));
    let said = output(&mut *guest.shell(), &Command::new(argv), b"").stdout;
    let expected: Vec<u8> = arguments.iter().flat_map(|a| [a.as_slice(), b"\0"].concat()).collect();
    assert_eq!(said, expected);
}

pub fn folder_and_environment_are_as_asked(guest: &dyn Guest) {
    let mut shell = guest.shell();
    let command = script("pwd; printf %s \"$GREETING\"").in_folder("/usr/lib").with_env("GREETING", "it's\n$me");
    assert_eq!(output(&mut *shell, &command, b"").stdout, b"/usr/lib\nit's\n$me");
    let nowhere = output(&mut *shell, &script("echo ran").in_folder("/no/such folder"), b"");
    assert_eq!((nowhere.outcome, nowhere.stdout.as_slice()), (Outcome::Exited(125), &b""[..]));
    assert!(!nowhere.stderr.is_empty());
    let login = Command::login().in_folder("/").with_env("A", "b");
    assert_eq!(output(&mut *shell, &login, b"echo $A; pwd; exit 7\n").stdout, b"b\n/\n");
    let plain = output(&mut *shell, &Command::login(), b"exit 6\n");
    assert_eq!(plain.outcome, Outcome::Exited(6));
}

pub fn a_cut_connection_is_never_a_success(guest: &dyn Guest) {
    let mut shell = guest.shell();
    guest.cut_after(Duration::from_millis(300));
    let error = capture(&mut *shell, &script("echo said; sleep 30"), b"", 99).expect_err("cut");
    assert!(matches!(error, ShellError::ConnectionLost { .. }), "{error}");
    let again = capture(&mut *shell, &script("true"), b"", 99).expect_err("still cut");
    assert!(matches!(again, ShellError::ConnectionLost { .. }), "{again}");
}

pub fn many_commands_run_over_one_connection(guest: &dyn Guest) {
    let mut shell = guest.shell();
    for round in 0..20u8 {
        let ended = output(&mut *shell, &script(&format!("cat; exit {round}")), &[round; 1000]);
        assert_eq!((ended.outcome, ended.stdout), (Outcome::Exited(round), vec![round; 1000]));
    }
}

pub fn a_background_process_does_not_hold_up_the_end(guest: &dyn Guest) {
    let began = Instant::now();
    let ended = output(&mut *guest.shell(), &script("sleep 20 >/dev/null 2>&1 & echo done; exit 3"), b"");
    assert_eq!((ended.outcome, ended.stdout.as_slice()), (Outcome::Exited(3), &b"done\n"[..]));
    assert!(began.elapsed() < Duration::from_secs(10));
}
