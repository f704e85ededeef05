//! Archives, as tools write them and as nobody should.

use super::*;

/// Entries of a tar: name, and content or the target of a link.
enum Member<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Claim(&'a str, u64),
}

use Member::{Claim, File, Link};

fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match member {
            File(name, content) => {
                header.set_size(content.len() as u64);
                append(&mut builder, &mut header, name, content);
            }
            Link(name, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_link_name(target).expect("a target");
                append(&mut builder, &mut header, name, b"");
            }
            Claim(name, size) => {
                header.set_size(*size);
                append(&mut builder, &mut header, name, b"");
            }
        }
    }
    builder.into_inner().expect("written")
}

/// Writes the name as it is: the library refuses what an attacker would not.
fn append(builder: &mut tar::Builder<Vec<u8>>, header: &mut tar::Header, name: &str, content: &[u8]) {
    header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    builder.append(header, content).expect("appended");
}

fn stream(bytes: Vec<u8>) -> Input {
    Input::Stream(Box::new(std::io::Cursor::new(bytes)))
}

fn docker(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let result = pulled(Source::DockerArchive(stream(bytes.clone())), &settings(folder.path()));
    let file = folder.path().join("file.tar");
    std::fs::write(&file, bytes).expect("written");
    let from_file = pulled(Source::DockerArchive(Input::File(file.clone())), &settings(folder.path()));
    let text = |r: &Result<Vec<Vec<u8>>, String>| format!("{r:?}").replace(&file.display().to_string(), "-");
    assert_eq!(text(&result), text(&from_file));
    let left = std::fs::read_dir(folder.path()).expect("listed").count();
    assert_eq!(left, 2, "the folder of blobs and the test's own file");
    result
}

fn refused(members: &[Member], why: &str) {
    let error = docker(tar_of(members)).expect_err(why);
    assert!(error.contains(why), "{error}");
}

