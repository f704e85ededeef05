//! `ssh-config`: what the user's ssh has to know of VMs (`system::ssh_config`).

use std::io;
use std::path::{Path, PathBuf};

use super::super::args::SshConfig;
use super::super::render;
use super::super::report::Failure;
use crate::host::paths::Paths;
use crate::os::accounts;
use crate::protocol::{Fault, FaultKind};
use crate::ssh::settings;
use crate::system::ssh_config::{Deed, Files, SshConfigError, Standing, Told};

/// Prints, installs or uninstalls.
pub fn ssh_config(asked: &SshConfig) -> Result<(), Failure> {
    asked.check()?;
    let paths = Paths::current();
    let files = files(&paths, asked.file.as_deref())?;
    if asked.uninstall {
        return match files.uninstall().map_err(|e| failed(&e))? {
            Deed::Changed => said("ssh knows nothing of VMs any more"),
            Deed::Unchanged => said("nothing was installed"),
        };
    }
    let text = text(&paths)?;
    if !asked.install {
        return render::text(&text);
    }
    match files.install(&text).map_err(|e| failed(&e))? {
        Deed::Changed => said("installed: ssh NAME.vm"),
        Deed::Unchanged => said("installed already: ssh NAME.vm"),
    }
}

/// How things stand with `ssh NAME.vm`, for `doctor`.
pub fn standing(paths: &Paths) -> Result<Standing, Failure> {
    files(paths, None)?.standing(&text(paths)?).map_err(|e| failed(&e))
}

fn said(words: &str) -> Result<(), Failure> {
    render::note(words);
    Ok(())
}

fn failed(error: &SshConfigError) -> Failure {
    let kind = match error {
        SshConfigError::File(e) if e.kind() == io::ErrorKind::PermissionDenied => FaultKind::Unauthorized,
        SshConfigError::File(_) => FaultKind::OperationFailed,
        SshConfigError::Path(_) | SshConfigError::Unclosed { .. } | SshConfigError::Names(_) => FaultKind::Refused,
    };
    Fault::of(kind, error).into()
}

fn text(paths: &Paths) -> Result<String, Failure> {
    let program = std::env::current_exe().map_err(|e| Fault::failed("cannot tell where this program is", &e))?;
    let told = Told {
        program: &program,
        socket: &paths.socket(),
        known_hosts: &paths.known_hosts(),
        identities: &identities(paths),
        settings: settings(),
    };
    told.text().map_err(|e| failed(&e))
}

fn identities(paths: &Paths) -> PathBuf {
    paths.cache.join("ssh")
}

fn files(paths: &Paths, users: Option<&Path>) -> Result<Files, Failure> {
    let users = users.map_or_else(file_of_user, |file| std::path::absolute(file).map_err(unknown))?;
    Ok(Files { own: paths.config.with_file_name("ssh_config"), users, identities: identities(paths) })
}

/// ssh goes by the account's home, whatever `HOME` says (ssh(1), FILES).
fn file_of_user() -> Result<PathBuf, Failure> {
    let account = accounts::of_uid(rustix::process::geteuid().as_raw()).map(|account| account.home);
    // An account that is in no file: of LDAP, for instance.
    let home = account.or_else(|| std::env::var_os("HOME").map(PathBuf::from));
    let home = home.filter(|home| home.is_absolute()).ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
    Ok(home.join(".ssh/config"))
}

fn unknown(error: io::Error) -> Failure {
    Fault::failed("cannot tell where the configuration of ssh is", &error).into()
}
