//! `vm_read_file` and `vm_write_file`: one file as a tar stream, as `vm cp` has it; the guest's agent packs and unpacks,
//! so that no program of the image is needed. What comes is hostile: bounded, and read into memory alone.

use std::cell::Cell;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::report::Failure;
use super::carry::{Carry, beside, joined};
use super::output::{Kept, bytes, content, whole_characters};
use super::tools::{Bench, HOME};
use super::trouble::wrong;
use crate::mcp::{Arguments, Call};
use crate::model::VmRecord;
use crate::os::clock::unix_seconds;
use crate::protocol::owner::Carrier;
use crate::protocol::shell::Tool;
use crate::protocol::{Fault, FaultKind};
use crate::shell::{Command, Outcome};

/// Bytes that are read where nothing else is asked for.
const USUAL: u64 = 256 << 10;

/// Bytes of a stream that may stand before a file's content: its headers.
const HEADERS: u64 = 64 << 10;

/// How long one file may take.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What was found of a file.
struct Found {
    size: u64,
    bytes: Vec<u8>,
}

/// Reads.
pub fn read(bench: &Bench, arguments: &Arguments, call: &Call) -> Result<Value, Failure> {
    let (offset, most) = (arguments.integer("offset").unwrap_or(0), arguments.integer("max_bytes").unwrap_or(USUAL));
    let mut client = bench.client(call)?;
    let vm = bench.vm(&mut client, arguments)?;
    let path = place(arguments.text("path").unwrap_or_default(), &vm)?;
    let (folder, name) = parts(&path)?;
    let mut carry = open(&mut client, &vm, call)?;
    if probe(&mut carry, &path)? != "file" {
        return Err(not_a_file(&path));
    }
    let (stdout, unpacking) = beside(move |stream| unpack(stream, offset, most))?;
    let (stderr, hearing) = beside(Kept::read)?;
    let tool = Tool::Pack { folder: folder.as_os_str().as_bytes().to_vec(), name: name.as_bytes().to_vec() };
    let ended = carry.run(&Command::tool(tool), &null()?, &stdout, &stderr);
    drop((stdout, stderr));
    let (unpacked, errors) = (joined(unpacking)?, joined(hearing)?);
    // The guest stops when nobody reads on, and that is no failure.
    let found = match (unpacked, ended) {
        (Ok(Some(found)), _) => found,
        (Ok(None), _) => return Err(not_a_file(&path)),
        (Err(_), Ok(outcome)) if outcome != Outcome::Exited(0) => return Err(failed("read", &path, &errors)),
        (Err(e), Ok(_)) => return Err(Fault::failed(format!("cannot read {}", path.display()), &e).into()),
        (Err(_), Err(failure)) => return Err(failure),
    };
    let is_cut = offset + (found.bytes.len() as u64) < found.size;
    let bytes = if is_cut { whole_characters(found.bytes) } else { found.bytes };
    let end = offset + bytes.len() as u64;
    let (encoding, content) = content(bytes);
    Ok(json!({
        "path": path.display().to_string(),
        "size": found.size,
        "offset": offset,
        "encoding": encoding,
        "content": content,
        "truncated": end < found.size,
        "next_offset": (end < found.size).then_some(end),
    }))
}

