//! Registries that lie, cut, redirect and have no time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Pulls the usual image from a registry whose answers `change` changes; the error, and the cache stays clean.
fn refused(change: impl Fn(&Image, &Asked, Told) -> Told + Send + Sync + 'static) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = Server::start({
        let image = image.clone();
        move |asked| change(&image, asked, image.answer(asked))
    });
    let error = pull(&server, &settings(folder.path())).expect_err("it lies");
    // What was wrong is not there the next time.
    let honest = image.served();
    assert_eq!(pull(&honest, &settings(folder.path())).expect("pulled"), image.layers, "after: {error}");
    error
}

fn is_blob(image: &Image, asked: &Asked, number: usize) -> bool {
    asked.path.ends_with(&image.blob_path(number))
}

#[test]
fn wrong_content_is_told_from_wrong_length() {
    let error = refused(|image, asked, mut told| {
        if is_blob(image, asked, 1) {
            told.body[1000] ^= 1;
        }
        told
    });
    assert!(error.starts_with("the layer 2 of 3 (") && error.contains("not sha256:"), "{error}");
    let error = refused(|image, asked, mut told| {
        if is_blob(image, asked, 0) {
            told.body.truncate(told.body.len() - 7);
        }
        told
    });
    assert!(error.contains("bytes instead of"), "{error}");
    let error = refused(|image, asked, mut told| {
        told.endless = is_blob(image, asked, 0);
        told
    });
    assert!(error.contains("goes on after the"), "{error}");
}

#[test]
fn a_blob_that_always_ends_early_is_given_up() {
    let error = refused(|image, asked, mut told| {
        if is_blob(image, asked, 2) {
            told.cut = Some(told.body.len().min(20_000usize.saturating_sub(asked.from())));
        }
        told
    });
    assert!(error.contains("nothing more arrives"), "{error}");
}

#[test]
fn lying_manifests_and_configurations_are_refused() {
    let error = refused(|_, asked, told| {
        let other = Digest::of(b"other");
        if asked.path.contains("/manifests/") { told.with("Docker-Content-Digest", other) } else { told }
    });
    assert!(error.contains("the manifest is sha256:"), "{error}");
    let config = |image: &Image| format!("/blobs/{}", Digest::of(&image.config));
    let error = refused(move |image, asked, mut told| {
        if asked.path.ends_with(&config(image)) {
            told.body[5] ^= 1;
        }
        told
    });
    assert!(error.contains("image's configuration is sha256:"), "{error}");
    let error = refused(|_, asked, mut told| {
        told.endless = asked.path.contains("/manifests/");
        told
    });
    assert!(error.contains("manifest has more than 4194304 bytes"), "{error}");
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::new(vec![(b"one thing".to_vec(), gzip(b"another"))]);
    let server = Server::start(move |asked| image.answer(asked));
    let error = pull(&server, &settings(folder.path())).expect_err("it is another");
    assert!(error.contains("decompressed, is sha256:"), "{error}");
    let broken = [&gzip(&noise(10_000, 1))[..5000], &[0; 5000]].concat();
    let image = Image::new(vec![(b"one thing".to_vec(), broken)]);
    let server = Server::start(move |asked| image.answer(asked));
    let error = pull(&server, &settings(folder.path())).expect_err("it does not decompress");
    assert!(error.starts_with("cannot decompress the layer 1 of 1"), "{error}");
}

#[test]
fn redirects_are_bounded_and_take_no_credentials_along() {
    let error = refused(
        |image, asked, told| {
            if is_blob(image, asked, 0) { Told::new(307, "").with("Location", &asked.path) } else { told }
        },
    );
    assert!(error.contains("sends elsewhere: again and again"), "{error}");
    let error = refused(|image, asked, told| {
        let elsewhere = "http://registry.example/x";
        if is_blob(image, asked, 0) { Told::new(307, "").with("Location", elsewhere) } else { told }
    });
    assert!(error.starts_with("registry.example would be spoken to without TLS"), "{error}");
    let error = refused(|image, asked, told| if is_blob(image, asked, 0) { Told::new(302, "") } else { told });
    assert!(error.contains("without saying where"), "{error}");
}

