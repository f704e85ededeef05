//! CycloneDX 1.5 of exactly what is linked into the binary: <https://cyclonedx.org/docs/1.5/json/>.
//!
//! `cargo tree` names the crates (no build scripts, no macros, no tests, features as they are built),
//! `cargo metadata` tells who needs whom, Cargo.lock the digests. The libraries in C that some crates
//! carry, and what Rust links by itself, are read from their sources: scanners look for those by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::{Outcome, read_file, write_file};

/// musl of Rust's own targets, since Rust 1.93 (its release notes).
const MUSL: &str = "1.2.5";

/// Name and version.
type Package = (String, String);

/// What cargo says of the crates that are linked.
pub struct Linked {
    /// Of `cargo metadata`: of all crates, those that only build others included.
    pub metadata: Value,
    crates: BTreeSet<Package>,
}

impl Linked {
    /// In `sources` lie metadata.json and tree.txt.
    pub fn read(sources: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let metadata = serde_json::from_str(&read_file(&sources.join("metadata.json"))?)?;
        let linked = Self { metadata, crates: of_tree(&read_file(&sources.join("tree.txt"))?) };
        if linked.packages().count() != linked.crates.len() {
            return Err("cargo tree and cargo metadata do not name the same crates".into());
        }
        Ok(linked)
    }

    /// What `cargo metadata` says of each of them.
    pub fn packages(&self) -> impl Iterator<Item = &Value> {
        array(&self.metadata["packages"]).iter().filter(|package| self.crates.contains(&of_package(package)))
    }
}

/// Writes the bill of the binary for `arch`, made at `time` (RFC 3339), as `file`. In `sources` lie
/// metadata.json, tree.txt, Cargo.lock, and in tools.txt a line of each tool, rustc's first.
pub fn write(sources: &Path, arch: &str, time: &str, file: &Path) -> Outcome {
    let linked = Linked::read(sources)?;
    let digests = digests(&read_file(&sources.join("Cargo.lock"))?)?;
    let mut components: Vec<Value> = linked.packages().map(|package| component(package, &digests)).collect();
    let mut carried = BTreeMap::new();
    for package in linked.packages() {
        if let Some(library) = carried_by(package, array(&linked.metadata["packages"]))? {
            carried.insert(of_package(package), library);
        }
    }
    let own = components.iter().position(|c| c["name"] == "banger").ok_or("banger itself is not among the crates")?;
    let mut own = components.remove(own);
    own["type"] = json!("application");
    // There is another crate of this name.
    own["purl"] = json!(format!("pkg:generic/banger@{}", text(&own["version"])));
    let tools = read_file(&sources.join("tools.txt"))?;
    own["properties"] = properties(arch, &tools);
    let runtime = [c_library("musl", MUSL, "MIT"), of_rust(&tools)?];
    let dependencies = dependencies(&linked, &carried, &runtime);
    components.extend(carried.into_values().chain(runtime));
    components.sort_by_key(|c| c["bom-ref"].to_string());
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time, "component": own},
        "components": components,
        "dependencies": dependencies,
    });
    write_file(file, &format!("{bill:#}\n"))
}

/// For which machines it is, and what it was built with: who has the same tools gets the same bytes.
fn properties(arch: &str, tools: &str) -> Value {
    let target = format!("{arch}-unknown-linux-musl");
    let tools = tools.lines().map(|line| json!({"name": "banger:built-with", "value": line}));
    [json!({"name": "banger:target", "value": target})].into_iter().chain(tools).collect()
}

/// The crates of `cargo tree --prefix none --format {p}`: `name v1.2.3 …` on each line.
fn of_tree(tree: &str) -> BTreeSet<Package> {
    let package = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    tree.lines().filter_map(package).collect()
}

/// SHA-256 of each crate's archive.
fn digests(lock: &str) -> Result<BTreeMap<Package, String>, Box<dyn std::error::Error>> {
    let lock: toml::Table = lock.parse()?;
    let packages = lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock has no packages")?;
    let text = |package: &toml::Value, key: &str| package.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let entry = |p: &toml::Value| Some(((text(p, "name")?, text(p, "version")?), text(p, "checksum")?));
    Ok(packages.iter().filter_map(entry).collect())
}

