//! The same tests over each carrier of the guest shell: what a command is, its streams, its signals.
//!
//! Only tests, and a room of its own, because nothing else may know both ends of a carrier. ssh talks
//! to a real sshd over a socket pair and to the guest's own server, the agent's carrier to the guest's own end
//! of it in a thread.

mod commands;
mod signals;
mod streams;

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::guest::shell::session;
use crate::guest::shell::wire::{Kind, Wire};
use crate::guest::ssh::tests::connection_to_a_process;
use crate::protocol::shell::Token;
use crate::shell::{AgentShell, GuestShell, Timeouts};
use crate::ssh::tests::server::{Server, login_name, timeouts};
use crate::ssh::tests::{output, script};
use crate::ssh::{Access, KeyPair, SshShell, generate};

/// Something to run commands in.
trait Guest {
    /// A connection.
    fn shell(&self) -> Box<dyn GuestShell>;
    /// Cuts the last connection after a while.
    fn cut_after(&self, time: Duration);
}

struct OverSsh(Server, RefCell<Option<UnixStream>>);

impl Guest for OverSsh {
    fn shell(&self) -> Box<dyn GuestShell> {
        let socket = UnixStream::from(self.0.socket());
        *self.1.borrow_mut() = Some(socket.try_clone().expect("a copy"));
        Box::new(SshShell::connect(socket.into(), &self.0.access(), timeouts(), None).expect("a session"))
    }

    fn cut_after(&self, time: Duration) {
        cut(self.1.take(), time);
    }
}

/// The guest's own ssh server, for images without one: its private key and the client's public one, and
/// what the client knows.
struct OverOwn(KeyPair, Access, RefCell<Option<UnixStream>>);

impl OverOwn {
    fn start() -> Self {
        signals_as_in_a_guest();
        let (host, user) = (generate().expect("a key"), generate().expect("a key"));
        let (private_key, host_key) = (user.private.clone(), host.public.clone());
        let access = Access { name: "box".into(), user: login_name(), private_key, host_key };
        Self(KeyPair { public: user.public, private: host.private }, access, RefCell::default())
    }
}

impl Guest for OverOwn {
    fn shell(&self) -> Box<dyn GuestShell> {
        let socket = UnixStream::from(connection_to_a_process(&self.0.private, &self.0.public));
        *self.2.borrow_mut() = Some(socket.try_clone().expect("a copy"));
        Box::new(SshShell::connect(socket.into(), &self.1, timeouts(), None).expect("a session"))
    }

    fn cut_after(&self, time: Duration) {
        cut(self.2.take(), time);
    }
}

struct OverAgent(RefCell<Option<UnixStream>>);

const TOKEN: Token = *b"a token of tests";

/// A signal with a handler is a signal at its default after an exec (signal(7)), as it is in a guest:
/// whoever runs the tests in the background has it ignored.
fn signals_as_in_a_guest() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGQUIT] {
            signal_hook::flag::register(signal, Arc::default()).expect("a handler");
        }
    });
}

impl Guest for OverAgent {
    fn shell(&self) -> Box<dyn GuestShell> {
        signals_as_in_a_guest();
        let (near, far) = UnixStream::pair().expect("a pair");
        *self.0.borrow_mut() = Some(near.try_clone().expect("a copy"));
        std::thread::spawn(move || {
            let mut wire = Wire::new(File::from(OwnedFd::from(far)), Kind::Connection).expect("a wire");
            assert!(wire.begin(TOKEN, Duration::from_secs(5)).expect("begun"), "nobody came");
            session::serve(&mut wire).expect("served");
        });
        Box::new(AgentShell::open(near.into(), TOKEN, "box", Timeouts::default()).expect("a channel"))
    }

    fn cut_after(&self, time: Duration) {
        cut(self.0.take(), time);
    }
}

fn cut(socket: Option<UnixStream>, time: Duration) {
    let socket = socket.expect("a connection");
    std::thread::spawn(move || {
        std::thread::sleep(time);
        socket.shutdown(std::net::Shutdown::Both).expect("cut");
    });
}

/// Each of the tests over both carriers, and over ssh to both servers.
macro_rules! over_all {
    ($($room:ident::$test:ident,)*) => {
        mod ssh {
            $(#[test]
            fn $test() {
                if let Some(server) = super::Server::start() {
                    super::$room::$test(&super::OverSsh(server, Default::default()));
                }
            })*
        }
        mod own {
            $(#[test]
            fn $test() {
                super::$room::$test(&super::OverOwn::start());
            })*
        }
        mod agent {
            $(#[test]
            fn $test() {
                super::$room::$test(&super::OverAgent(Default::default()));
            })*
        }
    };
}

over_all! {
    commands::exit_codes_come_back_as_they_are,
    commands::arguments_arrive_byte_for_byte,
    commands::folder_and_environment_are_as_asked,
    commands::a_cut_connection_is_never_a_success,
    commands::many_commands_run_over_one_connection,
    commands::a_background_process_does_not_hold_up_the_end,
    streams::bytes_stay_bytes_and_the_outputs_stay_apart,
    streams::a_large_file_there_and_back_is_the_same_file,
    streams::a_slow_reader_gets_everything,
    streams::waiting_for_a_reader_after_the_end_costs_nothing,
    streams::a_command_that_does_not_read_ends_all_the_same,
    streams::a_closed_output_ends_the_command_as_a_broken_pipe,
    streams::an_output_beyond_the_limit_is_an_error,
    streams::a_terminal_is_one,
    signals::a_signal_reaches_the_command_and_all_its_group,
    signals::the_third_signal_and_abandoning_end_the_wait,
    signals::a_terminal_is_resized_and_hung_up,
}
