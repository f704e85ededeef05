//! What a command is, and how it ends.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;

use super::server::{SSHD, Server, login_name};
use super::{output, script};
use crate::os::need;
use crate::shell::{Command, GuestShell, Outcome, ShellError, capture};
use crate::ssh::{UserSsh, entry};

#[test]
fn exit_codes_come_back_as_they_are() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    for code in [0, 1, 2, 42, 126, 127, 255] {
        let ended = output(&mut shell, &script(&format!("exit {code}")), b"");
        assert_eq!(ended.outcome, Outcome::Exited(code));
    }
    let table = [("kill -9 $$", 137, "KILL"), ("kill $$", 143, "TERM"), ("kill -2 $$", 130, "INT")];
    for (text, code, name) in table {
        let ended = output(&mut shell, &script(text), b"").outcome;
        assert_eq!(ended.exit_code(), code);
        assert_eq!(ended, Outcome::Signaled { name: name.into(), number: i32::from(code) - 128 });
    }
    let table = [("/no/such/program", 127), ("/etc/passwd", 126), ("-x", 127)];
    for (program, code) in table {
        assert_eq!(output(&mut shell, &Command::new([program]), b"").outcome, Outcome::Exited(code), "{program}");
    }
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let Some(server) = Server::start() else { return };
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
    let said = output(&mut server.shell(), &Command::new(argv), b"").stdout;
    let expected: Vec<u8> = arguments.iter().flat_map(|a| [a.as_slice(), b"\0"].concat()).collect();
    assert_eq!(said, expected);
}

#[test]
fn folder_and_environment_are_as_asked() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    let command = script("pwd; printf %s \"$GREETING\"").in_folder("/usr/lib").with_env("GREETING", "it's\n$me");
    assert_eq!(output(&mut shell, &command, b"").stdout, b"/usr/lib\nit's\n$me");
    let nowhere = output(&mut shell, &script("echo ran").in_folder("/no/such folder"), b"");
    assert_eq!((nowhere.outcome, nowhere.stdout.as_slice()), (Outcome::Exited(125), &b""[..]));
    assert!(!nowhere.stderr.is_empty());
    let login = Command::login().in_folder("/").with_env("A", "b");
    assert_eq!(output(&mut shell, &login, b"echo $A; pwd; exit 7\n").stdout, b"b\n/\n");
    let plain = output(&mut shell, &Command::login(), b"exit 6\n");
    assert_eq!(plain.outcome, Outcome::Exited(6));
}

#[test]
fn the_longest_command_line_passes_and_a_longer_one_is_refused_here() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    let longest = "x".repeat(super::super::quote::LONGEST - "exec printf '%s' ".len());
    assert_eq!(output(&mut shell, &Command::new(["printf", "%s", &longest]), b"").stdout.len(), longest.len());
    let longer = Command::new(["printf", "%s", &format!("{longest}x")]);
    assert!(matches!(capture(&mut shell, &longer, b"", 1), Err(ShellError::Command(_))));
}

#[test]
fn a_cut_connection_is_never_a_success() {
    let Some(server) = Server::start() else { return };
    let mut shell = server.shell();
    let error = capture(&mut shell, &script("echo said; kill -9 $PPID; sleep 9"), b"", 99).expect_err("cut");
    assert!(matches!(error, ShellError::ConnectionLost { .. }), "{error}");
    let again = capture(&mut shell, &script("true"), b"", 99).expect_err("still cut");
    assert!(matches!(again, ShellError::ConnectionLost { .. }), "{again}");
}

/// After the end of a channel's output libssh2 reads no more by itself: the loss shows elsewhere.
#[test]
fn a_connection_cut_after_the_end_of_output_is_no_success_and_no_endless_loop() {
    let Some(server) = Server::start() else { return };
    let (mut shell, (tell, told)) = (server.shell(), std::sync::mpsc::channel());
    // sshd needs a moment to pass on that both outputs were closed.
    let command = script("exec >&- 2>&-; sleep 1; kill -9 $PPID; sleep 9");
    std::thread::spawn(move || tell.send(capture(&mut shell, &command, b"", 99)));
    let result = told.recv_timeout(std::time::Duration::from_secs(20)).expect("it ends");
    assert!(matches!(result, Err(ShellError::ConnectionLost { .. })), "{result:?}");
}

#[test]
fn a_silent_peer_is_lost() {
    let Some(server) = Server::start() else { return };
    let seconds = std::time::Duration::from_secs(3);
    let timeouts = crate::shell::Timeouts { keepalive: seconds, silence: seconds, ..super::server::timeouts() };
    let mut shell =
        crate::ssh::SshShell::connect(server.socket(), &server.access(), timeouts, None).expect("a session");
    let patient = output(&mut shell, &script("sleep 5; echo alive"), b"");
    assert_eq!(patient.stdout, b"alive\n");
    let error = capture(&mut shell, &script("kill -STOP $PPID; sleep 15"), b"", 99).expect_err("silence");
    assert!(error.to_string().contains("no sign of life"), "{error}");
}

#[test]
fn the_users_own_ssh_trusts_what_banger_pinned() {
    let Some(server) = Server::start() else { return };
    let answers = std::process::Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_ok();
    if !need::is_met("ssh", "apt-get install openssh-client", answers) {
        return;
    }
    let folder = server.folder.path().join("a b%\"c");
    std::fs::create_dir(&folder).expect("a folder");
    let (identity, hosts) = (folder.join("id"), folder.join("hosts"));
    std::fs::copy(server.folder.path().join("user"), &identity).expect("copied");
    let (name, address) = ("box".parse().expect("a name"), std::net::Ipv4Addr::new(172, 30, 7, 2));
    let user = login_name();
    let ssh = UserSsh { name: &name, address, user: &user, identity: &identity, known_hosts: &hosts };
    let mut argv = ssh.argv(Some(&script("exit 42"))).expect("an argv");
    let proxy = format!("ProxyCommand={SSHD} -i -f {}", server.config().display());
    let end = argv.iter().position(|a| a == "--").expect("its --");
    argv.splice(end..end, ["-o".into(), proxy.into()]);
    let run = || std::process::Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).output().expect("runs");
    assert_eq!(run().status.code(), Some(255), "nothing is pinned yet");
    std::fs::write(&hosts, entry(&name, address, &server.host.public).expect("an entry")).expect("written");
    let done = run();
    assert_eq!(done.status.code(), Some(42), "{done:?}");
}

#[test]
fn the_shell_is_an_object() {
    fn takes(_: &mut dyn GuestShell) {}
    let Some(server) = Server::start() else { return };
    takes(&mut server.shell());
}
