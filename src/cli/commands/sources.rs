//! Where images and kernels come from: packages, bundles, files, and this host's own kernel. The
//! builders are those of the `image` room; here they get names, words and reasons.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use super::super::args::{KernelImport, Usage};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::oci;
use crate::host::config::Config;
use crate::host::paths::Paths;
use crate::image::ImageError;
use crate::image::builder::{self, Recipe};
use crate::image::catalogue::Source;
use crate::image::oci::Bundle;
use crate::model::KernelName;
use crate::protocol::{Event, Fault, FaultKind};

/// Most bytes of the words about a source.
const MAX_SOURCE: usize = 256;

/// A tar stream that is being made; whether it was made well is known only after its end.
pub trait Build: Read + Send {
    /// Readable when there is something to read.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
    /// Waits for the builder; its words when it failed.
    fn finish(self: Box<Self>) -> Result<(), Fault>;
}

impl Build for builder::Build {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream()
    }

    fn finish(self: Box<Self>) -> Result<(), Fault> {
        builder::Build::finish(*self).map_err(|e| fault(&e))
    }
}

/// A kernel that is being made.
pub struct KernelBuild {
    /// The stream.
    pub build: Box<dyn Build>,
    /// What `uname -r` says under it.
    pub release: String,
    /// Where it comes from, in words.
    pub source: String,
}

impl KernelBuild {
    fn new(kernel: builder::KernelBuild, source: &str) -> Self {
        Self { build: Box::new(kernel.build), release: kernel.release, source: words(source) }
    }
}

/// Whether an image can be had from `source` on this host; asks nobody.
pub fn check_image(source: &Source) -> Result<(), Failure> {
    match source {
        Source::Packages(recipe) => recipe.check_image().map_err(|e| fault(&e).into()),
        Source::Bundle { .. } | Source::Oci(_) => Ok(()),
    }
}

/// The same of a kernel.
pub fn check_kernel(source: &Source) -> Result<(), Failure> {
    match source {
        Source::Packages(recipe) => recipe.check_kernel().map_err(|e| fault(&e).into()),
        Source::Bundle { .. } | Source::Oci(_) => Ok(()),
    }
}

/// Starts making an image of packages.
pub fn image_of_packages(recipe: Recipe) -> Result<Box<dyn Build>, Failure> {
    Ok(Box::new(recipe.image().map_err(|e| fault(&e))?))
}

/// Fetches a kernel of packages.
pub fn kernel_of_packages(recipe: Recipe, paths: &Paths, description: &str) -> Result<KernelBuild, Failure> {
    let build = recipe.kernel(&paths.cache).map_err(|e| fault(&e))?;
    Ok(KernelBuild::new(build, description))
}

/// The kernel in a bundle that was downloaded.
pub fn kernel_of_bundle(file: File, release: Option<&str>, source: &str) -> Result<KernelBuild, Failure> {
    let build = builder::kernel_bundle(file, release).map_err(|e| fault(&e))?;
    Ok(KernelBuild::new(build, source))
}

/// Downloads a bundle, or finds it in the cache.
pub fn download(bundle: &Bundle, paths: &Paths, config: &Config, progress: &mut Progress) -> Result<File, Failure> {
    let settings = oci::settings(paths, config, progress)?;
    progress.stage(&format!("downloading {}", bundle.name()));
    let total = Some(bundle.bytes());
    let file = bundle.fetch(&settings, &mut |done| progress.show(&Event::Progress { done, total }));
    file.map_err(|e| oci::fault(&e).into())
}

/// The kernel that `kernel import` names, and its name here.
pub fn files_of(asked: &KernelImport) -> Result<(KernelBuild, KernelName), Failure> {
    let wrong = |message: &str| Failure::from(Usage::new(message, &["kernel", "import"]));
    let kernel = match (asked.host, &asked.vmlinuz, &asked.modules) {
        (true, None, None) => {
            let kernel = builder::host_kernel().map_err(|e| fault(&e))?;
            let source = format!("this host's kernel {}", kernel.release);
            KernelBuild::new(kernel, &source)
        }
        (false, Some(file), modules) => {
            let kernel = builder::kernel_files(file, modules.as_deref()).map_err(|e| fault(&e))?;
            KernelBuild::new(kernel, &format!("file {}", file.display()))
        }
        (true, _, _) => return Err(wrong("--host takes this host's kernel: --vmlinuz and --modules are for another")),
        (false, None, _) => return Err(wrong("either --host or --vmlinuz is needed")),
    };
    let name = asked.name.clone().map_or_else(|| name_of(&kernel, asked), Ok)?;
    Ok((kernel, name))
}

fn name_of(kernel: &KernelBuild, asked: &KernelImport) -> Result<KernelName, Failure> {
    let file = asked.vmlinuz.as_ref().and_then(|f| f.file_name()).unwrap_or_default().to_string_lossy();
    let text = if kernel.release.is_empty() { &*file } else { &kernel.release };
    text.parse().map_err(|_| {
        Usage::new(format!("{text:?} cannot be a kernel's name: give one with --name"), &["kernel", "import"]).into()
    })
}

/// As much of `text` as the words about a source may be.
pub fn words(text: &str) -> String {
    let mut end = text.len().min(MAX_SOURCE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn fault(error: &ImageError) -> Fault {
    let fault = Fault::of(FaultKind::OperationFailed, error);
    match error {
        ImageError::MissingTool { package, .. } => fault.hint(format!("sudo apt-get install {package}")),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: bool, vmlinuz: Option<&str>, modules: Option<&str>) -> KernelImport {
        let (vmlinuz, modules) = (vmlinuz.map(Into::into), modules.map(Into::into));
        KernelImport { host, vmlinuz, modules, name: None, boot_args: None }
    }

    #[test]
    fn a_kernel_is_the_hosts_or_a_file() {
        let wrong = [
            asked(false, None, None),
            asked(true, Some("/x"), None),
            asked(true, None, Some("/x")),
            asked(false, None, Some("/x")),
        ];
        for asked in wrong {
            let failure = files_of(&asked).map(|(_, name)| name).expect_err("refused");
            assert_eq!(failure.exit_code(false), 2, "{asked:?}");
        }
        let failure = files_of(&asked(false, Some("/nowhere/vmlinuz"), None)).map(|(_, n)| n).expect_err("refused");
        assert_eq!(failure.exit_code(false), 1);
    }

    #[test]
    fn a_file_names_its_kernel_where_that_is_a_name() {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, name) in [("vmlinuz-6.1", Some("vmlinuz-6.1")), ("Image", None)] {
            let path = folder.path().join(file);
            std::fs::write(&path, "elf").expect("written");
            let named = files_of(&asked(false, path.to_str(), None)).ok().map(|(_, n)| n.to_string());
            assert_eq!(named.as_deref(), name);
        }
    }

    #[test]
    fn words_fit_their_frame() {
        assert_eq!(words(&"ø".repeat(200)).len(), 256);
        assert_eq!(words("short"), "short");
    }
}
