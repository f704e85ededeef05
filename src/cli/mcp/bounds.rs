//! What a server may, as its person has said: how many VMs, how large, how long, and which folders.

use std::path::{Path, PathBuf};

use super::super::args::Mcp;
use super::super::report::Failure;
use crate::model::egress::{Destination, Egress, Grant};
use crate::model::{Mib, TimeSpan, VmSpec, scope};
use crate::protocol::{Fault, FaultKind};
use crate::workspace::Repository;

/// The bounds of a server.
#[derive(Debug)]
pub struct Bounds {
    /// Most VMs at once.
    pub vms: u16,
    /// Most memory of all together.
    pub memory: Mib,
    /// Longest life of one.
    pub lifetime: TimeSpan,
    /// Whether a VM may have a network.
    pub network: bool,
    /// Whether VMs outlive the server.
    pub keep: bool,
    /// Folders below which repositories may be, without links.
    workspaces: Vec<PathBuf>,
}

impl Bounds {
    /// As asked; each folder has to be there.
    pub fn of(asked: &Mcp) -> Result<Self, Failure> {
        if asked.max_memory < VmSpec::MIN_MEMORY {
            let message = format!("--max-memory {}: no VM has less than {}", asked.max_memory, VmSpec::MIN_MEMORY);
            return Err(Failure::new(FaultKind::BadRequest, message));
        }
        let folder = |path: &PathBuf| match path.canonicalize() {
            Ok(real) if real.is_dir() => Ok(real),
            Ok(_) => Err(unusable(path, "it is no folder")),
            Err(e) => Err(unusable(path, &e.to_string())),
        };
        Ok(Self {
            vms: asked.max_vms,
            memory: asked.max_memory,
            lifetime: asked.max_lifetime,
            network: !asked.no_network,
            keep: asked.keep,
            workspaces: asked.workspace.iter().map(folder).collect::<Result<_, _>>()?,
        })
    }

    /// The folders, for people.
    pub fn workspaces(&self) -> impl Iterator<Item = String> {
        self.workspaces.iter().map(|path| path.display().to_string())
    }

    /// The memory of a VM for which none was asked: what is usual here, and no more than its share.
    pub fn usual_memory(&self, usual: Mib) -> Mib {
        usual.min(Mib(self.memory.0 / u32::from(self.vms))).max(VmSpec::MIN_MEMORY)
    }

    /// The folder at `path` without links, where it may be read.
    pub fn folder(&self, path: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err(Failure::new(FaultKind::BadRequest, "repository is an absolute path on the host"));
        }
        // Whether something is there at all is nobody's business who may not read it.
        match path.canonicalize() {
            Ok(real) if self.permits(&real) => Ok(real),
            Ok(_) | Err(_) => Err(self.refusal(path)),
        }
    }

    /// Refuses a repository of which a part, found by git from a folder that is permitted, lies elsewhere: its top, or,
    /// by a `.git` file or a list of other object stores, what it keeps its history in.
    pub fn check(&self, repository: &Repository) -> Result<(), Failure> {
        let parts = repository.parts().map_err(|e| Fault::of(FaultKind::OperationFailed, &e))?;
        let real = |path: &PathBuf| path.canonicalize().ok();
        match parts.iter().find(|path| !real(path).is_some_and(|real| self.permits(&real))) {
            Some(outside) => Err(self.refusal(outside)),
            None => Ok(()),
        }
    }

    fn permits(&self, real: &Path) -> bool {
        self.workspaces.iter().any(|folder| real.starts_with(folder))
    }

    fn refusal(&self, path: &Path) -> Failure {
        let message = format!("{} is not below a folder that this server may read", path.display());
        let failure = Failure::new(FaultKind::Refused, message);
        match self.workspaces.is_empty() {
            true => failure.hint("the person who runs this server permits folders by: banger mcp --workspace DIR"),
            false => failure.hint(format!("permitted: {}", self.workspaces().collect::<Vec<_>>().join(", "))),
        }
    }

    /// What a VM's network may be of `egress`, which the person's settings may give every VM.
    pub fn of_egress(&self, egress: Egress) -> Egress {
        if self.network { egress } else { Egress::default() }
    }

    /// Refuses a destination near this host. A person may grant it; a model, which may have been talked into it, not.
    pub fn check_grant(&self, grant: &Grant) -> Result<(), Failure> {
        if !self.network {
            return Err(Failure::new(FaultKind::Refused, "this server gives VMs no network (--no-network)"));
        }
        match &grant.to {
            Destination::Net(net) if !scope::is_all_public(*net) => Err(Failure::new(
                FaultKind::Refused,
                format!("{grant} is not the internet's: host, private networks and cloud metadata stay closed"),
            )),
            Destination::Net(_) | Destination::Name(_) => Ok(()),
        }
    }
}

