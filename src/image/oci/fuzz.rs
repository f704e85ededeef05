//! What others wrote, through each parser of this room; the fuzzer has no other way in.

use super::reference::Reference;
use super::{challenge, config, manifest};
use crate::host::web::Url;

/// A reference that parses is shown as one that parses to the same.
pub fn reference(text: &str) {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().ok().as_ref(), Some(&reference));
        assert!(!reference.repository().contains(".."), "{reference}");
    }
}

/// Manifests, indexes and configurations.
pub fn documents(bytes: &[u8]) {
    let platform = super::Platform::of_this_machine();
    if let Ok(manifest::Document::Index(images)) = manifest::parse(bytes, None) {
        // Either way is fine: it must only end.
        let _ = platform.choose(&images);
    }
    for layers in 0..3 {
        if let Ok(configuration) = config::parse(bytes, layers) {
            assert_eq!(configuration.diff_ids.len(), layers);
        }
    }
}

/// Headers: challenges, and where a server sends to.
pub fn headers(text: &str) {
    let _ = challenge::parse(text);
    let here = Url::new(true, "registry.example", "/v2/a/blobs/b?c=d");
    if let Ok(there) = here.join(text) {
        assert_eq!(Url::parse(&there.to_string()).ok().as_ref(), Some(&there), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_others_write_is_read_or_refused(
            any in "\\PC{0,200}",
            near in "[a-zA-Z0-9:/@._\\[\\]-]{0,80}(@sha256:[0-9a-f]{64})?",
            header in "(Bearer|Basic|,| |=|\"|\\\\|realm|x){0,30}",
            location in "(https?://|//|/|\\?|#|[a-z.:]|%2f){0,20}",
        ) {
            for text in [&any, &near, &header, &location] {
                super::reference(text);
                super::headers(text);
                super::documents(text.as_bytes());
            }
        }
    }
}
