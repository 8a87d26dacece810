//! Registries with TLS: whose certificates are trusted, and which are shown.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use supermachine_oci_pull::{ClientConfig, PullError, PullPolicy};
use support::*;

const AUTHORITY: &[u8] = include_bytes!("certificates/authority.crt");
const OTHER: &[u8] = include_bytes!("certificates/other.crt");
const SERVER: &[u8] = include_bytes!("certificates/server.crt");
const SERVER_KEY: &[u8] = include_bytes!("certificates/server.key");
const CLIENT: &[u8] = include_bytes!("certificates/client.crt");
const CLIENT_KEY: &[u8] = include_bytes!("certificates/client.key");

fn certificate(pem: &'static [u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).unwrap()
}

/// A registry with TLS, which asks for a certificate of the authority if `asks`.
fn server(asks: bool, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    let provider = Arc::new(rustls_graviola::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match asks {
        false => builder.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(AUTHORITY)).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::from_pem_slice(SERVER_KEY).unwrap();
    let config = builder
        .with_single_cert(vec![certificate(SERVER)], key)
        .unwrap();
    Server::start_with(Some(Arc::new(config)), answer)
}

/// A directory as `certs.d`, with files for the server.
fn with_files(scratch: &Scratch, server: &Server, files: &[(&str, &[u8])]) -> ClientConfig {
    let directory = scratch.0.join("certs.d").join(server.host());
    fs::create_dir_all(&directory).unwrap();
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
    let mut config = config();
    config.certificate_directories = vec![scratch.0.join("certs.d"), Path::new("/none").into()];
    config
}

#[test]
fn an_authority_in_its_directory_is_trusted_for_that_host() {
    let image = Image::new(300_000);
    let answers = image.clone();
    let server = server(false, move |request| answers.answer(request));
    let scratch = Scratch::new();
    let config = with_files(&scratch, &server, &[("ca.crt", AUTHORITY)]);
    let reference = format!("{}/a:v1", server.host());
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);
}

#[test]
fn a_certificate_of_anyone_else_is_refused_unless_that_is_asked_for() {
    let image = Image::new(1000);
    let answers = image.clone();
    let server = server(false, move |request| answers.answer(request));
    let scratch = Scratch::new();
    let mut config = with_files(&scratch, &server, &[("ca.crt", OTHER)]);
    let reference = format!("{}/a:v1", server.host());
    let pull =
        |config: ClientConfig| pull_with(config, &reference, PullPolicy::Missing, &scratch.store());
    let error = pull(config.clone()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::Untrusted { .. }),
        "{}",
        chain(&error)
    );
    assert!(chain(&error).contains("--insecure-registry"));
    assert_eq!(server.seen().len(), 0);

    config.insecure = vec![server.host()];
    assert_whole(&pull(config).unwrap(), &image);
}

#[test]
fn a_client_certificate_is_shown_to_the_host_it_is_for() {
    let image = Image::new(1000);
    let answers = image.clone();
    let server = server(true, move |request| answers.answer(request));
    let reference = format!("{}/a:v1", server.host());
    let scratch = Scratch::new();
    let files = [
        ("ca.crt", AUTHORITY),
        ("client.cert", CLIENT),
        ("client.key", CLIENT_KEY),
    ];
    let config = with_files(&scratch, &server, &files);
    let pulled = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap();
    assert_whole(&pulled, &image);

    let without = Scratch::new();
    let config = with_files(&without, &server, &files[..1]);
    let asked = server.seen().len();
    pull_with(config, &reference, PullPolicy::Missing, &without.store()).unwrap_err();
    assert_eq!(server.seen().len(), asked);
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let server = server(false, |_| Reply::new(500, ""));
    let reference = format!("{}/a:v1", server.host());
    let cases: [&[(&str, &[u8])]; 3] = [
        &[("ca.crt", b"no certificate")],
        &[("client.cert", CLIENT)],
        &[("client.cert", CLIENT), ("client.key", CLIENT)],
    ];
    for files in cases {
        let scratch = Scratch::new();
        let config = with_files(&scratch, &server, files);
        let error =
            pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap_err();
        assert!(
            matches!(cause(&error), PullError::File { .. }),
            "{}",
            chain(&error)
        );
    }
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn a_redirection_from_tls_to_none_is_refused() {
    let image = Image::new(1000);
    let answers = image.clone();
    let plain = Server::start(move |request| answers.answer(request));
    let (answers, to) = (image.clone(), plain.url(""));
    let server = server(false, move |request| match request.is_blob() {
        true => Reply::new(307, "").header("Location", format!("{to}{}", request.path)),
        false => answers.answer(request),
    });
    let scratch = Scratch::new();
    let config = with_files(&scratch, &server, &[("ca.crt", AUTHORITY)]);
    let reference = format!("{}/a:v1", server.host());
    let error = pull_with(config, &reference, PullPolicy::Missing, &scratch.store()).unwrap_err();
    assert!(
        matches!(cause(&error), PullError::Redirect { .. }),
        "{}",
        chain(&error)
    );
    assert_eq!(plain.seen().len(), 0);
}
