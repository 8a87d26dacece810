//! Images that must be signed by a key.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use graviola::hashing::Sha256;
use graviola::signing::ecdsa::{P256, SigningKey};
use graviola::signing::eddsa::Ed25519SigningKey;
use serde_json::{Value, json};
use supermachine_oci_bake::Digest;
use supermachine_oci_pull::{PullError, PullPolicy, VerifyKey};
use support::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SIGNED: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// A key to sign with, and the public one.
struct Signer {
    sign: Box<Sign>,
    public: VerifyKey,
}

fn pem(der: &[u8]) -> VerifyKey {
    let body = STANDARD.encode(der);
    let text = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    VerifyKey::from_pem(&text).unwrap()
}

fn p256() -> Signer {
    let key = SigningKey::<P256>::generate().unwrap();
    let mut der = [0; 256];
    let public = pem(key.to_spki_der(&mut der).unwrap());
    let sign = move |bytes: &[u8]| {
        let mut signature = [0; 128];
        key.sign_asn1::<Sha256>(&[bytes], &mut signature)
            .unwrap()
            .to_vec()
    };
    Signer {
        sign: Box::new(sign),
        public,
    }
}

fn ed25519() -> Signer {
    let key = Ed25519SigningKey::generate().unwrap();
    let mut der = [0; 256];
    let public = pem(key.public_key().to_spki_der(&mut der).unwrap());
    Signer {
        sign: Box::new(move |bytes| key.sign(bytes).to_vec()),
        public,
    }
}

/// What cosign signs of an image.
fn payload(digest: &str) -> Vec<u8> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": "a/b" },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    payload.to_string().into_bytes()
}

/// Puts signatures beside an image: what is signed, and the signature.
fn put(image: &mut Image, signatures: &[(Vec<u8>, Vec<u8>)]) {
    let mut layers: Vec<Value> = Vec::new();
    for (payload, signature) in signatures {
        let digest = Digest::sha256_of(payload).to_string();
        layers.push(json!({
            "mediaType": SIGNED, "digest": digest, "size": payload.len(),
            "annotations": { "dev.cosignproject.cosign/signature": STANDARD.encode(signature) },
        }));
        image.blobs.insert(digest, payload.clone());
    }
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers });
    put_manifest(image, manifest.to_string().into_bytes());
}

fn put_manifest(image: &mut Image, bytes: Vec<u8>) {
    let tag = format!("{}.sig", image.root.replace(':', "-"));
    image.manifests.insert(tag, (MANIFEST.to_owned(), bytes));
}

/// What comes of pulling an image from a registry, for who wants the key's signature.
fn outcome(image: &Image, key: &VerifyKey) -> Result<(), PullError> {
    let answers = image.clone();
    let server = Server::start(move |request| answers.answer(request));
    let scratch = Scratch::new();
    let reference = format!("{}/a/b:v1", server.host());
    let mut config = config();
    config.verify_key = Some(key.clone());
    match pull_with(config, &reference, PullPolicy::Missing, &scratch.store()) {
        Ok(_) => Ok(()),
        Err(error) => {
            assert_eq!(
                server.count(|r| r.path.ends_with(&image.layer)),
                0,
                "it was pulled"
            );
            Err(PullError::of(error).expect("an error of pulling"))
        }
    }
}

#[test]
fn an_image_that_the_key_has_signed_is_pulled_and_known_without_the_network_after() {
    for signer in [p256(), ed25519()] {
        let mut image = Image::new(1000);
        let signed = payload(&image.root);
        let signature = (signer.sign)(&signed);
        // Others may have signed it too.
        let other = (signed.clone(), (p256().sign)(&signed));
        put(&mut image, &[other, (signed, signature)]);
        let answers = image.clone();
        let server = Server::start(move |request| answers.answer(request));
        let scratch = Scratch::new();
        let store = scratch.store();
        let reference = format!("{}/a/b:v1", server.host());
        let mut config = config();
        config.verify_key = Some(signer.public.clone());
        let pull = |policy| pull_with(config.clone(), &reference, policy, &store);
        assert_whole(&pull(PullPolicy::Missing).unwrap(), &image);
        let asked = server.seen().len();
        assert_whole(&pull(PullPolicy::Never).unwrap(), &image);
        assert_whole(&pull(PullPolicy::Missing).unwrap(), &image);
        assert_eq!(server.seen().len(), asked);
        // With another key to trust, what is here is refused.
        config.verify_key = Some(p256().public);
        let error = pull_with(config, &reference, PullPolicy::Never, &store).unwrap_err();
        assert!(matches!(
            PullError::of(error),
            Ok(PullError::Unverified { .. })
        ));
    }
}

#[test]
fn an_image_that_the_key_has_not_signed_is_refused_before_its_layers_come() {
    let signer = p256();
    let plain = Image::new(1000);
    let good = payload(&plain.root);
    let signature = (signer.sign)(&good);
    let other = payload(&Digest::sha256_of(b"another").to_string());
    let mut cut = signature.clone();
    cut.pop();
    let mut damaged = signature.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let strange = br#"{"critical":{}}"#.to_vec();
    type Signatures = Vec<(Vec<u8>, Vec<u8>)>;
    let cases: [(&str, Signatures); 8] = [
        ("by another key", vec![(good.clone(), (p256().sign)(&good))]),
        (
            "by another kind of key",
            vec![(good.clone(), (ed25519().sign)(&good))],
        ),
        (
            "of another image",
            vec![(other.clone(), (signer.sign)(&other))],
        ),
        ("moved to another image", vec![(other, signature.clone())]),
        ("cut", vec![(good.clone(), cut)]),
        ("damaged", vec![(good.clone(), damaged)]),
        (
            "of something else",
            vec![(strange.clone(), (signer.sign)(&strange))],
        ),
        ("none", Vec::new()),
    ];
    for (what, signatures) in cases {
        let mut image = plain.clone();
        put(&mut image, &signatures);
        let error = outcome(&image, &signer.public).expect_err(what);
        assert!(
            matches!(error, PullError::Unverified { .. }),
            "{what}: {error}"
        );
        assert!(error.to_string().contains(&image.root), "{what}: {error}");
    }
    let error = outcome(&plain, &signer.public).unwrap_err();
    assert!(
        error.to_string().contains("no signature beside it"),
        "{error}"
    );
    for manifest in [&b"[]"[..], b"{}", br#"{"layers":[{}]}"#] {
        let mut image = plain.clone();
        put_manifest(&mut image, manifest.to_vec());
        let error = outcome(&image, &signer.public).unwrap_err();
        assert!(matches!(error, PullError::Unverified { .. }), "{error}");
    }
    // More than anyone looks at, the good one behind them.
    let mut image = plain.clone();
    let mut many = vec![(good.clone(), vec![0; 70]); 64];
    many.push((good, signature));
    put(&mut image, &many);
    assert!(outcome(&image, &signer.public).is_err());
}