/// Its elements; none where it is something else.
pub fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty where it is something else.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn of_package(package: &Value) -> Package {
    (text(&package["name"]).to_owned(), text(&package["version"]).to_owned())
}

/// A package URL: <https://github.com/package-url/purl-spec>.
fn reference((name, version): &Package) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(package: &Value, digests: &BTreeMap<Package, String>) -> Value {
    let key = of_package(package);
    // An old spelling of Cargo's that is no SPDX expression.
    let license = text(&package["license"]).replace('/', " OR ");
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(&key),
        "name": key.0,
        "version": key.1,
        "licenses": [{"expression": license}],
        "purl": reference(&key),
    });
    if let Some(digest) = digests.get(&key) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": digest}]);
    }
    if let Some(repository) = package["repository"].as_str() {
        component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    component
}

fn c_library(name: &str, version: &str, license: &str) -> Value {
    let reference = format!("pkg:generic/{name}@{version}");
    json!({
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "licenses": [{"expression": license}],
        "purl": reference,
    })
}

/// The library in C that a crate compiles in. (libz-sys compiles zlib, of which nothing is ever linked:
/// ssh is not compressed here.)
fn carried_by(package: &Value, all: &[Value]) -> Result<Option<Value>, Box<dyn std::error::Error>> {
    Ok(match text(&package["name"]) {
        "libssh2-sys" => Some(c_library("libssh2", &of_libssh2(package)?, "BSD-3-Clause")),
        "openssl-sys" => Some(c_library("openssl", &of_openssl(all)?, "Apache-2.0")),
        _ => None,
    })
}

fn of_libssh2(package: &Value) -> Result<String, Box<dyn std::error::Error>> {
    let folder = Path::new(text(&package["manifest_path"])).with_file_name("libssh2/include/libssh2.h");
    let header = read_file(&folder)?;
    let version = header.lines().find_map(|line| line.strip_prefix("#define LIBSSH2_VERSION "));
    Ok(version.ok_or("libssh2.h does not say its version")?.trim().trim_matches('"').to_owned())
}

/// The crate that brings OpenSSL's sources says behind the `+` of its version which ones.
fn of_openssl(all: &[Value]) -> Result<String, Box<dyn std::error::Error>> {
    let sources = all.iter().find(|p| p["name"] == "openssl-src").ok_or("no crate has OpenSSL's sources")?;
    let (_, version) = text(&sources["version"]).split_once('+').ok_or("openssl-src does not say whose version")?;
    Ok(version.to_owned())
}

/// Of `rustc --version`: `rustc 1.95.0 (…)`.
fn of_rust(said: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let version = said.split(' ').nth(1).ok_or("rustc does not say its version")?;
    Ok(c_library("rust-std", version, "MIT OR Apache-2.0"))
}

/// Who needs whom, among what is linked.
fn dependencies(linked: &Linked, carried: &BTreeMap<Package, Value>, runtime: &[Value]) -> Vec<Value> {
    let Linked { metadata, crates: linked } = linked;
    let names: BTreeMap<&str, Package> =
        array(&metadata["packages"]).iter().map(|p| (text(&p["id"]), of_package(p))).collect();
    let mut all = Vec::new();
    for node in array(&metadata["resolve"]["nodes"]) {
        let Some(package) = names.get(text(&node["id"])).filter(|p| linked.contains(p)) else { continue };
        let normal = |dep: &&Value| array(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let needed = array(&node["deps"]).iter().filter(normal).filter_map(|dep| names.get(text(&dep["pkg"])));
        let mut refs: BTreeSet<String> = needed.filter(|p| linked.contains(p)).map(reference).collect();
        refs.extend(carried.get(package).map(|c| text(&c["bom-ref"]).to_owned()));
        if package.0 == "banger" {
            refs.extend(runtime.iter().map(|c| text(&c["bom-ref"]).to_owned()));
        }
        all.push(json!({"ref": reference(package), "dependsOn": refs}));
    }
    all.sort_by_key(|entry| entry["ref"].to_string());
    all
}
