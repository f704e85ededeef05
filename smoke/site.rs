//! A site with a certificate: it writes down who asked for what, serves a git repository to whoever knows the
//! password, and says back what it was told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Who signs certificates of sites.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// One called `name`, that nobody knows yet.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    /// Has whoever reads `path` trust it.
    pub fn write(&self, path: &Path) {
        let text = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines(self.0.der()));
        std::fs::write(path, text).expect("written");
    }

    fn certify(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate")
    }
}

fn lines(der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
    lines.join("\n")
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and target.
    pub line: String,
    /// Fields by their names in lower case.
    pub fields: BTreeMap<String, String>,
    /// Its body, unless a program took it.
    pub body: Vec<u8>,
}

/// A site.
#[derive(Clone)]
pub struct Site {
    config: Arc<ServerConfig>,
    /// Folder of bare repositories, and the password.
    git: Option<(PathBuf, String)>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

impl Site {
    /// Called `name`.
    pub fn new(authority: &Authority, name: &str) -> Self {
        Self { config: Arc::new(authority.certify(name)), git: None, asked: Arc::default() }
    }

    /// With the repositories in `folder` below `/git/`, for whoever knows `password`.
    pub fn with_git(self, folder: &Path, password: &str) -> Self {
        Self { git: Some((folder.to_owned(), password.to_owned())), ..self }
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics").clone()
    }

    /// Serves at `address`, for ever.
    pub fn serve(self, address: Ipv4Addr) {
        let listener = TcpListener::bind((address, 443)).expect("a free port");
        for stream in listener.incoming().flatten() {
            let site = self.clone();
            std::thread::spawn(move || site.converse(stream));
        }
    }

    fn converse(&self, stream: TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let Ok(connection) = ServerConnection::new(self.config.clone()) else { return };
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(mut asked) = head(&mut reader) {
            if asked.fields.get("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
                let _ = reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            let Some(body) = body(&mut reader, &asked.fields) else { return };
            asked.body = body;
            self.asked.lock().expect("nobody panics").push(asked.clone());
            let answer = self.answer(&asked);
            if reader.get_mut().write_all(&answer).and_then(|()| reader.get_mut().flush()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, asked: &Asked) -> Vec<u8> {
        let target = asked.line.split(' ').nth(1).unwrap_or_default();
        match (&self.git, target.strip_prefix("/git/")) {
            (Some((folder, password)), Some(rest)) => {
                let wanted = Base64::encode_string(format!("git:{password}").as_bytes());
                match asked.fields.get("authorization") {
                    Some(given) if *given == format!("Basic {wanted}") => git(folder, rest, asked),
                    _ => plain("401 Unauthorized", "WWW-Authenticate: Basic realm=\"git\"\r\n", b"no"),
                }
            }
            _ if target == "/echo" => {
                let told = asked.fields.get("authorization").cloned().unwrap_or_default();
                plain("200 OK", "", told.as_bytes())
            }
            _ => plain("200 OK", "", format!("received {} bytes\n", asked.body.len()).as_bytes()),
        }
    }
}

fn plain(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// git-http-backend(1), by the rules of CGI (RFC 3875).
fn git(folder: &Path, target: &str, asked: &Asked) -> Vec<u8> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let field = |name: &str| asked.fields.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", asked.line.split(' ').next().unwrap_or_default())
        .env("CONTENT_TYPE", field("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .env("REMOTE_USER", "git")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let (mut stdin, content) = (child.stdin.take().expect("a pipe"), asked.body.clone());
    let writing = std::thread::spawn(move || drop(stdin.write_all(&content)));
    let said = child.wait_with_output().expect("it ends").stdout;
    writing.join().expect("it does not panic");
    let end = said.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(said.len().saturating_sub(4));
    let fields = String::from_utf8_lossy(&said[..end]);
    let status = fields.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let others: String = fields.lines().filter(|l| !l.starts_with("Status:")).map(|l| format!("{l}\r\n")).collect();
    plain(&status, &others, &said[end + 4..])
}

fn head(reader: &mut BufReader<Stream>) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        let count = reader.read_line(&mut line).ok()?;
        (count > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut fields = BTreeMap::new();
    loop {
        match line()?.split_once(": ") {
            Some((name, value)) => drop(fields.insert(name.to_ascii_lowercase(), value.to_owned())),
            None => return Some(Asked { line: first, fields, body: Vec::new() }),
        }
    }
}

fn body(reader: &mut BufReader<Stream>, fields: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if fields.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Some(body);
            }
        }
    }
    body.resize(fields.get("content-length").map_or(Some(0), |length| length.parse().ok())?, 0);
    reader.read_exact(&mut body).ok()?;
    Some(body)
}
