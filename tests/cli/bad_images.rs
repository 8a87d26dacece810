//! Images that were tampered with: a message that says what is wrong, nothing
//! left behind, and nothing of them in the cache.

use crate::layout::Layout;
use crate::sandbox::{Outcome, Sandbox};
use serde_json::json;
use std::fs;
use std::path::Path;

fn run(sandbox: &Sandbox, reference: &str) -> Outcome {
    sandbox.run(&["run", reference, "--", "echo", "must not run"])
}

/// Runs a copy of the demo's image after `spoil` changed it; the message must
/// have all of `words`, and the cache must have nothing half made.
#[track_caller]
fn refused(words: &[&str], spoil: impl FnOnce(&Layout)) {
    let sandbox = Sandbox::with_empty_cache();
    let layout = Layout::copy(&sandbox);
    spoil(&layout);
    run(&sandbox, &layout.reference()).refused(125, words);
    sandbox.assert_empty();
    // What was refused must not have become part of the cache either: the
    // sound image still runs.
    let whole = Layout::copy(&sandbox);
    run(&sandbox, &whole.reference()).printed("must not run\n");
    sandbox.assert_empty();
}

#[track_caller]
fn flip_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("a file");
}

#[track_caller]
fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("a file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("a file");
}

#[track_caller]
fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_string_lossy()[..12].to_owned()
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("empty")).expect("a directory");
    fs::write(sandbox.path("text"), "no archive").expect("a file");
    fs::write(sandbox.path("nothing"), "").expect("a file");
    let in_here = |scheme: &str, name: &str| format!("{scheme}:{}", sandbox.path(name).display());
    for (reference, words) in [
        (in_here("oci", "absent"), ["absent", "No such file"]),
        (
            in_here("oci", "empty"),
            ["empty", "not an OCI image layout"],
        ),
        (in_here("oci", "text"), ["text", "not a directory"]),
        (in_here("oci-archive", "absent"), ["absent", "No such file"]),
        (
            in_here("oci-archive", "text"),
            ["text", "not an image archive"],
        ),
        (
            in_here("oci-archive", "nothing"),
            ["nothing", "not an OCI image layout"],
        ),
        (
            in_here("oci-archive", "empty"),
            ["empty", "not a regular file"],
        ),
        (
            in_here("docker-archive", "text"),
            ["text", "not an image archive"],
        ),
        (
            "docker.io/Debian:12".to_owned(),
            ["invalid image reference", "lower case"],
        ),
        ("".to_owned(), ["invalid image reference", "empty"]),
        ("oci:".to_owned(), ["invalid image reference", "empty"]),
    ] {
        run(&sandbox, &reference).refused(125, &words);
    }
    sandbox.assert_empty();
}

#[test]
fn wrong_architecture_is_refused() {
    refused(&["arm64", "amd64"], |layout| {
        layout.edit_config(|config| config["architecture"] = json!("amd64"));
        layout.edit_index(|index| {
            index["manifests"][0]["platform"]["architecture"] = json!("amd64");
        });
    });
    // The index may lie; the image itself must not be believed less.
    refused(&["amd64"], |layout| {
        layout.edit_config(|config| config["architecture"] = json!("amd64"));
    });
    refused(&["windows"], |layout| {
        layout.edit_config(|config| config["os"] = json!("windows"));
        layout.edit_index(|index| index["manifests"][0]["platform"]["os"] = json!("windows"));
    });
}

#[test]
fn missing_blobs_are_refused_by_digest() {
    for path in [
        Layout::layer_path as fn(&Layout) -> _,
        Layout::config_path,
        Layout::manifest_path,
    ] {
        let sandbox = Sandbox::with_empty_cache();
        let name = name_of(&path(&Layout::copy(&sandbox)));
        refused(&[&name], |layout| {
            fs::remove_file(path(layout)).expect("a blob");
        });
    }
}

#[test]
fn blobs_that_are_not_what_their_digest_says_are_refused() {
    for path in [
        Layout::layer_path as fn(&Layout) -> _,
        Layout::config_path,
        Layout::manifest_path,
    ] {
        refused(&["digest"], |layout| flip_byte(&path(layout)));
        refused(&["should have", "bytes"], |layout| truncate(&path(layout)));
    }
}

#[test]
fn layer_content_must_match_its_diff_id() {
    refused(&["digest mismatch"], |layout| {
        layout.edit_config(|config| {
            let last = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len) - 1;
            config["rootfs"]["diff_ids"][last] = json!(format!("sha256:{}", "0".repeat(64)));
        });
    });
}

#[test]
fn layers_and_diff_ids_must_pair_up() {
    refused(&["layer"], |layout| {
        layout.edit_config(|config| {
            config["rootfs"]["diff_ids"]
                .as_array_mut()
                .expect("ids")
                .pop();
        });
    });
}

#[test]
fn malformed_documents_are_refused() {
    refused(&["index", "not valid"], |layout| {
        fs::write(layout.dir().join("index.json"), "{]").expect("a file");
    });
    refused(&["no image inside"], |layout| {
        layout.edit_index(|index| index["manifests"] = json!([]));
    });
    refused(&["invalid digest"], |layout| {
        layout.edit_index(|index| index["manifests"][0]["digest"] = json!("sha256:../../etc"));
    });
    refused(&["index is not valid"], |layout| {
        layout.edit_index(|index| index["manifests"][0]["size"] = json!(u64::MAX));
    });
    refused(&["manifest is not valid"], |layout| {
        layout.edit_index(|index| layout.store(b"not JSON", &mut index["manifests"][0]));
    });
    refused(&["manifest is not valid"], |layout| {
        layout.edit_manifest(|_, manifest| manifest["layers"] = json!("none"));
    });
    refused(&["cannot bake layer", "gzip"], |layout| {
        layout.edit_manifest(|layout, manifest| {
            layout.store(b"this is no archive", &mut manifest["layers"][1]);
        });
    });
}
