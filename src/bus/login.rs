//! Who this connection is to the NATS server, and whose certificates it trusts.
//!
//! There are four ways to log in, and one connection uses one of them. Files are read once, at start, so that a wrong
//! one is named there and not by a server that says no.

use std::path::Path;
use std::sync::Arc;

use async_nats::{ConnectOptions, ServerAddr};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::{Error, Options};

/// A text that is never shown: not by `Debug`, and in a configuration that is written out only that it is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

impl Secret {
    pub fn is_empty(&self) -> bool {
        self.0.expose_secret().is_empty()
    }

    fn expose(&self) -> String {
        self.0.expose_secret().to_owned()
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

/// TLS to the NATS server. A server that asks for TLS, or a url with `tls://`, gets it in any case; with the platform's
/// certificate authorities unless `ca_file` names others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate authorities that the server's certificate is checked with, in PEM, instead of the platform's.
    /// Also `NATS_CA`. With one of these files the connection is made with TLS or not at all.
    pub ca_file: String,
    /// This side's certificate, in PEM with those between it and its authority, for a server that asks for one. Also
    /// `NATS_CERT`.
    pub cert_file: String,
    /// The private key of `cert_file`, in PEM, not encrypted. Also `NATS_KEY`.
    pub key_file: String,
    /// No connection without TLS, whatever the server offers.
    pub required: bool,
    /// TLS before the server's first word, for a server with `handshake_first`. Includes `required`.
    pub first: bool,
}

impl Tls {
    fn check(&self) -> Result<(), Error> {
        let alone = |key, other| {
            let why = format!("a client certificate needs both: set nats.{other} too, or neither");
            Err(Error::Option { key, why })
        };
        match (self.cert_file.is_empty(), self.key_file.is_empty()) {
            (false, true) => alone("tls.cert_file", "tls.key_file"),
            (true, false) => alone("tls.key_file", "tls.cert_file"),
            _ => Ok(()),
        }
    }

    /// The library reads the files again at each connect, so a renewed certificate is taken; here they are only tried.
    fn apply(&self, mut options: ConnectOptions) -> Result<ConnectOptions, Error> {
        let (ca, cert, key) = (Path::new(&self.ca_file), Path::new(&self.cert_file), Path::new(&self.key_file));
        let mut roots = RootCertStore::empty();
        if !self.ca_file.is_empty() {
            for certificate in certificates("tls.ca_file", ca)? {
                let added = roots.add(certificate);
                added.map_err(|error| wrong("tls.ca_file", ca, &format!("holds no authority ({error})")))?;
            }
            options = options.add_root_certificates(ca.to_owned());
        }
        if !self.cert_file.is_empty() {
            let chain = certificates("tls.cert_file", cert)?;
            let read = PrivateKeyDer::from_pem_slice(read("tls.key_file", key)?.as_bytes());
            let private =
                read.map_err(|_| wrong("tls.key_file", key, "holds no private key in PEM without passphrase"))?;
            let pair = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, private));
            pair.map_err(|error| {
                let why = format!("and the certificate in {} do not belong together ({error})", cert.display());
                wrong("tls.key_file", key, &why)
            })?;
            options = options.add_client_certificate(cert.to_owned(), key.to_owned());
        }
        let is_meant = self.required || !self.ca_file.is_empty() || !self.cert_file.is_empty();
        options = options.require_tls(is_meant);
        Ok(if self.first { options.tls_first() } else { options })
    }
}

/// Names what contradicts itself. Reads no file.
pub(super) fn check(options: &Options) -> Result<(), Error> {
    let wrong = |key: &'static str, why: &str| Err(Error::Option { key, why: why.to_owned() });
    let named_user = !options.user.is_empty();
    match (options.password.is_empty(), options.password_file.is_empty()) {
        (false, false) => {
            return wrong("password_file", "nats.password (NATS_PASSWORD) is set too; leave one of the two");
        }
        (true, true) if named_user => {
            return wrong("user", "there is no password for it; set nats.password_file or NATS_PASSWORD");
        }
        (false, true) if !named_user => {
            return wrong("password", "there is no user for it; set nats.user or NATS_USER");
        }
        (true, false) if !named_user => {
            return wrong("password_file", "there is no user for it; set nats.user or NATS_USER");
        }
        _ => {}
    }
    if !options.token.is_empty() && !options.token_file.is_empty() {
        return wrong("token_file", "nats.token (NATS_TOKEN) is set too; leave one of the two");
    }
    let ways = [
        ("credentials_file", !options.credentials_file.is_empty()),
        ("nkey_seed_file", !options.nkey_seed_file.is_empty()),
        ("user", named_user),
        ("token", !options.token.is_empty()),
        ("token_file", !options.token_file.is_empty()),
        ("urls", in_a_url(&options.urls).is_some()),
    ];
    let mut given = ways.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key);
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        let why = format!("nats.{second} says another way to log in; leave one of the two, in file and environment");
        return Err(Error::Option { key: first, why });
    }
    options.tls.check()
}

/// Logs in as the options say, over TLS as they say.
pub(super) fn connect_options(options: &Options) -> Result<ConnectOptions, Error> {
    check(options)?;
    options.tls.apply(named(options)?)
}

