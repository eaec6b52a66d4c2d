//! Each way to log in, on a server that lets in nobody else; and what is said where it can't be.

use std::path::Path;

use tandem::bus::login::Tls;
use tandem::bus::{self, Error, Options};

use crate::process::{output, tandem};
use crate::server::{Certificates, Operator, Server, file};

async fn connects(options: &Options) {
    let connection = bus::connect(options).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    connection.client.flush().await.unwrap();
}

/// Why it does not, with all causes.
async fn refused(options: &Options) -> String {
    match bus::connect(options).await {
        Ok(_) => panic!("it was let in: {options:?}"),
        Err(error) => chain(&error),
    }
}

fn chain(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A command on the line, in `folder`, connects: nobody works there, and it says so.
async fn command_connects(folder: &Path, variables: &[(&str, &str)]) {
    let done = output(tandem(folder, variables, &["health", "--wait", "5"])).await;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("no worker is running"), "{said}");
}

#[tokio::test]
async fn by_user_and_password() {
    let server = Server::start("authorization { user: \"ann@example\", password: \"pa:ss/word 007\" }").await;
    let folder = tempfile::tempdir().unwrap();
    let said = refused(&server.options()).await;
    assert!(said.contains("nats.user") && said.contains("does not let this user in"), "{said}");

    let user = Options { user: "ann@example".into(), ..server.options() };
    connects(&Options { password: "pa:ss/word 007".into(), ..user.clone() }).await;
    let password_file = file(folder.path(), "password", "pa:ss/word 007\n");
    connects(&Options { password_file: password_file.clone(), ..user.clone() }).await;
    let url = format!("nats://ann%40example:pa%3Ass%2Fword%20007@127.0.0.1:{}", server.port);
    connects(&Options { urls: vec![url], ..Options::default() }).await;
    refused(&Options { password: "pa:ss/word 7".into(), ..user }).await;

    let here = ("NATS_URL", server.url());
    let variables = [(here.0, here.1.as_str()), ("NATS_USER", "ann@example"), ("NATS_PASSWORD", "pa:ss/word 007")];
    command_connects(folder.path(), &variables).await;
    let variables = [
        (here.0, here.1.as_str()),
        ("TANDEM__NATS__USER", "ann@example"),
        ("TANDEM__NATS__PASSWORD_FILE", &password_file),
    ];
    command_connects(folder.path(), &variables).await;
}

#[tokio::test]
async fn by_token() {
    let server = Server::start("authorization { token: \"0123\" }").await;
    let folder = tempfile::tempdir().unwrap();
    connects(&Options { token: "0123".into(), ..server.options() }).await;
    connects(&Options { token_file: file(folder.path(), "token", "0123"), ..server.options() }).await;
    connects(&Options { urls: vec![format!("nats://0123@127.0.0.1:{}", server.port)], ..Options::default() }).await;
    refused(&Options { token: "123".into(), ..server.options() }).await;
    command_connects(folder.path(), &[("NATS_URL", &server.url()), ("NATS_TOKEN", "0123")]).await;
}

#[tokio::test]
async fn by_nkey() {
    let user = nkeys::KeyPair::new_user();
    let server = Server::start(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key())).await;
    let folder = tempfile::tempdir().unwrap();
    let seed = file(folder.path(), "user.nk", &format!("# of the worker\n{}\n", user.seed().unwrap()));
    connects(&Options { nkey_seed_file: seed.clone(), ..server.options() }).await;
    refused(&server.options()).await;
    let other = file(folder.path(), "other.nk", &nkeys::KeyPair::new_user().seed().unwrap());
    refused(&Options { nkey_seed_file: other, ..server.options() }).await;
    command_connects(folder.path(), &[("NATS_URL", &server.url()), ("NATS_NKEY", &seed)]).await;
}

#[tokio::test]
async fn by_credentials_file() {
    let operator = Operator::make();
    let server = Server::start(&operator.config).await;
    let folder = tempfile::tempdir().unwrap();
    let credentials = file(folder.path(), "worker.creds", &operator.credentials);
    connects(&Options { credentials_file: credentials.clone(), ..server.options() }).await;
    refused(&server.options()).await;
    let stranger = file(folder.path(), "stranger.creds", &Operator::make().credentials);
    refused(&Options { credentials_file: stranger, ..server.options() }).await;
    command_connects(folder.path(), &[("NATS_URL", &server.url()), ("NATS_CREDS", &credentials)]).await;
}

#[tokio::test]
async fn over_tls_with_an_authority_of_ones_own() {
    let certificates = Certificates::make();
    let server = Server::start(&certificates.block("")).await;
    let with = |tls: Tls| Options { tls, ..server.options() };
    let ca_file = certificates.path("ca.pem");
    connects(&with(Tls { ca_file: ca_file.clone(), ..Tls::default() })).await;
    let url = format!("tls://127.0.0.1:{}", server.port);
    connects(&Options { urls: vec![url], ..with(Tls { ca_file: ca_file.clone(), ..Tls::default() }) }).await;

    let said = refused(&with(Tls { ca_file: Certificates::make().path("ca.pem"), ..Tls::default() })).await;
    assert!(said.contains("nats.tls.ca_file"), "{said}");
    let said = refused(&with(Tls { required: true, ..Tls::default() })).await;
    assert!(said.contains("nats.tls.ca_file"), "the platform does not know this authority: {said}");
    let folder = tempfile::tempdir().unwrap();
    command_connects(folder.path(), &[("NATS_URL", &server.url()), ("NATS_CA", &ca_file)]).await;
}

