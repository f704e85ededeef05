//! Where a repository was cloned from, as a guest may know it.

/// The address without what only its owner knows: user and password of a web address, its query; the
/// password of an ssh address. `None` for a path, which leads to nothing in a guest.
pub fn without_credentials(url: &str) -> Option<String> {
    if url.chars().any(char::is_control) || url.len() > 2048 {
        return None;
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return is_scp_like(url).then(|| url.to_owned());
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    // What is neither host nor port may be a password that somebody forgot to encode.
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    match scheme {
        "http" | "https" => {
            let path = path.split(['?', '#']).next().unwrap_or_default();
            Some(format!("{scheme}://{host}{path}"))
        }
        "ssh" | "git" | "git+ssh" | "ssh+git" => {
            let user = user.map(|user| user.split(':').next().unwrap_or_default());
            let user = user.map_or_else(String::new, |user| format!("{user}@"));
            Some(format!("{scheme}://{user}{host}{path}"))
        }
        _ => None,
    }
}

/// `[USER@]HOST:PATH` (git-clone(1), "GIT URLS").
fn is_scp_like(url: &str) -> bool {
    let is_fine = |host: &str, path: &str| !host.is_empty() && !host.contains('/') && !path.contains(['@', ':']);
    url.split_once(':').is_some_and(|(host, path)| is_fine(host, path) && !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_its_owner_knows_is_taken_out() {
        for (url, clean) in [
            ("https://example.org/a.git", Some("https://example.org/a.git")),
            ("https://user:pw@example.org/a.git", Some("https://example.org/a.git")),
            ("https://ghp_token@example.org:8443/a", Some("https://example.org:8443/a")),
            ("https://a:b@c@example.org/a", Some("https://example.org/a")),
            ("https://user:p/w@example.org/a", None),
            ("https://example.org/a?private_token=x#y", Some("https://example.org/a")),
            ("ssh://git:pw@example.org:22/a", Some("ssh://git@example.org:22/a")),
            ("git@example.org:a/b.git", Some("git@example.org:a/b.git")),
            ("/srv/git/a", None),
            ("../a", None),
            ("file:///srv/git/a", None),
            ("ext::sh -c evil", None),
            ("user:pw@example.org:a", None),
            ("a\nb:c", None),
        ] {
            assert_eq!(without_credentials(url).as_deref(), clean, "{url}");
        }
    }
}
