//! Stamps the build: commit and date, both taken from the sources so that a build can be repeated.

use std::process::Command;

fn main() {
    pack_relocations();
    leave_out_unwinding();
    println!("cargo:rerun-if-env-changed=BANGER_COMMIT");
    println!("cargo:rerun-if-env-changed=BANGER_EPOCH");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    let commit = std::env::var("BANGER_COMMIT")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=8", "HEAD"]))
        .unwrap_or_else(|| "unknown".into());
    let seconds = std::env::var("BANGER_EPOCH")
        .or_else(|_| std::env::var("SOURCE_DATE_EPOCH"))
        .ok()
        .or_else(|| git(&["log", "-1", "--format=%ct"]))
        .and_then(|s| s.parse::<i64>().ok())
        .unwrap_or(0);
    println!("cargo:rustc-env=BANGER_COMMIT={commit}");
    println!("cargo:rustc-env=BANGER_BUILT={}", date(seconds));
}

/// Relative relocations as a bitmap (DT_RELR) instead of 24 bytes each: 0.6 MiB less. musl's start
/// code applies them since 1.2.4; Rust brings 1.2.5 since 1.93, the oldest that Cargo.toml accepts.
/// Only where the linker is GNU's, 2.38 or newer.
fn pack_relocations() {
    let target = std::env::var("TARGET").unwrap_or_default();
    if target == "x86_64-unknown-linux-musl" {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// A panic ends the process, so nothing is ever unwound: its tables, 0.7 MiB, are left out by the linker, for
/// the compiler makes them whatever it is told. Only where that is GNU's, and only of what is released.
fn leave_out_unwinding() {
    let [target, profile, root] =
        ["TARGET", "PROFILE", "CARGO_MANIFEST_DIR"].map(|name| std::env::var(name).unwrap_or_default());
    println!("cargo:rerun-if-changed=release/no-unwind.ld");
    if target == "x86_64-unknown-linux-musl" && profile == "release" {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/release/no-unwind.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    (out.status.success()).then(|| text.trim().to_owned())
}

/// `seconds` since the epoch as a civil date (Howard Hinnant's days-to-civil algorithm).
fn date(seconds: i64) -> String {
    let z = seconds.div_euclid(86_400) + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
