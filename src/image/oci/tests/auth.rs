//! Logging in: tokens, passwords, and who gets to see them.

use super::*;

/// A file with credentials for all that these servers are called.
fn known(folder: &Path, server: &Server, entry: &str) -> Credentials {
    let file = folder.join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, server.authority)).expect("written");
    Credentials { files: vec![file], programs: None }
}

/// `me:secret`
const PASSWORD: &str = r#"{"auth":"bWU6c2VjcmV0"}"#;
const BASIC: &str = "Basic bWU6c2VjcmV0";

/// A registry that wants the token of its own `/token`, which `judge` gives.
fn with_tokens(image: &Image, judge: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> Server {
    let image = image.clone();
    Server::start(move |asked| {
        if asked.path.starts_with("/token") {
            return judge(asked);
        }
        if asked.header("authorization") == "Bearer good" {
            return image.answer(asked);
        }
        let realm = format!("http://{}/token", asked.header("host"));
        Told::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="me & you""#))
    })
}

#[test]
fn a_token_is_fetched_once_for_all_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = with_tokens(&image, |_| Told::new(200, r#"{"token":"good"}"#));
    assert_eq!(pull(&server, &settings(folder.path())).expect("pulled"), image.layers);
    let tokens: Vec<Asked> = server.asked().into_iter().filter(|a| a.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?service=me%20%26%20you&scope=repository:a/b:pull");
    assert_eq!(tokens[0].header("authorization"), "", "nobody's credentials");
}

#[test]
fn credentials_get_the_token_and_go_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let cdn = image.served();
    let mut moved = image.clone();
    for (path, bytes) in &mut moved.served {
        if path.starts_with("blobs/") {
            *bytes = Vec::new();
        }
    }
    let (host, honest) = (cdn.authority.clone(), image.clone());
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/v2/" => Told::new(200, ""),
        path if path.starts_with("/token") && asked.header("authorization") == BASIC => {
            Told::new(200, r#"{"access_token":"good"}"#)
        }
        path if asked.header("authorization") != "Bearer good" => {
            let realm = format!("http://{}/token", asked.header("host"));
            Told::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}" {path}"#))
        }
        path if path.contains("/blobs/") => Told::new(307, "").with("Location", format!("http://{host}{path}")),
        _ => honest.answer(asked),
    });
    let credentials = known(folder.path(), &server, PASSWORD);
    let settings = Settings { credentials, ..settings(folder.path()) };
    assert_eq!(pull(&server, &settings).expect("pulled"), image.layers);
    assert_eq!(cdn.count("/blobs/"), 4);
    assert!(cdn.asked().iter().all(|a| a.header("authorization").is_empty()), "a token went to another server");
}