#[test]
fn a_busy_registry_is_asked_again_but_not_for_ever() {
    let busy = |after: u32| {
        refused(
            move |image, asked, told| {
                if is_blob(image, asked, 0) { Told::new(429, "").with("Retry-After", after) } else { told }
            },
        )
    };
    let error = busy(60);
    assert!(error.contains("answered 429 to each of 5 attempts"), "{error}");
    let error = busy(1_000);
    assert!(error.contains("wants to be asked again in 17 minutes"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let (image, refusals) = (Image::usual(), AtomicUsize::new(0));
    let layers = image.layers.clone();
    let server = Server::start(move |asked| match refusals.fetch_add(1, Ordering::Relaxed) {
        // The probe, then three requests of each kind of trouble.
        1..4 => Told::new(503, "").with("Retry-After", 7),
        _ => image.answer(asked),
    });
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&pauses);
    let pace: Arc<dyn Fn(Duration) -> Duration + Send + Sync> = Arc::new(move |pause| {
        told.lock().expect("not poisoned").push(pause.as_secs());
        Duration::ZERO
    });
    let settings = Settings { pace, ..settings(folder.path()) };
    assert_eq!(pull(&server, &settings).expect("pulled"), layers);
    assert_eq!(*pauses.lock().expect("not poisoned"), [7, 7, 7]);
}

#[test]
fn a_document_that_is_cut_is_asked_for_again_and_pauses_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (image, cuts) = (Image::usual(), AtomicUsize::new(0));
    let config = format!("/blobs/{}", Digest::of(&image.config));
    let layers = image.layers.clone();
    let server = Server::start(move |asked| {
        let told = image.answer(asked);
        let is_document = asked.path.contains("/manifests/") || asked.path.ends_with(&config);
        // Three cuts, which make the third pause one of four seconds; then every second document is whole.
        let is_cut = is_document && !matches!(cuts.fetch_add(1, Ordering::Relaxed), 3 | 5);
        if is_cut { Told { cut: Some(20), ..told } } else { told }
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let on_pause: Arc<dyn Fn(&str) + Send + Sync> =
        Arc::new(move |words| heard.lock().expect("not poisoned").push(words.to_owned()));
    let settings = Settings { on_pause, ..settings(folder.path()) };
    assert_eq!(pull(&server, &settings).expect("pulled"), layers);
    let told = told.lock().expect("not poisoned").clone();
    assert_eq!(told, [format!("{} has no time or does not answer: the next attempt is in 4 s", server.authority)]);
}

/// A registry that closes the connection after each tenth of the first blob.
fn cutting(image: &Image, ranges: bool, step: usize) -> Server {
    let image = image.clone();
    Server::start(move |asked| {
        let mut asked = asked.clone();
        if !ranges && asked.path.contains("/blobs/") {
            asked.headers.remove("range");
        }
        let told = image.answer(&asked);
        match is_blob(&image, &asked, 0) {
            true => Told { cut: Some(told.body.len().min(step)), ..told },
            false => told,
        }
    })
}

#[test]
fn a_download_that_is_cut_at_each_tenth_completes() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = noise(1_000_000, 9);
    let image = Image::new(vec![(plain.clone(), plain)]);
    let server = cutting(&image, true, 100_000);
    assert_eq!(pull(&server, &settings(folder.path())).expect("pulled"), image.layers);
    assert_eq!(server.count(&image.blob_path(0)), 10);
}

#[test]
fn a_pull_that_was_killed_anywhere_is_continued_by_the_next() {
    let plain = noise(100_000, 9);
    let image = Image::new(vec![(plain.clone(), plain.clone())]);
    for tenths in 0..=10 {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("a cache");
        let part = blobs.path(&Digest::of(&plain)).with_extension("part");
        std::fs::write(part, &plain[..tenths * 10_000]).expect("left");
        let server = cutting(&image, true, 1 << 20);
        assert_eq!(pull(&server, &settings(folder.path())).expect("pulled"), image.layers);
        let asked = server.asked().into_iter().find(|a| a.path.ends_with(&image.blob_path(0)));
        assert_eq!(asked.map_or(100_000, |a| a.from()), tenths * 10_000);
    }
}

#[test]
fn a_registry_without_ranges_and_a_damaged_rest_begin_anew() {
    let plain = noise(100_000, 9);
    let image = Image::new(vec![(plain.clone(), plain.clone())]);
    let left: [(&[u8], bool, usize); 4] =
        [(&plain[..50_000], false, 1), (&[0; 50_000], true, 2), (&[0; 100_000], true, 1), (&[0; 200_000], true, 1)];
    for (rest, ranges, requests) in left {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("a cache");
        std::fs::write(blobs.path(&Digest::of(&plain)).with_extension("part"), rest).expect("left");
        let server = cutting(&image, ranges, 1 << 20);
        // The damaged rest may have been read by then: told so, and right the next time.
        let result = pull(&server, &settings(folder.path()));
        assert!(result.as_ref().map_or_else(|e| e.contains("pull again"), |l| *l == image.layers), "{result:?}");
        assert_eq!(server.count(&image.blob_path(0)), requests);
        assert_eq!(pull(&server, &settings(folder.path())).expect("pulled"), image.layers);
    }
}

#[test]
fn a_416_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = noise(100_000, 9);
    let image = Image::new(vec![(plain.clone(), plain.clone())]);
    let blobs = Blobs::open(folder.path()).expect("a cache");
    std::fs::write(blobs.path(&Digest::of(&plain)).with_extension("part"), &plain[..500]).expect("left");
    let server = Server::start({
        let image = image.clone();
        move |asked| if asked.from() > 0 { Told::new(416, "") } else { image.answer(asked) }
    });
    assert_eq!(pull(&server, &settings(folder.path())).expect("pulled"), image.layers);
}

#[test]
fn a_damaged_blob_in_the_cache_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = image.served();
    let settings = settings(folder.path());
    pull(&server, &settings).expect("pulled");
    for number in 0..3 {
        let blobs = Blobs::open(folder.path()).expect("a cache");
        let mut damaged = image.blobs[number].clone();
        damaged[30_000] ^= 0x55;
        std::fs::write(blobs.path(&Digest::of(&image.blobs[number])), damaged).expect("damaged");
        let error = pull(&server, &settings).expect_err("damaged");
        assert!(error.contains("in the cache was damaged and is removed: pull again"), "{error}");
        assert_eq!(pull(&server, &settings).expect("pulled"), image.layers);
    }
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked| Image::default().answer(asked));
    let error = pull(&server, &settings(folder.path())).expect_err("nothing there");
    assert!(error.starts_with("manifest t of a/b in 127.0.0.1:") && error.contains("docker login"), "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let reference = format!("{free}/a/b").parse().expect("a reference");
    let error = pulled(Source::Registry(reference), &settings(folder.path())).expect_err("nobody there");
    assert!(error.starts_with(&format!("cannot reach {free}")), "{error}");
}
