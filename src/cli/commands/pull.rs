//! Making images and kernels: a builder runs here, as the person who asked, and its tar stream
//! goes to the daemon through a pipe.
//!
//! A stream that was cut must never look whole. The end of the stream, with tar's end mark in it, is
//! held back until the builder has said that all went well; else the daemon gets a broken block.

use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::super::client::{Client, unexpected};
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::{remote, render};
use super::oci as registries;
use super::sources::{self, Build, KernelBuild};
use super::{catalogue, images, kernels};
use crate::host::config::Config;
use crate::host::paths::Paths;
use crate::image::builder::Recipe;
use crate::image::catalogue::Source;
use crate::image::oci;
use crate::model::launch::KernelArgs;
use crate::model::{ImageName, InitMode, KernelName, Mib};
use crate::os::files::{Lock, ensure_dir};
use crate::protocol::owner::{OwnerReply, OwnerRequest};
use crate::protocol::{Fault, FaultKind};

pub use super::sources::files_of;

/// Bytes held back: more than tar's last record, which holds its end mark (10 KiB, tar(5)).
const HELD: usize = 64 << 10;

/// A header that no tar reader takes: its checksum is wrong.
const BROKEN_BLOCK: [u8; 512] = [0xff; 512];

/// What came of a wish for something to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    Now,
    /// It was there.
    Before,
}

impl Made {
    /// Prints the name, and says when nothing had to be done.
    pub fn say(self, what: &str, name: &str) -> Result<(), Failure> {
        if self == Self::Before {
            render::note(&format!("{what} '{name}' is there already; to make it anew: banger {what} delete {name}"));
        }
        render::name(name)
    }
}

/// Makes the catalogue's image available that a VM needs.
pub fn ensure_image(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    name: &ImageName,
    progress: &mut Progress,
) -> Result<(), Failure> {
    image(client, paths, config, name, name, None, progress).map(|_| ())
}

/// Makes the catalogue's kernel available that a VM needs.
pub fn ensure_kernel(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    name: &KernelName,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let is_there = kernels::all(client)?.iter().any(|kernel| kernel.name == *name);
    if is_there || remote::errand(&["kernel", "pull", name.as_str()])? {
        return Ok(());
    }
    kernel(client, paths, config, name, progress).map(|_| ())
}

/// The catalogue's image `entry` as `name`, unless that is there.
pub fn image(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    entry: &ImageName,
    name: &ImageName,
    size: Option<Mib>,
    progress: &mut Progress,
) -> Result<Made, Failure> {
    if is_there(client, name, size)? {
        return Ok(Made::Before);
    }
    let catalogue = catalogue::load(paths)?;
    let entry = catalogue::find(catalogue.images(), "image", entry)?;
    let _lock = lock(paths, &format!("image-{name}.lock"), progress)?;
    // Another command may have made it while this one waited.
    if is_there(client, name, size)? {
        return Ok(Made::Before);
    }
    let order = ImageOrder { paths, config, description: &entry.description, name, size };
    catalogue::first_that_works(&entry.sources(), &sources::check_image, progress, &mut |source, progress| {
        order.make(client, source, progress)
    })?;
    Ok(Made::Now)
}

fn is_there(client: &mut Client, name: &ImageName, size: Option<Mib>) -> Result<bool, Failure> {
    match images::all(client)?.iter().find(|image| image.name == *name) {
        Some(image) => registries::check_size(image, size).map(|()| true),
        None => Ok(false),
    }
}

/// An image that shall be made, wherever it comes from.
struct ImageOrder<'a> {
    paths: &'a Paths,
    config: &'a Config,
    description: &'a str,
    name: &'a ImageName,
    size: Option<Mib>,
}