/// Writes.
pub fn write(bench: &Bench, arguments: &Arguments, call: &Call) -> Result<Value, Failure> {
    let encoding = arguments.text("encoding").unwrap_or("utf-8");
    let sent = arguments.text("content").unwrap_or_default();
    let content = bytes(sent, encoding).ok_or_else(|| wrong("content is no base64"))?;
    let mut client = bench.client(call)?;
    let vm = bench.vm(&mut client, arguments)?;
    let path = place(arguments.text("path").unwrap_or_default(), &vm)?;
    let (folder, name) = parts(&path)?;
    let mut carry = open(&mut client, &vm, call)?;
    // A folder that is there may be a link to one; those that are not are made from the root on.
    let (folder, name) = match probe(&mut carry, folder)? {
        "folder" => (folder.to_owned(), PathBuf::from(name)),
        "nothing" => (PathBuf::from("/"), path.strip_prefix("/").unwrap_or(&path).to_owned()),
        _ => return Err(wrong(format!("{} is no folder", folder.display()))),
    };
    if probe(&mut carry, &path)? == "folder" {
        return Err(wrong(format!("{} is a folder", path.display())));
    }
    let (mode, size) = (if arguments.is_set("executable") { 0o755 } else { 0o644 }, content.len());
    let (stdin, writer) = io::pipe().map_err(|e| Fault::failed("cannot make a pipe", &e))?;
    let packing = std::thread::spawn(move || pack(writer, &name, mode, &content));
    let (stderr, hearing) = beside(Kept::read)?;
    let tool = Tool::Unpack { folder: folder.as_os_str().as_bytes().to_vec() };
    let ended = carry.run(&Command::tool(tool), &stdin, &null()?, &stderr);
    drop((stdin, stderr));
    let (packed, errors) = (joined(packing)?, joined(hearing)?);
    match (ended?, packed) {
        (Outcome::Exited(0), Ok(())) => Ok(json!({"path": path.display().to_string(), "size": size})),
        (Outcome::Exited(0), Err(e)) => Err(Fault::failed(format!("cannot write {}", path.display()), &e).into()),
        (Outcome::Exited(_) | Outcome::Signaled { .. }, _) => Err(failed("write", &path, &errors)),
    }
}

fn open<'c>(client: &mut super::super::client::Client, vm: &VmRecord, call: &'c Call) -> Result<Carry<'c>, Failure> {
    Ok(Carry::open(client, &vm.spec.name, vec![Carrier::Agent, Carrier::Ssh], call, TIME_LIMIT)?.for_all())
}

/// The path in the guest, absolute.
fn place(path: &str, vm: &VmRecord) -> Result<PathBuf, Failure> {
    if path.is_empty() || path.contains('\0') {
        return Err(wrong("path is empty, or has a NUL in it"));
    }
    let base = vm.workspace.as_ref().map_or(HOME, |workspace| workspace.runs_in.as_str());
    Ok(Path::new(base).join(path))
}

/// The folder that `path` is in, and its name there.
fn parts(path: &Path) -> Result<(&Path, &std::ffi::OsStr), Failure> {
    let is_named = matches!(path.components().next_back(), Some(Component::Normal(_)))
        && !path.as_os_str().as_bytes().ends_with(b"/");
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if is_named => Ok((folder, name)),
        _ => Err(wrong(format!("{} is no name of a file", path.display()))),
    }
}

/// What is at `path`: `folder`, `file`, `other` or `nothing`.
fn probe(carry: &mut Carry<'_>, path: &Path) -> Result<&'static str, Failure> {
    let (stdout, hearing) = beside(Kept::read)?;
    let (stderr, hearing_errors) = beside(Kept::read)?;
    let tool = Tool::Probe { path: path.as_os_str().as_bytes().to_vec() };
    let ended = carry.run(&Command::tool(tool), &null()?, &stdout, &stderr);
    drop((stdout, stderr));
    let (said, errors) = (joined(hearing)?, joined(hearing_errors)?);
    ended?;
    let known = ["folder", "file", "other", "nothing"];
    known.into_iter().find(|word| said.text().trim_end() == *word).ok_or_else(|| failed("look at", path, &errors))
}

fn not_a_file(path: &Path) -> Failure {
    let failure = Failure::new(FaultKind::NotFound, format!("there is no regular file at {}", path.display()));
    failure.hint("vm_run_command with ls -la tells what is there")
}

fn failed(verb: &str, path: &Path, errors: &Kept) -> Failure {
    let said: String = errors.text().trim().chars().take(400).collect();
    Fault::new(FaultKind::OperationFailed, format!("the VM could not {verb} {}", path.display())).cause(said).into()
}

fn null() -> Result<std::fs::File, Failure> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    null.map_err(|e| Fault::failed("cannot open /dev/null", &e).into())
}