/// What `docker save` wrote for twenty years, entries in an odd order, one layer a link to another.
fn old_save(image: &Image) -> (String, String) {
    let name = format!("{}.json", Digest::of(&image.config).hex());
    let manifest =
        format!(r#"[{{"Config":"{name}","RepoTags":["x:1"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}}]"#);
    (name, manifest)
}

fn three_layers() -> Image {
    let (one, two) = (noise(5000, 1), noise(700, 2));
    Image::new(vec![(one.clone(), one.clone()), (two.clone(), two), (one.clone(), one)])
}

#[test]
fn names_that_no_image_has_are_passed_over_and_layers_have_a_limit() {
    let image = three_layers();
    let (name, manifest) = old_save(&image);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).expect("appended");
    };
    add(&"long/".repeat(1000), b"");
    add("manifest.json", manifest.as_bytes());
    add(&name, &image.config);
    (1..=3).for_each(|number| add(&format!("{number}/layer.tar"), &image.blobs[number - 1]));
    assert_eq!(docker(builder.into_inner().expect("written")).expect("read"), image.layers);
    let layers = vec![r#""1/layer.tar""#; 513].join(",");
    let manifest = format!(r#"[{{"Config":"{name}","Layers":[{layers}]}}]"#);
    let members = [File("manifest.json", manifest.as_bytes()), File(&name, &image.config)];
    refused(&members, "it has 513 layers, more than 512");
}

#[test]
fn an_old_save_is_read_from_a_file_and_from_a_stream() {
    let image = three_layers();
    let (name, manifest) = old_save(&image);
    let members = [
        Link("3/layer.tar", "../1/layer.tar"),
        File("manifest.json", manifest.as_bytes()),
        File("2/layer.tar", &image.blobs[1]),
        File("2/VERSION", b"1.0"),
        File("./1/layer.tar", &image.blobs[0]),
        File(&name, &image.config),
    ];
    assert_eq!(docker(tar_of(&members)).expect("read"), image.layers);
    assert_eq!(docker(gzip(&tar_of(&members))).expect("read"), image.layers);
    assert_eq!(docker(zstd(&tar_of(&members))).expect("read"), image.layers);
    let folder = tempfile::tempdir().expect("a folder");
    let source = Source::DockerArchive(stream(tar_of(&members)));
    let opened = open(source, Some(&amd64()), &settings(folder.path()), &mut |_| {}).expect("opened");
    assert_eq!(opened.digest(), Digest::of(&image.config).as_str());
    assert_eq!(opened.reference(), "docker-archive:-");
}

/// An OCI layout, as `skopeo` and today's `docker save` write it.
fn layout(image: &Image, index: &str, change: impl Fn(&str, &mut Vec<u8>)) -> Vec<u8> {
    let mut blobs: Vec<(String, Vec<u8>)> =
        vec![("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()), ("index.json".into(), index.into())];
    for bytes in image.blobs.iter().chain([&image.config, &image.manifest]) {
        blobs.push((format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes.clone()));
    }
    for (name, bytes) in &mut blobs {
        change(name, bytes);
    }
    let members: Vec<Member> = blobs.iter().map(|(name, bytes)| File(name, bytes)).collect();
    tar_of(&members)
}

fn index_of(image: &Image, names: &[&str]) -> String {
    let (digest, size) = (Digest::of(&image.manifest), image.manifest.len());
    let other = Digest::of(b"other");
    let entries = names.iter().enumerate().map(|(number, name)| {
        let digest = if number == 0 { &digest } else { &other };
        format!(
            r#"{{"digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#
        )
    });
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.collect::<Vec<_>>().join(","))
}

fn oci(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    pulled(Source::OciArchive(stream(bytes)), &settings(folder.path()))
}

#[test]
fn a_layout_is_read_by_either_name() {
    let image = Image::usual();
    let bytes = layout(&image, &index_of(&image, &["latest"]), |_, _| {});
    assert_eq!(oci(bytes.clone()).expect("read"), image.layers);
    assert_eq!(docker(bytes).expect("read"), image.layers);
}

#[test]
fn a_layout_that_lies_is_refused() {
    let image = Image::usual();
    let index = index_of(&image, &["latest"]);
    let changed = |bytes: &[u8], change: fn(&mut Vec<u8>)| {
        let name = Digest::of(bytes).hex().to_owned();
        oci(layout(&image, &index, |n, b| {
            if n.ends_with(&name) {
                change(b)
            }
        }))
        .expect_err("it lies")
    };
    let flip = |bytes: &mut Vec<u8>| bytes[9] ^= 1;
    assert!(changed(&image.manifest, flip).contains("is sha256:"));
    assert!(changed(&image.config, flip).contains("is sha256:"));
    for number in 0..3 {
        let error = changed(&image.blobs[number], flip);
        assert!(
            error.starts_with(&format!("the layer {} of 3", number + 1)) && error.contains("is sha256:"),
            "{error}"
        );
        let error = changed(&image.blobs[number], |bytes| bytes.truncate(100));
        assert!(error.contains("100 bytes instead of"), "{error}");
    }
    let error = oci(layout(&image, &index_of(&image, &["a", "b"]), |_, _| {})).expect_err("two");
    assert!(error.contains("it holds 2 images (a, b)"), "{error}");
}

#[test]
fn what_is_no_image_or_leads_out_of_the_archive_is_refused() {
    let image = three_layers();
    let (name, manifest) = old_save(&image);
    let (config, manifest) = (File(&name, &image.config), File("manifest.json", manifest.as_bytes()));
    refused(&[File("etc/passwd", b"x")], "neither manifest.json nor index.json");
    refused(&[File("../manifest.json", b"[]")], "leads out of it");
    refused(&[File("/manifest.json", b"[]")], "leads out of it");
    refused(&[Link("manifest.json", "/etc/passwd")], "leads out of it");
    refused(&[Link("manifest.json", "../../x")], "leads out of it");
    refused(&[Link("manifest.json", "manifest.json")], "a link to a link");
    refused(&[Claim("manifest.json", 1 << 40)], "ends before them");
    refused(&[File("manifest.json", b"[]")], "it holds 0 images");
    refused(&[File("manifest.json", br#"[{"Config":"../x"}]"#)], "leads out of it");
    refused(&[File("manifest.json", &vec![b' '; 5 << 20])], "more than 4194304 bytes");
    refused(&[manifest, config], "\"1/layer.tar\" is not in it");
    assert!(docker(Vec::new()).expect_err("empty").contains("neither"));
    assert!(docker(vec![7; 2000]).is_err());
}

#[test]
fn a_damaged_save_is_refused() {
    let image = three_layers();
    let (name, manifest) = old_save(&image);
    let damaged = noise(5000, 7);
    let members = |layer: &'static [u8]| {
        tar_of(&[
            File("1/layer.tar", layer),
            File("2/layer.tar", &image.blobs[1]),
            Link("3/layer.tar", "../1/layer.tar"),
            File("manifest.json", manifest.as_bytes()),
            File(&name, &image.config),
        ])
    };
    let error = docker(members(Vec::leak(damaged))).expect_err("damaged");
    assert!(error.contains("layer 1 of 3, decompressed, is sha256:"), "{error}");
    let mut huge = Vec::new();
    for _ in 0..2 {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 20);
        header.set_cksum();
        huge.extend_from_slice(header.as_bytes());
        huge.extend(vec![b'a'; 1 << 20]);
    }
    assert!(docker(huge).expect_err("long names").contains("too many bytes of headers"));
}
