//! An image's configuration as bytes → what it says. Pure (OCI image spec, config.md).

use serde::Deserialize;

use crate::model::image::ImageConfig;

use super::digest::Digest;
use super::error::OciError;
use super::platform::Platform;

/// Most words of a list in it.
const MOST_WORDS: usize = 4096;

/// A configuration: how programs run, for which machine, and what the layers are uncompressed.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    pub(super) run: ImageConfig,
    /// `None` where it does not say; some tools import a tree so.
    pub(super) platform: Option<Platform>,
    pub(super) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Raw {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    config: Option<RawRun>,
    rootfs: Option<RawRoot>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    env: Option<Vec<String>>,
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    working_dir: Option<String>,
    user: Option<String>,
}

/// Docker wrote a single word without a list once, and still reads it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Many(Vec<String>),
    One(String),
}

#[derive(Deserialize)]
struct RawRoot {
    diff_ids: Option<Vec<String>>,
}

/// What `bytes` say of an image with `layers` layers.
pub(super) fn parse(bytes: &[u8], layers: usize) -> Result<Configuration, OciError> {
    let wrong = |reason: String| OciError::document("image's configuration", reason);
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    let diff_ids = raw.rootfs.and_then(|r| r.diff_ids).unwrap_or_default();
    if diff_ids.len() != layers {
        return Err(wrong(format!("it speaks of {} layers, and the image has {layers}", diff_ids.len())));
    }
    let run = run(raw.config.unwrap_or_default());
    check(&run).map_err(wrong)?;
    let platform = match (raw.os.as_deref(), raw.architecture.as_deref()) {
        (Some(os), Some(architecture)) if !os.is_empty() && !architecture.is_empty() => {
            Some(Platform::new(os, architecture, raw.variant.as_deref()))
        }
        _ => None,
    };
    let diff_ids = diff_ids.iter().map(|d| d.parse()).collect::<Result<_, _>>()?;
    Ok(Configuration { run, platform, diff_ids })
}

fn run(raw: RawRun) -> ImageConfig {
    let words = |words: Option<Words>| match words {
        None => Vec::new(),
        Some(Words::Many(words)) => words,
        Some(Words::One(word)) => vec![word],
    };
    ImageConfig {
        env: raw.env.unwrap_or_default(),
        entrypoint: words(raw.entrypoint),
        cmd: words(raw.cmd),
        folder: raw.working_dir.unwrap_or_default(),
        user: raw.user.unwrap_or_default(),
    }
}

/// What no program can be given is refused here rather than when it is run.
fn check(run: &ImageConfig) -> Result<(), String> {
    let lists = [("Env", &run.env), ("Entrypoint", &run.entrypoint), ("Cmd", &run.cmd)];
    for (name, list) in lists {
        if list.len() > MOST_WORDS {
            return Err(format!("{name} has more than {MOST_WORDS} words"));
        }
        if list.iter().any(|word| word.contains('\0')) {
            return Err(format!("{name} has a word with a zero byte"));
        }
    }
    if run.folder.contains('\0') || run.user.contains('\0') {
        return Err("WorkingDir or User has a zero byte".to_owned());
    }
    Ok(())
}

impl Configuration {
    /// Whether it can run on `wanted`.
    pub(super) fn check_platform(&self, wanted: &Platform) -> Result<(), OciError> {
        match &self.platform {
            // The variant is often left out here where the index has it.
            Some(there) if (&there.os, &there.architecture) != (&wanted.os, &wanted.architecture) => {
                Err(OciError::NoPlatform { wanted: wanted.to_string(), there: there.to_string() })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_of_its_programs_is_read() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"],"Entrypoint":null,"Cmd":["sh","-c"],
                "WorkingDir":"/srv","User":"1000:1000","Labels":{{}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
        );
        let read = parse(text.as_bytes(), 1).expect("a configuration");
        assert_eq!(read.run.env, ["PATH=/bin"]);
        assert_eq!((read.run.entrypoint.len(), read.run.cmd.len()), (0, 2));
        assert_eq!((read.run.folder.as_str(), read.run.user.as_str()), ("/srv", "1000:1000"));
        assert_eq!(read.diff_ids, [digest]);
        assert!(read.check_platform(&"linux/amd64".parse().expect("a platform")).is_ok());
        let error = read.check_platform(&"linux/arm64".parse().expect("a platform")).expect_err("another").to_string();
        assert!(error.contains("linux/amd64"), "{error}");
        let error = parse(text.as_bytes(), 2).expect_err("two layers").to_string();
        assert!(error.contains("1 layers, and the image has 2"), "{error}");
    }

    #[test]
    fn little_is_needed_and_nonsense_refused() {
        let read = parse(br#"{"config":{"Entrypoint":"/init"}}"#, 0).expect("a configuration");
        assert_eq!((read.run.entrypoint, read.platform), (vec!["/init".to_owned()], None));
        assert!(parse(br#"{"config":{"Env":["A=\u0000"]}}"#, 0).is_err());
        assert!(parse(br#"{"rootfs":{"diff_ids":["sha256:1"]}}"#, 1).is_err());
        assert!(parse(b"[]", 0).is_err());
    }
}
