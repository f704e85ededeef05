//! `version`, `--version`: knows the build and nothing else, so that it works anywhere.

use super::super::render;
use super::super::report::Failure;
use super::super::schema;
use crate::protocol::hello::PROTOCOL;

#[derive(serde::Serialize)]
struct VersionView {
    version: &'static str,
    commit: &'static str,
    built: &'static str,
    protocol: u32,
    schema: u32,
}

/// Prints the version.
pub fn version(json: bool) -> Result<(), Failure> {
    let v = VersionView {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("BANGER_COMMIT"),
        built: env!("BANGER_BUILT"),
        protocol: PROTOCOL,
        schema: schema::VERSION,
    };
    if json {
        return render::json(&v);
    }
    render::line(&format!("banger v{} (commit {}, built {})", v.version, v.commit, v.built))
}
