//! Files from servers that cut, lie and send elsewhere.

use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// What an honest server answers that has `content` at every path.
fn answer(content: &[u8], asked: &Asked) -> Told {
    match asked.from() {
        0 => Told::new(200, content),
        from if from >= content.len() => Told::new(416, ""),
        from => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            Told::new(206, &content[from..]).with("Content-Range", range)
        }
    }
}

fn bundle(server: &Server, path: &str, content: &[u8]) -> Bundle {
    let url = format!("http://{}{path}", server.authority);
    Bundle::new(&url, Digest::of(content), content.len() as u64).expect("an address")
}

fn read(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

/// Fetches `content` from a server whose answers `change` changes; the error, and what an honest one gives then.
fn refused(content: &[u8], change: impl Fn(&Asked, Told) -> Told + Send + Sync + 'static) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path());
    let served = content.to_vec();
    let server = Server::start(move |asked| change(asked, answer(&served, asked)));
    let error = chain(&bundle(&server, "/x", content).fetch(&settings, &mut |_| {}).expect_err("it lies"));
    let served = content.to_vec();
    let honest = Server::start(move |asked| answer(&served, asked));
    let file = bundle(&honest, "/x", content).fetch(&settings, &mut |_| {}).expect("fetched");
    assert_eq!(read(file), content, "after: {error}");
    error
}

#[test]
fn a_bundle_is_resumed_where_it_was_cut_and_then_comes_from_the_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let (content, settings) = (noise(1_000_000, 7), settings(folder.path()));
    let server = Server::start({
        let content = content.clone();
        move |asked| {
            let told = answer(&content, asked);
            Told { cut: Some(told.body.len().min(300_000)), ..told }
        }
    });
    let mut seen = Vec::new();
    let wanted = bundle(&server, "/a/b.tar?key=secret", &content);
    let file = wanted.fetch(&settings, &mut |done| seen.push(done)).expect("fetched");
    assert_eq!(read(file), content);
    assert_eq!(seen.last(), Some(&1_000_000));
    assert!(seen.is_sorted());
    let ranges: Vec<_> = server.asked().iter().map(Asked::from).collect();
    assert_eq!(ranges, [0, 300_000, 600_000, 900_000]);
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.path == "/a/b.tar?key=secret" && asked.header("authorization").is_empty())
    );
    assert_eq!(read(wanted.fetch(&settings, &mut |_| {}).expect("cached")), content);
    assert_eq!(server.asked().len(), 4);
    assert_eq!((wanted.name(), wanted.to_string()), ("b.tar", format!("http://{}/a/b.tar", server.authority)));
}

#[test]
fn what_another_command_has_left_is_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let (content, settings) = (noise(500_000, 8), settings(folder.path()));
    let server = Server::start({
        let content = content.clone();
        move |asked| answer(&content, asked)
    });
    let part = cache(folder.path()).expect("a cache").path(&Digest::of(&content)).with_extension("part");
    std::fs::write(&part, &content[..400_000]).expect("written");
    assert_eq!(read(bundle(&server, "/x", &content).fetch(&settings, &mut |_| {}).expect("fetched")), content);
    assert_eq!(server.asked().iter().map(Asked::from).collect::<Vec<_>>(), [400_000]);
}

#[test]
fn what_is_damaged_in_the_cache_is_fetched_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (content, settings) = (noise(100_000, 9), settings(folder.path()));
    let server = Server::start({
        let content = content.clone();
        move |asked| answer(&content, asked)
    });
    let wanted = bundle(&server, "/x", &content);
    wanted.fetch(&settings, &mut |_| {}).expect("fetched");
    let path = cache(folder.path()).expect("a cache").path(&Digest::of(&content));
    std::fs::write(&path, noise(100_000, 10)).expect("damaged");
    assert_eq!(read(wanted.fetch(&settings, &mut |_| {}).expect("fetched again")), content);
    assert_eq!((server.asked().len(), cached(folder.path())), (2, (1, 0)));
}

#[test]
fn another_content_or_length_is_refused() {
    let content = noise(200_000, 11);
    let error = refused(&content, |_, mut told| {
        told.body[1000] ^= 1;
        told
    });
    assert!(error.starts_with("the bundle x is sha256:") && error.contains("not used"), "{error}");
    let error = refused(&content, |_, mut told| {
        told.body.push(1);
        told
    });
    assert_eq!(error, "the bundle x has 200001 bytes instead of 200000: not used");
    let error = refused(&content, |_, told| Told { endless: true, ..told });
    assert!(error.contains("goes on after the 200000 bytes"), "{error}");
    let error = refused(&content, |_, told| Told { cut: Some(0), ..told });
    assert!(error.contains("nothing more arrives"), "{error}");
}

#[test]
fn a_server_that_has_it_not_is_named() {
    let error = refused(b"x", |_, _| Told::new(404, ""));
    assert!(error.contains("answered 404 when asked for http://127.0.0.1:"), "{error}");
    assert!(!error.contains("docker login"), "{error}");
    let busy = AtomicUsize::new(0);
    let error = refused(b"x", move |_, told| {
        busy.fetch_add(1, Ordering::Relaxed);
        Told { status: 503, ..told }
    });
    assert!(error.contains("503 to each of 5 attempts"), "{error}");
}

#[test]
fn redirects_are_followed_within_bounds() {
    let folder = tempfile::tempdir().expect("a folder");
    let (content, settings) = (noise(1000, 12), settings(folder.path()));
    let elsewhere = Server::start({
        let content = content.clone();
        move |asked| answer(&content, asked)
    });
    let server = Server::start({
        let location = format!("http://{}/there", elsewhere.authority);
        move |_| Told::new(302, "").with("Location", &location)
    });
    assert_eq!(read(bundle(&server, "/x", &content).fetch(&settings, &mut |_| {}).expect("fetched")), content);
    assert_eq!(elsewhere.count("/there"), 1);
    let error = refused(&content, |asked, _| Told::new(302, "").with("Location", &asked.path));
    assert!(error.contains("sends elsewhere: again and again"), "{error}");
    let error = refused(&content, |_, _| Told::new(302, "").with("Location", "http://plain.example/x"));
    assert!(error.starts_with("plain.example would be spoken to without TLS"), "{error}");
}

#[test]
fn plain_http_is_for_this_machine_and_what_is_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let wanted = Bundle::new("http://plain.example/x", Digest::of(b"x"), 1).expect("an address");
    let error = wanted.fetch(&settings(folder.path()), &mut |_| {}).expect_err("refused");
    assert!(matches!(&error, OciError::Shared(inner) if matches!(**inner, OciError::Plain { .. })), "{error}");
    for bytes in [0, (64 << 30) + 1] {
        Bundle::new("https://h.example/x", Digest::of(b"x"), bytes).expect_err("refused");
    }
}