#[test]
fn a_refresh_token_is_posted() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = with_tokens(&image, |asked| match (asked.method.as_str(), asked.body.as_str()) {
        ("POST", body) if body.contains("grant_type=refresh_token") && body.ends_with("refresh_token=a%2Bb") => {
            Told::new(200, r#"{"access_token":"good"}"#)
        }
        _ => Told::new(400, ""),
    });
    let credentials = known(folder.path(), &server, r#"{"identitytoken":"a+b"}"#);
    let settings = Settings { credentials, ..settings(folder.path()) };
    assert_eq!(pull(&server, &settings).expect("pulled"), image.layers);
}

#[test]
fn a_password_goes_with_each_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = Image::usual();
    let server = Server::start({
        let image = image.clone();
        move |asked| match asked.header("authorization") {
            BASIC => image.answer(asked),
            _ => Told::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        }
    });
    let plain = settings(folder.path());
    let error = pull(&server, &plain).expect_err("no credentials");
    assert!(error.contains("refuses a/b: log in with `docker login 127.0.0.1:"), "{error}");
    let credentials = known(folder.path(), &server, r#"{"auth":"bWU6d3Jvbmc="}"#);
    let error = pull(&server, &Settings { credentials, ..plain.clone() }).expect_err("wrong credentials");
    assert!(error.contains("does not take these credentials for it: log in") && !error.contains("wrong:"), "{error}");
    let credentials = known(folder.path(), &server, PASSWORD);
    assert_eq!(pull(&server, &Settings { credentials, ..plain }).expect("pulled"), image.layers);
}

#[test]
fn a_registry_that_goes_on_asking_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = with_tokens(&Image::usual(), |_| Told::new(200, r#"{"token":"bad"}"#));
    let error = pull(&server, &settings(folder.path())).expect_err("a loop");
    assert!(error.contains("refuses a/b: it is not there, or not for everybody: log in with `docker login"), "{error}");
    assert_eq!((server.count("/manifests/"), server.count("/token")), (3, 2));
}

#[test]
fn a_token_that_is_not_enough_is_the_last_and_the_troubles_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = || {
        Server::start(|asked| match asked.path.as_str() {
            "/v2/" => Told::new(200, ""),
            path if path.starts_with("/token") => Told::new(200, r#"{"token":"good"}"#),
            _ => {
                let error =
                    if asked.header("authorization").is_empty() { "" } else { r#",error="insufficient_scope""# };
                let challenge = format!(r#"Bearer realm="http://{}/token"{error}"#, asked.header("host"));
                Told::new(401, r#"{"errors":[{"message":"authentication required"}]}"#)
                    .with("WWW-Authenticate", challenge)
            }
        })
    };
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "{").expect("written");
    let (anonymous, plain) = (server(), settings(folder.path()));
    let credentials = Credentials { files: vec![broken], programs: None };
    let error = pull(&anonymous, &Settings { credentials, ..plain.clone() }).expect_err("private");
    assert!(error.contains("it is not there, or not for everybody: authentication required; "), "{error}");
    assert!(error.contains("broken is no file of credentials: log in with"), "{error}");
    assert_eq!((anonymous.count("/manifests/"), anonymous.count("/token")), (2, 1));
    let somebody = server();
    let credentials = known(folder.path(), &somebody, PASSWORD);
    let error = pull(&somebody, &Settings { credentials, ..plain }).expect_err("another's");
    assert!(error.contains("does not take these credentials for it: authentication required: log in"), "{error}");
}

#[test]
fn a_server_that_is_redirected_to_gets_no_credentials_however_it_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    for challenge in ["Bearer realm=\"http://HOST/token\"", "Basic realm=\"x\""] {
        let thief = Server::start(move |asked| {
            let challenge = challenge.replace("HOST", asked.header("host"));
            Told::new(401, "").with("WWW-Authenticate", challenge)
        });
        let host = thief.authority.clone();
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/v2/" => Told::new(200, ""),
            path => Told::new(307, "").with("Location", format!("http://{host}{path}")),
        });
        let credentials = known(folder.path(), &server, PASSWORD);
        let error = pull(&server, &Settings { credentials, ..settings(folder.path()) }).expect_err("refused");
        assert!(error.starts_with(&format!("{} answered 401 when asked for manifest t", thief.authority)), "{error}");
        assert_eq!((thief.asked().len(), server.count("/manifests/")), (1, 1), "asked once, never for a token");
        assert!(thief.asked().iter().all(|a| a.header("authorization").is_empty()), "a password went elsewhere");
    }
}

#[test]
fn credentials_are_not_sent_where_they_could_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    for (realm, why) in [
        ("http://auth.example/token", "auth.example would be spoken to without TLS"),
        ("ftp://auth.example/token", "neither https nor http"),
        ("https://user@auth.example/", "more than a host"),
    ] {
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/v2/" => Told::new(200, ""),
            _ => Told::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
        });
        let error = pull(&server, &settings(folder.path())).expect_err(realm);
        assert!(error.contains(why), "{error}");
    }
    let server = Server::start(|_| Told::new(401, "").with("WWW-Authenticate", "Negotiate"));
    let error = pull(&server, &settings(folder.path())).expect_err("unknown");
    assert!(error.contains("in a way that is not known here: \"Negotiate\""), "{error}");
}

#[test]
fn a_refusal_says_what_the_registry_and_the_credentials_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v2/" => Told::new(200, ""),
        path if path.starts_with("/token") => Told::new(403, r#"{"details":"go\u001b away"}"#),
        _ => {
            let realm = format!("http://{}/token", asked.header("host"));
            Told::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        }
    });
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "hunter2").expect("written");
    let credentials = Credentials { files: vec![broken], programs: None };
    let error = pull(&server, &Settings { credentials, ..settings(folder.path()) }).expect_err("refused");
    assert!(error.contains(": go away; ") && error.contains("broken is no file of credentials"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