impl ImageOrder<'_> {
    fn make(&self, client: &mut Client, source: &Source, progress: &mut Progress) -> Result<(), Failure> {
        let from = match source {
            Source::Packages(recipe) => return self.of_packages(client, *recipe, progress),
            Source::Oci(reference) => (oci::Source::Registry(reference.clone()), Some(reference)),
            Source::Bundle { bundle, .. } => {
                let file = sources::download(bundle, self.paths, self.config, progress)?;
                (oci::Source::OciArchive(oci::Input::Open(file, bundle.name().to_owned())), None)
            }
        };
        let (settings, words) =
            (registries::settings(self.paths, self.config, progress)?, sources::words(&source.to_string()));
        registries::of_catalogue(client, &settings, (from.0, from.1, words), self.name, self.size, progress)
    }

    fn of_packages(&self, client: &mut Client, recipe: Recipe, progress: &mut Progress) -> Result<(), Failure> {
        progress.stage(&format!("making image '{}'", self.name));
        let build = sources::image_of_packages(recipe)?;
        let (name, source) = (self.name.clone(), sources::words(self.description));
        let request = OwnerRequest::ImportImage { name, size: self.size, init: InitMode::Image, source };
        match import(client, request, build, progress)? {
            OwnerReply::Image(_) | OwnerReply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// The catalogue's kernel `name`, unless it is there.
pub fn kernel(
    client: &mut Client,
    paths: &Paths,
    config: &Config,
    name: &KernelName,
    progress: &mut Progress,
) -> Result<Made, Failure> {
    if kernels::all(client)?.iter().any(|k| k.name == *name) {
        return Ok(Made::Before);
    }
    let catalogue = catalogue::load(paths)?;
    let entry = catalogue::find(catalogue.kernels(), "kernel", name)?;
    let _lock = lock(paths, &format!("kernel-{name}.lock"), progress)?;
    if kernels::all(client)?.iter().any(|k| k.name == *name) {
        return Ok(Made::Before);
    }
    catalogue::first_that_works(&entry.sources(), &sources::check_kernel, progress, &mut |source, progress| {
        let build = kernel_of(source, &entry.description, paths, config, progress)?;
        progress.stage(&format!("making kernel '{name}'"));
        import_kernel(client, name, KernelArgs::default(), build, progress)
    })?;
    Ok(Made::Now)
}

fn kernel_of(
    source: &Source,
    description: &str,
    paths: &Paths,
    config: &Config,
    progress: &mut Progress,
) -> Result<KernelBuild, Failure> {
    match source {
        Source::Packages(recipe) => {
            progress.stage("fetching the kernel's package");
            sources::kernel_of_packages(*recipe, paths, description)
        }
        Source::Bundle { bundle, release } => {
            let file = sources::download(bundle, paths, config, progress)?;
            sources::kernel_of_bundle(file, release.as_deref(), &source.to_string())
        }
        // The catalogue's reader takes none.
        Source::Oci(reference) => {
            Err(Failure::new(FaultKind::BadRequest, format!("{reference} is an image, and a kernel is wanted")))
        }
    }
}

/// Gives the daemon a kernel.
pub fn import_kernel(
    client: &mut Client,
    name: &KernelName,
    boot_args: KernelArgs,
    kernel: KernelBuild,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let KernelBuild { build, release, source } = kernel;
    let request = OwnerRequest::ImportKernel { name: name.clone(), release, boot_args, source };
    match import(client, request, build, progress)? {
        OwnerReply::Kernel(_) | OwnerReply::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Held by the one command that makes something; the others wait for it.
pub fn lock(paths: &Paths, file: &str, progress: &mut Progress) -> Result<Lock, Failure> {
    let failed = |e: io::Error| Failure::from(Fault::failed("cannot lock the cache", &e));
    ensure_dir(&paths.cache, 0o700).map_err(failed)?;
    let path = paths.cache.join(file);
    if let Some(lock) = Lock::attempt(&path).map_err(failed)? {
        return Ok(lock);
    }
    progress.stage("waiting for another command that makes the same");
    progress.waits_for("its own progress is where it was typed");
    Lock::wait(&path).map_err(failed)
}

fn import(
    client: &mut Client,
    request: OwnerRequest,
    build: Box<dyn Build>,
    progress: &mut Progress,
) -> Result<OwnerReply, Failure> {
    let (reader, writer) = io::pipe().map_err(|e| Fault::failed("cannot make a pipe", &e))?;
    let (pumped, replied) = std::thread::scope(|scope| {
        let pump = scope.spawn(move || pump(build, writer));
        let replied = client.call(request, vec![reader.into()], &mut |event| progress.show(event));
        (pump.join(), replied)
    });
    outcome(pumped, replied)
}

/// What came of a request whose stream `pumped` has passed on.
pub fn outcome<R>(
    pumped: std::thread::Result<Result<(), PumpError>>,
    replied: Result<(OwnerReply, R), Failure>,
) -> Result<OwnerReply, Failure> {
    match (pumped, replied) {
        (Ok(Ok(())), Ok((reply, _))) => Ok(reply),
        // It was stopped because the request had failed.
        (Ok(Err(PumpError::Source(fault))), Err(failure)) if fault.kind == FaultKind::Cancelled => Err(failure),
        // Its words explain more than the daemon's, who only saw a broken stream.
        (Ok(Err(PumpError::Source(fault))), _) => Err((*fault).into()),
        (_, Err(failure)) => Err(failure),
        (Ok(Err(PumpError::Pipe(e))), Ok(_)) => Err(Fault::failed("cannot pass the stream to the daemon", &e).into()),
        (Err(_), Ok(_)) => Err(Failure::new(FaultKind::OperationFailed, "the thread that passes the stream on ended")),
    }
}

/// Why a stream was not passed on whole.
#[derive(Debug)]
pub enum PumpError {
    /// What it comes from has failed.
    Source(Box<Fault>),
    /// The daemon does not take it.
    Pipe(io::Error),
}

/// Passes all of `build` on; its end only once it has finished well.
fn pump(mut build: Box<dyn Build>, mut pipe: PipeWriter) -> Result<(), PumpError> {
    let mut held = Vec::with_capacity(2 * HELD);
    let passed = pass_on(&mut build, &mut pipe, &mut held);
    let finished = match passed {
        Ok(()) => build.finish().map_err(|f| PumpError::Source(Box::new(f))),
        Err(error) => Err(error),
    };
    if finished.is_err() {
        // Whoever reads may have gone; then nothing is made of it anyway.
        let _ = pipe.write_all(&BROKEN_BLOCK);
        return finished;
    }
    pipe.write_all(&held).map_err(PumpError::Pipe)
}

fn pass_on(build: &mut Box<dyn Build>, pipe: &mut PipeWriter, held: &mut Vec<u8>) -> Result<(), PumpError> {
    let mut piece = vec![0; HELD];
    loop {
        wait_for_more(build.as_ref(), pipe).map_err(PumpError::Pipe)?;
        let count = match build.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let fault = Fault::failed("cannot read what the builder makes", &e);
                return Err(PumpError::Source(Box::new(fault)));
            }
        };
        held.extend_from_slice(&piece[..count]);
        let ready = held.len().saturating_sub(HELD);
        pipe.write_all(&held[..ready]).map_err(PumpError::Pipe)?;
        held.drain(..ready);
    }
}

/// Waits until the builder has written more. A builder can be silent for minutes: when the reader
/// goes away meanwhile (POLLERR, pipe(7)), nobody has to wait for it.
fn wait_for_more(build: &dyn Build, pipe: &PipeWriter) -> io::Result<()> {
    let Some(stream) = build.descriptor() else { return Ok(()) };
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(stream, PollFlags::IN),
            PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Err(io::ErrorKind::BrokenPipe.into()),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script {
        content: io::Cursor<Vec<u8>>,
        end: Result<(), Fault>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.content.read(buffer)
        }
    }

    impl Build for Script {
        fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }

        fn finish(self: Box<Self>) -> Result<(), Fault> {
            self.end
        }
    }

    #[test]
    fn what_stopped_a_stream_is_told_and_not_that_it_was_stopped() {
        let source = |kind| Ok(Err(PumpError::Source(Box::new(Fault::new(kind, "source")))));
        let failed = || Err::<(OwnerReply, ()), _>(Failure::new(FaultKind::OperationFailed, "daemon"));
        let line = |outcome: Result<OwnerReply, Failure>| outcome.expect_err("failed").line();
        assert_eq!(line(outcome(source(FaultKind::Cancelled), failed())), "daemon");
        assert_eq!(line(outcome(source(FaultKind::Refused), failed())), "source");
        assert_eq!(line(outcome(Ok(Ok(())), failed())), "daemon");
        assert_eq!(line(outcome(source(FaultKind::Refused), Ok((OwnerReply::Done, ())))), "source");
    }

    fn pumped(length: usize, end: Result<(), Fault>) -> (Vec<u8>, Vec<u8>, Result<(), PumpError>) {
        let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let build = Box::new(Script { content: io::Cursor::new(content.clone()), end });
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let pump = std::thread::spawn(move || pump(build, writer));
        let mut arrived = Vec::new();
        reader.read_to_end(&mut arrived).expect("read");
        (content, arrived, pump.join().expect("joined"))
    }

    #[test]
    fn a_good_stream_arrives_whole() {
        for length in [0, 1, HELD, HELD + 1, 5 * HELD + 77] {
            let (content, arrived, result) = pumped(length, Ok(()));
            assert!(result.is_ok() && arrived == content, "{length}");
        }
    }

    #[test]
    fn the_end_of_a_failed_stream_never_arrives() {
        for length in [10_240, HELD, 3 * HELD + 77] {
            let fault = Fault::new(FaultKind::OperationFailed, "mmdebstrap failed");
            let (content, arrived, result) = pumped(length, Err(fault.clone()));
            assert!(matches!(result, Err(PumpError::Source(f)) if *f == fault));
            let passed = length.saturating_sub(HELD);
            assert_eq!(arrived, [&content[..passed], &BROKEN_BLOCK[..]].concat(), "{length}");
        }
    }

    /// Never writes, never ends.
    struct Silent(io::PipeReader, #[expect(dead_code, reason = "held open")] PipeWriter);

    impl Read for Silent {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Build for Silent {
        fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }

        fn finish(self: Box<Self>) -> Result<(), Fault> {
            Ok(())
        }
    }

    #[test]
    fn a_silent_builder_is_left_when_the_reader_goes_away() {
        let (never, held) = io::pipe().expect("a pipe");
        let (reader, writer) = io::pipe().expect("a pipe");
        let pump = std::thread::spawn(move || pump(Box::new(Silent(never, held)), writer));
        drop(reader);
        assert!(matches!(pump.join().expect("joined"), Err(PumpError::Pipe(_))));
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_pump() {
        let build = Box::new(Script { content: io::Cursor::new(vec![0; 4 * HELD]), end: Ok(()) });
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        assert!(matches!(pump(build, writer), Err(PumpError::Pipe(_))));
    }
}
