//! What an image wants of the programs that run in it: its entrypoint, folder and user.

use std::ffi::OsString;

use super::super::client::Client;
use super::super::report::Failure;
use super::images;
use crate::model::ImageName;
use crate::model::image::ImageConfig;
use crate::protocol::FaultKind;
use crate::shell::Command;

/// How the programs of image `name` are to be run; plainly where it says nothing.
pub fn config(client: &mut Client, name: &ImageName) -> Result<ImageConfig, Failure> {
    let found = images::all(client)?.into_iter().find(|image| image.name == *name);
    Ok(found.map(|image| image.config).unwrap_or_default())
}

/// The image's entrypoint with `words` behind it, or with the image's own command where there are none.
pub fn behind_entrypoint(
    name: &ImageName,
    config: &ImageConfig,
    words: Option<Vec<OsString>>,
) -> Result<Vec<OsString>, Failure> {
    let own = || config.cmd.iter().map(OsString::from).collect();
    let all: Vec<OsString> = config.entrypoint.iter().map(OsString::from).chain(words.unwrap_or_else(own)).collect();
    if all.is_empty() {
        let message = format!("image '{name}' has neither an entrypoint nor a command of its own");
        return Err(Failure::new(FaultKind::BadRequest, message).hint("leave --entrypoint out, or add -- CMD"));
    }
    Ok(all)
}

/// `words` in the folder and as the user that the image names.
pub fn command(config: &ImageConfig, words: Vec<OsString>) -> Command {
    let command = Command::new(words).as_user(user(config));
    if config.folder.is_empty() { command } else { command.in_folder(config.folder.clone()) }
}

/// Whom a program runs as, where that is not root.
fn user(config: &ImageConfig) -> Option<String> {
    let is_root = |text: &str| matches!(text, "" | "root" | "0");
    let (user, group) = config.user.split_once(':').unwrap_or((&config.user, ""));
    (!(is_root(user) && is_root(group))).then(|| config.user.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["serve".into()],
            folder: "/work".into(),
            user: "65532".into(),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn an_entrypoint_stands_before_what_was_typed_or_the_images_own_command() {
        let name = "i".parse().expect("a name");
        let words = |typed: Option<Vec<OsString>>| behind_entrypoint(&name, &image(), typed).expect("words");
        assert_eq!(words(None), ["/entry", "serve"]);
        assert_eq!(words(Some(vec!["-v".into()])), ["/entry", "-v"]);
        assert!(behind_entrypoint(&name, &ImageConfig::default(), None).is_err());
    }

    #[test]
    fn folder_and_user_are_the_images() {
        let command = command(&image(), vec!["id".into()]);
        assert_eq!((command.cwd.as_deref(), command.user.as_deref()), (Some("/work"), Some("65532")));
        for root in ["", "0", "root", "0:0", "root:root", "root:"] {
            assert_eq!(user(&ImageConfig { user: root.into(), ..ImageConfig::default() }), None, "{root}");
        }
        assert!(user(&ImageConfig { user: "0:5".into(), ..ImageConfig::default() }).is_some());
    }
}