fn named(options: &Options) -> Result<ConnectOptions, Error> {
    let to = ConnectOptions::new();
    if !options.credentials_file.is_empty() {
        let (key, path) = ("credentials_file", Path::new(&options.credentials_file));
        let credentials = read(key, path)?;
        let why = "is no credentials file: it holds no user JWT with its seed, as `nsc generate creds` writes them";
        return to.credentials(&credentials).map_err(|_| wrong(key, path, why));
    }
    if !options.nkey_seed_file.is_empty() {
        let (key, path) = ("nkey_seed_file", Path::new(&options.nkey_seed_file));
        let text = read(key, path)?;
        let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU")).unwrap_or_default();
        let why = "holds no seed of a user, a line that begins with SU, as `nk -gen user` writes it";
        nkeys::KeyPair::from_seed(seed).map_err(|_| wrong(key, path, why))?;
        return Ok(to.nkey(seed.to_owned()));
    }
    if !options.user.is_empty() {
        let password = one_line(&options.password, "password_file", &options.password_file)?;
        return Ok(to.user_and_password(options.user.clone(), password));
    }
    if !options.token.is_empty() || !options.token_file.is_empty() {
        return Ok(to.token(one_line(&options.token, "token_file", &options.token_file)?));
    }
    Ok(match in_a_url(&options.urls) {
        Some((user, Some(password))) => to.user_and_password(user, password),
        Some((token, None)) => to.token(token),
        None => to,
    })
}

/// The secret itself, or that of a file: without the end of line that editors put there.
fn one_line(secret: &Secret, key: &'static str, path: &str) -> Result<String, Error> {
    if path.is_empty() {
        return Ok(secret.expose());
    }
    let text = read(key, Path::new(path))?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() { Err(wrong(key, Path::new(path), "is empty")) } else { Ok(line.to_owned()) }
}

/// User and password (`nats://user:password@host`), or a token (`nats://token@host`), of the first url that has some:
/// async-nats 0.51 leaves them unread.
fn in_a_url(urls: &[String]) -> Option<(String, Option<String>)> {
    let mut addresses = urls.iter().filter_map(|url| url.parse::<ServerAddr>().ok());
    let address = addresses.find(ServerAddr::has_user_pass)?;
    Some((unescaped(address.username().unwrap_or_default()), address.password().map(unescaped)))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.unwrap_or_default();
    if found.is_empty() { Err(wrong(key, path, "holds no certificate in PEM")) } else { Ok(found) }
}

fn read(key: &'static str, path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { key, path: path.to_owned(), source })
}

fn wrong(key: &'static str, path: &Path, why: &str) -> Error {
    Error::Option { key, why: format!("{} {why}", path.display()) }
}

/// `%40` as `@`, as URLs write what would end a password. What is no such escape stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|hex| *first == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_as_urls_write_it() {
        for (written, meant) in [("a%40b%3A", "a@b:"), ("100%", "100%"), ("%zz%4", "%zz%4"), ("%C3%A4", "ä"), ("", "")]
        {
            assert_eq!(unescaped(written), meant);
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        let with = |set: fn(&mut Options)| {
            let mut options = Options::default();
            set(&mut options);
            check(&options).map_err(|error| error.to_string())
        };
        type Case = (fn(&mut Options), &'static [&'static str]);
        let cases: [Case; 8] = [
            (
                |o| (o.credentials_file, o.nkey_seed_file) = ("a".into(), "b".into()),
                &["credentials_file", "nkey_seed_file"],
            ),
            (|o| (o.user, o.password, o.token) = ("a".into(), "b".into(), "c".into()), &["nats.user", "nats.token"]),
            (|o| (o.urls, o.token) = (vec!["nats://a:b@h".into()], "c".into()), &["nats.token", "nats.urls"]),
            (|o| o.user = "a".into(), &["nats.user", "nats.password_file", "NATS_PASSWORD"]),
            (|o| o.password = "a".into(), &["nats.password", "NATS_USER"]),
            (|o| (o.user, o.password, o.password_file) = ("a".into(), "b".into(), "c".into()), &["nats.password_file"]),
            (|o| o.tls.cert_file = "a".into(), &["nats.tls.cert_file", "nats.tls.key_file"]),
            (|o| o.tls.key_file = "a".into(), &["nats.tls.key_file", "nats.tls.cert_file"]),
        ];
        for (set, said) in cases {
            let error = with(set).unwrap_err();
            assert!(said.iter().all(|key| error.contains(key)), "{error}");
        }
        assert_eq!(with(|o| (o.user, o.password) = ("a".into(), "b".into())), Ok(()));
        assert_eq!(with(|o| o.urls = vec!["nats://a:b@h".into(), "nats://c:d@h".into()]), Ok(()));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let mut options = Options { urls: vec!["nats://ann:hunter2@host".into()], ..Options::default() };
        (options.password, options.token) = ("hunter2".into(), "hunter2".into());
        let shown = format!("{options:?} {}", serde_json::to_string(&options).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("nats://host"), "{shown}");
    }
}
