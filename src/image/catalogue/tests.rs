//! Files of all kinds, good and hostile.

use super::*;

const HEX: &str = "abababababababababababababababababababababababababababababababab";

fn parse(text: &str) -> Result<Catalogue, String> {
    parse::parse(Path::new("c.toml"), text).map_err(|e| e.to_string())
}

/// An image whose sources are this text.
fn image(sources: &str) -> String {
    format!("version = 1\n[[image]]\nname = \"x\"\ndescription = \"d\"\napproximate_bytes = 1\nsources = [{sources}]\n")
}

fn kernel(sources: &str) -> String {
    image(sources).replace("[[image]]", "[[kernel]]")
}

fn sources(text: &str, architecture: &str) -> Vec<String> {
    let catalogue = parse(text).expect("parses");
    let shown = |sources: Vec<&Source>| sources.iter().map(ToString::to_string).collect::<Vec<_>>();
    match catalogue.images() {
        [image] => shown(image.sources_for(architecture)),
        _ => shown(catalogue.kernels()[0].sources_for(architecture)),
    }
}

#[test]
fn every_embedded_entry_can_be_made() {
    let catalogue = Catalogue::embedded().expect("parses");
    let names = |entries: usize| assert_eq!(entries, 1);
    names(catalogue.images().len());
    names(catalogue.kernels().len());
    assert_eq!(catalogue.images()[0].name.as_str(), "debian-bookworm");
    for architecture in ["amd64", "arm64"] {
        assert_eq!(catalogue.images()[0].sources_for(architecture), [&Source::Packages(Recipe::DebianBookworm)]);
        assert_eq!(catalogue.kernels()[0].sources_for(architecture), [&Source::Packages(Recipe::DebianBookworm)]);
    }
}

#[test]
fn sources_keep_their_order_and_their_machines() {
    let text = image(&format!(
        "\n{{ bundle = \"https://h.example/a.tar?key=1\", sha256 = \"{HEX}\", bytes = 5, architectures = [\"arm64\"] }},\n\
         {{ oci = \"h.example/a:1\" }},\n{{ packages = \"debian-bookworm\" }}"
    ));
    let rest = ["registry h.example/a:1", "packages debian-bookworm"];
    assert_eq!(sources(&text, "amd64"), rest);
    assert_eq!(sources(&text, "arm64"), ["bundle https://h.example/a.tar", rest[0], rest[1]]);
    let of_all = text.replace("bytes = 1\n", "bytes = 1\narchitectures = [\"amd64\"]\n");
    assert_eq!(sources(&of_all, "arm64"), ["bundle https://h.example/a.tar"], "its own come first");
    assert_eq!(sources(&of_all, "amd64"), rest);
}

#[test]
fn a_kernel_has_bundles_and_packages_alone() {
    let text =
        kernel(&format!("{{ bundle = \"http://127.0.0.1:1/k\", sha256 = \"{HEX}\", bytes = 5, release = \"6.1\" }}"));
    assert_eq!(sources(&text, "amd64"), ["bundle http://127.0.0.1:1/k"]);
    let error = parse(&kernel("{ oci = \"h.example/a:1\" }")).expect_err("refused");
    assert_eq!(error, "c.toml:6: a kernel comes from a `bundle` or `packages`");
}

#[test]
fn another_version_is_refused_before_anything_else() {
    let error = parse("[[image]]\nnew = 1\n[x]\n").expect_err("refused");
    assert_eq!(error, "c.toml:1: it does not say its version: this build of banger reads version = 1");
    for (version, shown) in [("2", "2"), ("\"1\"", "\"1\""), ("-1", "-1")] {
        let error = parse(&format!("# later\nversion = {version}\nunheard = [1]\n")).expect_err("refused");
        assert_eq!(error, format!("c.toml:2: it has version {shown}: this build of banger reads version = 1"));
    }
}

