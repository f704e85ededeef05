//! What a command is, and how it ends.

use std::process::Stdio;

use super::server::{SSHD, Server, login_name};
use super::{output, script};
use crate::os::need;
use crate::shell::{Command, GuestShell, ShellError, capture};
use crate::ssh::{UserSsh, entry};

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