#[tokio::test]
async fn over_tls_with_a_certificate_of_this_side() {
    let certificates = Certificates::make();
    let server = Server::start(&certificates.block("verify: true")).await;
    let [ca_file, cert_file, key_file] = ["ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name));
    let trusting = Tls { ca_file: ca_file.clone(), ..Tls::default() };
    let whole = Tls { cert_file: cert_file.clone(), key_file: key_file.clone(), ..trusting.clone() };
    connects(&Options { tls: whole, ..server.options() }).await;
    let said = refused(&Options { tls: trusting, ..server.options() }).await;
    assert!(said.contains("nats.tls.cert_file"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let variables =
        [("NATS_URL", server.url()), ("NATS_CA", ca_file), ("NATS_CERT", cert_file), ("NATS_KEY", key_file)];
    command_connects(folder.path(), &variables.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
}

#[tokio::test]
async fn tls_before_the_first_word() {
    let certificates = Certificates::make();
    let server = Server::start(&certificates.block("handshake_first: true")).await;
    let tls = Tls { ca_file: certificates.path("ca.pem"), first: true, ..Tls::default() };
    connects(&Options { tls, ..server.options() }).await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_meant() {
    let (server, certificates) = (Server::start("").await, Certificates::make());
    connects(&server.options()).await;
    refused(&Options { tls: Tls { required: true, ..Tls::default() }, ..server.options() }).await;
    let meant = Tls { ca_file: certificates.path("ca.pem"), ..Tls::default() };
    refused(&Options { tls: meant, ..server.options() }).await;
}

#[tokio::test]
async fn a_wrong_file_is_named_before_anything_is_sent() {
    let (folder, certificates) = (tempfile::tempdir().unwrap(), Certificates::make());
    let secret = "hunter2-is-no-seed";
    let rubbish = file(folder.path(), "rubbish", secret);
    let empty = file(folder.path(), "empty", "\n");
    let missing = folder.path().join("missing").display().to_string();
    let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name));
    let other_key = certificates.path("server.key");
    // Nobody listens there: it must not come so far.
    let base = Options { urls: vec!["nats://127.0.0.1:9".into()], ..Options::default() };
    let tls = |ca_file: &str, cert_file: &str, key_file: &str| Tls {
        ca_file: ca_file.into(),
        cert_file: cert_file.into(),
        key_file: key_file.into(),
        ..Tls::default()
    };
    let with = |tls: Tls| Options { tls, ..base.clone() };
    let user = Options { user: "ann".into(), ..base.clone() };
    let cases: Vec<(Options, &str, &str)> = vec![
        (Options { credentials_file: missing.clone(), ..base.clone() }, "nats.credentials_file", &missing),
        (Options { credentials_file: rubbish.clone(), ..base.clone() }, "nats.credentials_file", "nsc"),
        (Options { nkey_seed_file: missing.clone(), ..base.clone() }, "nats.nkey_seed_file", &missing),
        (Options { nkey_seed_file: rubbish.clone(), ..base.clone() }, "nats.nkey_seed_file", "SU"),
        (Options { password_file: missing.clone(), ..user.clone() }, "nats.password_file", &missing),
        (Options { password_file: empty.clone(), ..user }, "nats.password_file", "empty"),
        (Options { token_file: missing.clone(), ..base.clone() }, "nats.token_file", &missing),
        (with(tls(&missing, "", "")), "nats.tls.ca_file", &missing),
        (with(tls(&rubbish, "", "")), "nats.tls.ca_file", "no certificate"),
        (with(tls(&ca, &missing, &key)), "nats.tls.cert_file", &missing),
        (with(tls(&ca, &cert, &rubbish)), "nats.tls.key_file", "no private key"),
        (with(tls(&ca, &cert, &other_key)), "nats.tls.key_file", "do not belong together"),
        (with(tls(&ca, &cert, "")), "nats.tls.cert_file", "nats.tls.key_file"),
    ];
    for (options, key, mend) in cases {
        let error = bus::connect(&options).await.err().unwrap_or_else(|| panic!("{key} {mend}"));
        let said = chain(&error);
        assert!(said.contains(key) && said.contains(mend) && !said.contains(secret), "{key}, {mend}: {said}");
        assert!(!error.is_transient(), "{said}");
    }
}

/// The same on the command line, for a worker and a client: at once, with exit code 2.
#[tokio::test]
async fn a_wrong_way_in_ends_every_command_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.creds").display().to_string();
    let two = [("NATS_CREDS", missing.as_str()), ("NATS_USER", "ann"), ("NATS_PASSWORD", "hunter2")];
    let lost = [("NATS_CREDS", missing.as_str())];
    for arguments in [vec!["serve"], vec!["health"], vec!["provision"], vec!["config", "check"]] {
        for (variables, names) in [
            (&two[..], ["nats.credentials_file", "nats.user"]),
            (&lost[..], ["nats.credentials_file", "missing.creds"]),
        ] {
            let done = output(tandem(folder.path(), variables, &arguments)).await;
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert_eq!(done.status.code(), Some(2), "{arguments:?} {said}");
            assert!(names.iter().all(|name| said.contains(name)) && !said.contains("hunter2"), "{arguments:?} {said}");
        }
    }

    let server = Server::start("authorization { user: ann, password: other }").await;
    let url = server.url();
    let wrong = [("NATS_URL", url.as_str()), ("NATS_USER", "ann"), ("NATS_PASSWORD", "hunter2"), ("RUST_LOG", "trace")];
    for arguments in [vec!["serve"], vec!["health"], vec!["config", "show"], vec!["config", "show", "--json"]] {
        let done = output(tandem(folder.path(), &wrong, &arguments)).await;
        let said = format!("{}{}", String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
        assert!(said.contains("ann") || said.contains("nats.user"), "{arguments:?}: {said}");
    }
}
