//! A real registry on loopback, and images that are made by hand to put into it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::command::Running;
use crate::world::World;

/// Where the registry answers, in the scenario's own network namespace.
pub const REGISTRY: &str = "127.0.0.1:5000";
/// Where it answers through something that cuts connections.
pub const CUT: &str = "127.0.0.1:5001";

/// The first argument of a process that stands before the registry and cuts connections.
pub const CUTTER: &str = "--cut";

/// Debian's `docker-registry`, which runs until it is dropped with its world.
pub struct Registry {
    #[expect(dead_code, reason = "it runs for as long as it is held")]
    server: Running,
}

impl Registry {
    pub fn start(world: &World) -> Self {
        let (root, file) = (world.folder().join("registry"), world.folder().join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{REGISTRY}\"}}\n",
            root.display()
        );
        std::fs::write(&file, text).expect("written");
        let server = world.tool("docker-registry", &["serve", &file.display().to_string()]).limit(900).spawn();
        wait_until_answered(REGISTRY);
        Self { server }
    }

    /// `skopeo copy` of what `layout` calls `tag` to `NAME:1`.
    pub fn push(&self, world: &World, layout: &Layout, tag: &str, name: &str) {
        let from = format!("oci:{}:{tag}", layout.folder.display());
        let to = format!("docker://{REGISTRY}/{name}:1");
        let words = ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", &from, &to];
        world.tool("skopeo", &words).limit(300).output().ok();
    }
}

/// Waits for a server, somebody else's program, which does not say when it listens.
pub fn wait_until_answered(address: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nobody answers at {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy)]
pub enum Packing {
    Gzip,
    Zstd,
    None,
}

/// An OCI image layout under construction.
pub struct Layout {
    pub folder: PathBuf,
    manifests: Vec<serde_json::Value>,
}

impl Layout {
    pub fn create(folder: PathBuf) -> Self {
        std::fs::create_dir_all(folder.join("blobs/sha256")).expect("made");
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        Self { folder, manifests: Vec::new() }
    }

    fn blob(&self, bytes: &[u8]) -> (String, usize) {
        let hex = hex(bytes);
        std::fs::write(self.folder.join("blobs/sha256").join(&hex), bytes).expect("written");
        (format!("sha256:{hex}"), bytes.len())
    }

    /// Adds an image of `layers`, which are tar archives, and of how its programs are run.
    pub fn image(&mut self, tag: &str, layers: &[Vec<u8>], packing: Packing, config: serde_json::Value) {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
        let history: Vec<_> = layers.iter().map(|_| json!({"created_by": "by hand"})).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        });
        let (digest, size) = self.blob(config.to_string().as_bytes());
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size});
        let described: Vec<_> = layers.iter().map(|layer| self.layer(layer, packing)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": described,
        });
        let (digest, size) = self.blob(manifest.to_string().as_bytes());
        self.manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }));
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        std::fs::write(self.folder.join("index.json"), index.to_string()).expect("written");
    }

    fn layer(&self, tar: &[u8], packing: Packing) -> serde_json::Value {
        const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
        let (bytes, kind) = match packing {
            Packing::Gzip => (gzip(tar), format!("{PLAIN}+gzip")),
            Packing::Zstd => (zstd(tar), format!("{PLAIN}+zstd")),
            Packing::None => (tar.to_vec(), PLAIN.to_owned()),
        };
        let (digest, size) = self.blob(&bytes);
        json!({"mediaType": kind, "digest": digest, "size": size})
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut command = std::process::Command::new("zstd");
    command.args(["-q", "-c"]);
    crate::command::Run::new(command).input(bytes.to_vec()).output().ok().stdout
}

fn hex(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A process that passes connections on to the registry and ends, cutting them all, when so many bytes have come
/// back from it.
pub fn cut_after(arguments: &[String]) -> ExitCode {
    let limit: u64 = arguments.first().and_then(|text| text.parse().ok()).expect("a number of bytes");
    let listener = TcpListener::bind(CUT.parse::<SocketAddr>().expect("an address")).expect("bound");
    let total = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    println!("listening");
    for stream in listener.incoming() {
        let (near, total) = (stream.expect("a connection"), total.clone());
        let far = TcpStream::connect(REGISTRY).expect("the registry answers");
        let (mut near_in, mut far_out) = (near.try_clone().expect("cloned"), far.try_clone().expect("cloned"));
        std::thread::spawn(move || std::io::copy(&mut near_in, &mut far_out).is_ok());
        std::thread::spawn(move || pass(far, near, &total, limit));
    }
    ExitCode::SUCCESS
}

fn pass(mut from: TcpStream, mut to: TcpStream, total: &std::sync::atomic::AtomicU64, limit: u64) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let before = total.fetch_add(count as u64, std::sync::atomic::Ordering::SeqCst);
        if before + count as u64 > limit {
            // The whole process: all connections are cut at the same moment.
            std::process::exit(0);
        }
        if to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// All programs that the scenarios with a registry need.
pub fn check(world: &World) {
    for program in ["docker-registry", "skopeo", "umoci"] {
        let found = world.tool("sh", &["-c", &format!("command -v {program}")]).output();
        assert!(found.code == 0, "{program} is not installed");
    }
}

/// `umoci unpack` of an image of `layout`; where its tree is.
pub fn unpack(world: &World, layout: &Layout, tag: &str, into: &Path) -> PathBuf {
    let image = format!("{}:{tag}", layout.folder.display());
    world.tool("umoci", &["unpack", "--image", &image, &into.display().to_string()]).limit(300).output().ok();
    into.join("rootfs")
}