#[test]
fn what_is_wrong_has_its_line() {
    let bundle = |rest: &str| image(&format!("{{ bundle = \"https://h.example/a\"{rest} }}"));
    let packages = image("{ packages = \"debian-bookworm\" }");
    let long = "d".repeat(201);
    for (text, line, message) in [
        (packages.replace("name = \"x\"", "name = \"../x\""), 3, ""),
        (packages.replace("name = \"x\"", "naem = \"x\""), 3, "unknown key `naem`; did you mean `name`?"),
        (packages.replace("[[image]]", "[[images]]"), 2, "unknown key `images`; did you mean `image`?"),
        (packages.replace("\"d\"", "\"a\\nb\""), 4, "a description is one line"),
        (packages.replace("\"d\"", &format!("\"{long}\"")), 4, "at most 200"),
        (packages.replace("= 1\ns", "= -1\ns"), 5, ""),
        (packages.replace("sources", "architectures = [\"x86_64\"]\nsources"), 6, "\"x86_64\" is no architecture"),
        (packages.replace("sources", "architectures = []\nsources"), 6, "leave the key out"),
        (image(""), 6, "between 1 and 16"),
        (image(&"{ packages = \"debian-bookworm\" },".repeat(17)), 6, "between 1 and 16"),
        (image("{ }"), 6, "one of `bundle`, `oci` and `packages`"),
        (image("{ oci = \"a:1\", packages = \"debian-bookworm\" }"), 6, "one of `bundle`, `oci` and `packages`"),
        (image("{ oci = \"NO\" }"), 6, "`oci`: "),
        (image("{ packages = \"arch\" }"), 6, "unknown variant"),
        (image("{ packges = \"debian-bookworm\" }"), 6, "did you mean `packages`?"),
        (image("{ oci = \"a:1\", bytes = 5 }"), 6, "belong to a `bundle`"),
        (bundle(""), 6, "needs its `sha256` and its `bytes`"),
        (bundle(&format!(", sha256 = \"{HEX}\"")), 6, "needs its `sha256` and its `bytes`"),
        (bundle(", sha256 = \"AB\", bytes = 5"), 6, "64 digits"),
        (bundle(&format!(", sha256 = \"{HEX}\", bytes = 0")), 6, "between 1 byte and 64 GiB"),
        (bundle(&format!(", sha256 = \"{HEX}\", bytes = 68719476737")), 6, "between 1 byte and 64 GiB"),
        (bundle(&format!(", sha256 = \"{HEX}\", bytes = 5, release = \"6\"")), 6, "a `release` is a kernel's"),
        (bundle(&format!(", sha256 = \"{HEX}\", bytes = 5")).replace("https", "ftp"), 6, "neither https nor http"),
        (bundle(&format!(", sha256 = \"{HEX}\", bytes = 5")).replace("//", "//u:p@"), 6, "more than a host and a port"),
        (
            kernel(&format!("{{ bundle = \"https://h/k\", sha256 = \"{HEX}\", bytes = 5, release = \"../6\" }}")),
            6,
            "`release`: \"../6\" is not a kernel release",
        ),
        (format!("{packages}{}", packages.replace("version = 1", "")), 9, "'x' is there twice"),
    ] {
        let error = parse(&text).expect_err(&text);
        assert!(error.starts_with(&format!("c.toml:{line}: ")) && error.contains(message), "{error}\n{text}");
    }
}

#[test]
fn later_files_replace_and_add() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let system = write("system", &image("{ oci = \"h.example/system:1\" }"));
    let user = image("{ oci = \"h.example/user:1\" }");
    let again = user.replace("version = 1", "").replace("\"x\"", "\"debian-bookworm\"");
    let user = write("user", &format!("{user}{again}"));
    let catalogue = Catalogue::load(&[system, folder.path().join("absent"), user]).expect("loads");
    let names: Vec<_> = catalogue.images().iter().map(|i| (i.name.as_str(), i.sources()[0].to_string())).collect();
    assert_eq!(
        names,
        [("debian-bookworm", "registry h.example/user:1".into()), ("x", "registry h.example/user:1".into())]
    );
    assert_eq!(catalogue.kernels().len(), 1);
}

#[test]
fn files_without_end_or_sense_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("catalogue.toml");
    for content in [vec![b'#'; (MAX_BYTES + 1) as usize], vec![0xff; 100], vec![0; 100], vec![b'['; 500_000]] {
        std::fs::write(&path, content).expect("written");
        Catalogue::load(std::slice::from_ref(&path)).expect_err("refused");
    }
    Catalogue::load(&["/dev/zero".into()]).expect_err("refused");
    Catalogue::load(&[folder.path().to_owned()]).expect_err("refused");
    let many: String = (0..1025)
        .map(|n| image("{ oci = \"a:1\" }").replace("version = 1", "").replace("\"x\"", &format!("\"x{n}\"")))
        .collect();
    let error = parse(&format!("version = 1\n{many}")).expect_err("refused");
    assert!(error.contains("more than 1024"), "{error}");
}

#[test]
fn the_manuals_example_is_read() {
    let manual = include_str!("../CATALOGUE.md");
    let example = manual.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let mut catalogue = Catalogue::embedded().expect("parses");
    catalogue.add(parse(example).expect("parses"));
    let [image] = catalogue.images() else { panic!("it replaces the image") };
    assert_eq!((image.sources_for("amd64").len(), image.sources_for("arm64").len()), (3, 2));
    let kernels: Vec<_> = catalogue.kernels().iter().map(|k| (k.name.as_str(), k.sources_for("arm64").len())).collect();
    assert_eq!(kernels, [("banger-6.1", 0), ("debian-bookworm", 1)]);
}
