//! `banger-dial SOCKET IDENTITIES NAME.vm`: what stands between the user's ssh and a VM's, as its `ProxyCommand`
//! (ssh_config(5)). The daemon connects; this lays the link by which ssh finds the VM's key, before ssh needs it, and
//! copies bytes both ways until both ends have closed. Starts nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::client::{Client, unexpected};
use super::report::Failure;
use crate::model::VmName;
use crate::os::files::{ensure_dir, named, remove_file};
use crate::os::random;
use crate::protocol::owner::{Carrier, OwnerReply, OwnerRequest, ShellAccess};
use crate::protocol::{Fault, FaultKind};
use crate::system::ssh_config::SUFFIX;

/// Bytes that are copied at once: what a pipe holds (pipe(7)).
const PIECE: usize = 64 << 10;

/// Most links that are looked through for such that lead nowhere any more.
const MOST_LINKS: usize = 4096;

/// Connects standard input and output to the VM's ssh server.
pub fn dial(arguments: &[OsString]) -> Result<(), Failure> {
    let [socket, identities, host] = arguments else {
        return Err(Failure::new(FaultKind::BadRequest, "banger-dial takes SOCKET IDENTITIES NAME.vm: ssh calls it"));
    };
    let name = name_of(&host.to_string_lossy())?;
    let Some(mut client) = Client::connect(Path::new(socket))? else {
        return Err(Failure::new(FaultKind::Unavailable, "the daemon does not run").hint("banger daemon start"));
    };
    let request = OwnerRequest::OpenShell { name: name.clone(), carriers: vec![Carrier::Ssh] };
    let (access, stream) = match client.call(request, Vec::new(), &mut |_| {})? {
        (OwnerReply::Shell(access), mut files) if files.len() == 1 => (access, files.remove(0)),
        (other, _) => return Err(unexpected(&other)),
    };
    drop(client);
    lay_link(Path::new(identities), &name, &access)
        .map_err(|e| Fault::failed(format!("cannot show ssh the key of vm '{name}'"), &e))?;
    copy_both_ways(stream).map_err(|e| Fault::failed(format!("cannot pass on what vm '{name}' says"), &e).into())
}

fn name_of(host: &str) -> Result<VmName, Failure> {
    let name = host.strip_suffix(SUFFIX).unwrap_or(host);
    name.parse().map_err(|e| Fault::of(FaultKind::BadRequest, &e).into())
}

/// Has `NAME.vm` in `folder` lead to the VM's key. VMs of one name, one after the other, have different ones.
fn lay_link(folder: &Path, name: &VmName, access: &ShellAccess) -> io::Result<()> {
    let (link, target) = (folder.join(format!("{name}{SUFFIX}")), Path::new(&access.identity_file));
    if std::fs::read_link(&link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    ensure_dir(folder, 0o700)?;
    clear_away(folder)?;
    let beside = folder.join(format!(".{name}.{:x}", random::number()));
    symlink(target, &beside).map_err(named("make a link at", &beside))?;
    std::fs::rename(&beside, &link).map_err(named("rename to", &link))
}

/// Removes links to keys that are gone.
fn clear_away(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder).map_err(named("list", folder))?.take(MOST_LINKS) {
        let path = entry?.path();
        if path.is_symlink() && !path.exists() {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Until both have ended. An end of one is passed on and leaves the other alone.
fn copy_both_ways(stream: OwnedFd) -> io::Result<()> {
    // Sockets of all families read, write and shut down alike.
    let there = UnixStream::from(stream);
    let (mut from, mut to) = (there.try_clone()?, there);
    let out = std::thread::spawn(move || -> io::Result<()> {
        let mut output = File::from(rustix::io::dup(rustix::stdio::stdout())?);
        let copied = copy(&mut from, &mut output);
        drop(output);
        // ssh reads its end only when nobody holds this one any more.
        rustix::stdio::dup2_stdout(File::open("/dev/null")?)?;
        copied
    });
    let mut input = File::from(rustix::io::dup(rustix::stdio::stdin())?);
    let copied = copy(&mut input, &mut to);
    // The other side may have gone already.
    let _ = to.shutdown(Shutdown::Write);
    let heard = out.join().unwrap_or_else(|_| Err(io::Error::other("the copying thread ended")));
    copied.and(heard)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => match to.write_all(&piece[..count]) {
                Ok(()) => {}
                // Nobody is there any more who would miss it.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(e) => return Err(e),
            },
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::choice::VmmKind;

    fn access(identity: &Path) -> ShellAccess {
        ShellAccess {
            name: "box".parse().expect("a name"),
            address: std::net::Ipv4Addr::LOCALHOST,
            port: 22,
            user: "root".into(),
            private_key: String::new(),
            host_key: String::new(),
            identity_file: identity.display().to_string(),
            known_hosts_file: String::new(),
            vmm: VmmKind::Qemu,
        }
    }

    #[test]
    fn only_names_of_vms_are_dialled() {
        assert_eq!(name_of("box.vm").expect("a name").as_str(), "box");
        for bad in ["", ".vm", "a.b.vm", "../x.vm", "-x.vm", "a b.vm"] {
            assert!(name_of(bad).is_err(), "{bad:?}");
        }
        assert!(dial(&["/s".into(), "/i".into()]).is_err());
    }

    #[test]
    fn the_link_leads_to_the_key_of_the_vm_that_is_there_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let (links, one, two) = (folder.path().join("ssh"), folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, "1").expect("written");
        std::fs::write(&two, "2").expect("written");
        let name = |text: &str| text.parse::<VmName>().expect("a name");
        let lay = |vm: &str, key: &Path| lay_link(&links, &name(vm), &access(key)).expect("laid");
        lay("old", &one);
        lay("box", &one);
        std::fs::remove_file(&one).expect("removed");
        lay("box", &two);
        assert_eq!(std::fs::read(links.join("box.vm")).expect("read"), b"2");
        let left: Vec<_> = std::fs::read_dir(&links).expect("listed").map(|e| e.expect("one").file_name()).collect();
        assert_eq!(left, ["box.vm"], "what leads nowhere is gone");
    }
}