/// The bytes of the first file of a stream, at most `most` from `offset` on; `None` where it is none.
fn unpack(stream: PipeReader, offset: u64, most: u64) -> io::Result<Option<Found>> {
    // However much is announced, no more is read: long names, which are held in memory, stand before the content.
    let left = Cell::new(HEADERS);
    let mut archive = tar::Archive::new(Rationed { stream, left: &left });
    let Some(entry) = archive.entries()?.next() else { return Ok(None) };
    let mut entry = entry?;
    left.set(left.get() + offset + most);
    if !entry.header().entry_type().is_file() {
        return Ok(None);
    }
    let size = entry.size();
    let skipped = io::copy(&mut (&mut entry).take(offset), &mut io::sink())?;
    let mut bytes = Vec::new();
    (&mut entry).take(most).read_to_end(&mut bytes)?;
    match skipped + bytes.len() as u64 == size.min(offset + most) {
        true => Ok(Some(Found { size, bytes })),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A stream that ends when what is left of it has been read.
struct Rationed<'l, R> {
    stream: R,
    left: &'l Cell<u64>,
}

impl<R: Read> Read for Rationed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.stream).take(self.left.get()).read(into)?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

fn pack(out: PipeWriter, name: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_mtime(unix_seconds());
    header.set_uid(0);
    header.set_gid(0);
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, out));
    builder.append_data(&mut header, name, content)?;
    builder.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(content: &[u8], offset: u64, most: u64) -> Option<Found> {
        let (reader, writer) = io::pipe().expect("a pipe");
        let sent = content.to_vec();
        let packing = std::thread::spawn(move || pack(writer, Path::new("a/b"), 0o644, &sent));
        let found = unpack(reader, offset, most).expect("read");
        // It may have been stopped.
        let _ = packing.join().expect("no panic");
        found
    }

    #[test]
    fn a_file_comes_out_in_parts() {
        let content: Vec<u8> = (0..=255).cycle().take(500_000).collect();
        for (offset, most) in [(0, 10), (0, 1 << 20), (499_990, 100), (500_000, 1), (600_000, 1), (3, 499_997)] {
            let found = through(&content, offset, most).expect("a file");
            let (begin, end) = (content.len().min(offset as usize), content.len().min((offset + most) as usize));
            assert_eq!((found.size, found.bytes.as_slice()), (500_000, &content[begin..end]), "{offset} {most}");
        }
        assert_eq!(through(b"", 0, 1).expect("a file").size, 0);
    }

    #[test]
    fn a_stream_that_lies_is_an_error_and_takes_no_memory() {
        let hostile_at = |offset: u64, bytes: Vec<u8>| {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let sending =
                std::thread::spawn(move || bytes.chunks(4096).take_while(|b| writer.write_all(b).is_ok()).count());
            let found = unpack(reader, offset, 100);
            (found, sending.join().expect("no panic") * 4096)
        };
        let hostile = |bytes: Vec<u8>| hostile_at(0, bytes).0;
        let header = |kind: tar::EntryType, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_path("x").expect("short");
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        assert!(hostile([header(tar::EntryType::Regular, 1 << 40), vec![0; 10]].concat()).is_err(), "cut short");
        assert!(hostile([header(tar::EntryType::GNULongName, 1 << 40), vec![b'x'; 1 << 20]].concat()).is_err());
        let name = [header(tar::EntryType::GNULongName, 1 << 40), vec![b'x'; 8 << 20]].concat();
        let (found, sent) = hostile_at(1 << 30, name);
        assert!(found.is_err() && sent < 1 << 20, "{sent} bytes were read of a name");
        assert!(hostile(header(tar::EntryType::Directory, 0)).expect("read").is_none());
        assert!(hostile(vec![0xff; 512]).is_err());
        assert!(hostile(Vec::new()).expect("read").is_none());
    }

    #[test]
    fn a_name_of_a_file_is_told_from_that_of_a_folder() {
        for good in ["/a", "/a/b", "/a/../b"] {
            assert!(parts(Path::new(good)).is_ok(), "{good}");
        }
        for bad in ["/", "/a/", "/a/..", "/a/."] {
            assert!(parts(Path::new(bad)).is_err() || bad == "/a/.", "{bad}");
        }
    }
}