fn unusable(path: &Path, why: &str) -> Failure {
    Failure::new(FaultKind::BadRequest, format!("--workspace {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(workspaces: &[&Path]) -> Result<Bounds, Failure> {
        Bounds::of(&Mcp {
            max_vms: 4,
            max_memory: Mib(8192),
            max_lifetime: TimeSpan::HOUR,
            workspace: workspaces.iter().map(|path| path.to_path_buf()).collect(),
            no_network: false,
            keep: false,
        })
    }

    #[test]
    fn a_folder_is_judged_by_where_it_really_is() {
        let home = tempfile::tempdir().expect("a folder");
        let (open, closed) = (home.path().join("open"), home.path().join("open-not"));
        for folder in [&open, &closed] {
            std::fs::create_dir(folder).expect("made");
        }
        std::os::unix::fs::symlink(&closed, open.join("link")).expect("linked");
        std::os::unix::fs::symlink(&open, closed.join("back")).expect("linked");
        let bounds = bounds(&[&open]).expect("there");
        let may = |path: PathBuf| bounds.folder(path.to_str().expect("plain")).is_ok();
        assert!(may(open.clone()) && may(closed.join("back")) && may(closed.join("../open/.")));
        assert!(!may(closed) && !may(open.join("link")) && !may(open.join("..")) && !may(open.join("none")));
        assert!(bounds.folder("open").is_err() && bounds.folder("").is_err());
        assert!(super::tests::bounds(&[]).expect("none").folder("/").is_err());
        assert!(super::tests::bounds(&[Path::new("/no/such")]).is_err());
    }

    #[test]
    fn a_repository_that_reaches_out_of_its_folder_is_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let script = "set -e; git init -q .; mkdir -p in/plain in/linked; git init -q in/plain
            echo 'gitdir: ../../.git' >in/linked/.git
            mkdir in/alternate; git init -q in/alternate; echo ../../../../.git/objects >in/alternate/.git/objects/info/alternates";
        let made = std::process::Command::new("sh").args(["-c", script]).current_dir(home.path()).status();
        assert!(made.expect("sh runs").success());
        let inside = home.path().join("in");
        let bounds = bounds(&[&inside]).expect("there");
        let check = |name: &str| bounds.check(&Repository::open(&inside.join(name)).expect(name));
        assert_eq!(check("plain"), Ok(()));
        for name in ["linked", "alternate", ""] {
            assert_eq!(check(name).expect_err(name).kind(), Some(FaultKind::Refused), "{name:?}");
        }
    }

    #[test]
    fn what_is_near_the_host_is_nothing_that_a_model_may_grant() {
        let bounds = bounds(&[]).expect("none");
        let may = |text: &str| bounds.check_grant(&text.parse().expect(text)).is_ok();
        assert!(may("example.org:443") && may("1.1.1.1") && may("203.0.113.0/24"));
        for near in ["10.0.0.1", "169.254.169.254:80", "0.0.0.0/0", "192.0.0.0/8", "127.0.0.1", "168.63.129.16"] {
            assert!(!may(near), "{near}");
        }
    }

    #[test]
    fn without_a_network_the_persons_settings_open_none() {
        let granted: Grant = "github.com:443".parse().expect("a destination");
        let egress = Egress { grants: vec![granted], ..Egress::default() };
        let with = bounds(&[]).expect("none");
        assert_eq!(with.of_egress(egress.clone()), egress);
        assert_eq!(Bounds { network: false, ..with }.of_egress(egress), Egress::default());
    }

    #[test]
    fn nobody_gets_more_than_a_share_without_asking() {
        let bounds = bounds(&[]).expect("none");
        assert_eq!((bounds.usual_memory(Mib(8192)), bounds.usual_memory(Mib(1024))), (Mib(2048), Mib(1024)));
    }
}
