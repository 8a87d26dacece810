//! Every form in which skopeo and umoci, which we did not write, store an
//! image.

mod support;

use std::fs;

use supermachine_oci_bake::{BakeError, BakedImage, Digest, ImageError, LayerBuilder};
use support::{LAYER, Layout, MANIFEST, Scratch, chain, header, listing, padded, run, text};

/// An image of two layers made by umoci; returns its `oci:` reference.
fn umoci_image(scratch: &Scratch) -> String {
    let layout = scratch.path("umoci");
    let image = format!("{}:v1", text(&layout));
    run("umoci", &["init", "--layout", text(&layout)]);
    run("umoci", &["new", "--image", &image]);
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--architecture",
            "arm64",
            "--os",
            "linux",
            "--config.entrypoint",
            "/bin/tool",
            "--config.cmd",
            "--help",
            "--config.env",
            "A=b=c",
            "--config.user",
            "7:8",
            "--config.workingdir",
            "/srv",
            "--config.exposedports",
            "80/tcp",
            "--config.volume",
            "/data",
            "--config.label",
            "k=v",
            "--config.stopsignal",
            "SIGINT",
        ],
    );
    let tree = scratch.path("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::create_dir_all(tree.join("etc/old")).unwrap();
    fs::write(tree.join("bin/tool"), vec![b'x'; 300_000]).unwrap();
    fs::write(tree.join("etc/old/a"), "a").unwrap();
    run(
        "umoci",
        &[
            "insert",
            "--rootless",
            "--image",
            &image,
            text(&tree.join("bin")),
            "/bin",
        ],
    );
    run(
        "umoci",
        &[
            "insert",
            "--rootless",
            "--image",
            &image,
            text(&tree.join("etc")),
            "/etc",
        ],
    );
    let new = scratch.path("new");
    fs::create_dir_all(&new).unwrap();
    fs::write(new.join("b"), "b").unwrap();
    run(
        "umoci",
        &[
            "insert",
            "--rootless",
            "--opaque",
            "--image",
            &image,
            text(&new),
            "/etc/old",
        ],
    );
    run(
        "umoci",
        &["insert", "--image", &image, "--whiteout", "/bin/tool"],
    );
    format!("oci:{image}")
}

fn same(left: &BakedImage, right: &BakedImage) {
    assert_eq!(left.config, right.config);
    assert_eq!(left.diff_ids, right.diff_ids);
    assert_eq!(left.layers, right.layers);
}

#[test]
fn image_by_umoci_is_baked_with_its_whole_config() {
    let scratch = Scratch::new();
    let image = scratch.bake(&umoci_image(&scratch)).unwrap();
    assert_eq!(
        image.config.command(None, None).unwrap(),
        ["/bin/tool", "--help"]
    );
    assert_eq!(image.config.env, ["A=b=c"]);
    assert_eq!(image.config.user, "7:8");
    assert_eq!(image.config.working_dir, "/srv");
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGINT"));
    assert!(image.config.exposed_ports.contains("80/tcp"));
    assert!(image.config.volumes.contains("/data"));
    assert_eq!(image.config.labels["k"], "v");
    assert_eq!(image.layers.len(), 4);
    assert!(
        listing(&image.layers[0])
            .iter()
            .any(|l| l.contains(" 300000 "))
    );
    let whiteout = listing(&image.layers[3]);
    assert!(
        whiteout
            .iter()
            .any(|l| l.starts_with("c---------") && l.ends_with("/bin/tool"))
    );
}

#[test]
fn every_archive_form_gives_the_same_layers() {
    let scratch = Scratch::new();
    let layout = umoci_image(&scratch);
    let wanted = scratch.bake(&layout).unwrap();
    let copies = [
        ("oci-archive", "a.tar", ":v1", &[][..]),
        (
            "oci-archive",
            "z.tar",
            ":v1",
            &["--dest-compress-format", "zstd"],
        ),
        ("docker-archive", "d.tar", ":docker.io/library/made:v1", &[]),
        ("docker-archive", "n.tar", "", &[]),
        ("oci", "layout", ":v2", &["--dest-compress-format", "zstd"]),
    ];
    for (transport, name, tag, options) in copies {
        let reference = format!("{transport}:{}{tag}", text(&scratch.path(name)));
        let mut args = vec!["--insecure-policy", "copy", "-q"];
        args.extend(options);
        args.extend([layout.as_str(), reference.as_str()]);
        run("skopeo", &args);
        same(&scratch.bake(&reference).unwrap(), &wanted);
        // Without the cache, so that this form's layers are read too.
        let fresh = Scratch::new();
        let image = fresh.bake(&reference).unwrap();
        for (fresh, cached) in image.layers.iter().zip(&wanted.layers) {
            assert!(
                fs::read(fresh).unwrap() == fs::read(cached).unwrap(),
                "{reference}"
            );
        }
    }
}

#[test]
fn compressed_archive_of_docker_save_is_read() {
    let scratch = Scratch::new();
    let layout = umoci_image(&scratch);
    let archive = scratch.path("d.tar");
    let reference = format!("docker-archive:{}", text(&archive));
    run(
        "skopeo",
        &["--insecure-policy", "copy", "-q", &layout, &reference],
    );
    run("gzip", &[text(&archive)]);
    let image = scratch.bake(&format!("{reference}.gz")).unwrap();
    same(&image, &scratch.bake(&layout).unwrap());
}

#[test]
fn legacy_archive_with_linked_layers_is_read() {
    let scratch = Scratch::new();
    let layer = LayerBuilder::new().file("f", 0o644, "x").to_tar().unwrap();
    let diff_id = Digest::sha256_of(&layer).to_string();
    let config = serde_json::json!({
        "os": "linux", "architecture": "arm64",
        "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] },
    })
    .to_string();
    let name = format!("{}.json", Digest::sha256_of(config.as_bytes()).hex());
    let saved = serde_json::json!([{
        "Config": name, "RepoTags": ["a:1"], "Layers": ["one/layer.tar", "two/layer.tar"],
    }])
    .to_string();
    let mut archive = Vec::new();
    let mut file = |name: &str, bytes: &[u8]| {
        archive.extend(header(name, b'0', bytes.len(), ""));
        archive.extend(padded(bytes));
    };
    file("manifest.json", saved.as_bytes());
    file(&name, config.as_bytes());
    file("one/layer.tar", &layer);
    // Docker stored a repeated layer once and linked to it.
    archive.extend(header("two/layer.tar", b'2', 0, "../one/layer.tar"));
    archive.extend([0; 1024]);
    let path = scratch.path("saved.tar");
    fs::write(&path, &archive).unwrap();
    let image = scratch
        .bake(&format!("docker-archive:{}:a:1", text(&path)))
        .unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.layers[0], image.layers[1]);

    // The config's name is its digest, which must match.
    let wrong = String::from_utf8_lossy(&archive).replace("\"linux\"", "\"Linux\"");
    fs::write(&path, wrong).unwrap();
    let error = scratch
        .bake(&format!("docker-archive:{}", text(&path)))
        .unwrap_err();
    assert!(
        chain(&error).contains("digest mismatch"),
        "{}",
        chain(&error)
    );
}

#[test]
fn compressions_that_are_not_read_are_named_with_the_way_out() {
    let scratch = Scratch::new();
    let layout = umoci_image(&scratch);
    let archive = scratch.path("d.tar");
    let oci = format!("oci-archive:{}", text(&archive));
    run(
        "skopeo",
        &["--insecure-policy", "copy", "-q", &layout, &oci],
    );
    for (program, end, name) in [("xz", "xz", "xz"), ("bzip2", "bz2", "bzip2")] {
        run(program, &["-k", text(&archive)]);
        for transport in ["oci-archive", "docker-archive"] {
            let reference = format!("{transport}:{}.{end}", text(&archive));
            let message = chain(&scratch.bake(&reference).unwrap_err());
            let wanted = format!("is compressed with {name}, and only gzip and zstd are read");
            assert!(message.contains(&wanted), "{message}");
            assert!(message.contains(&format!("{program} -d")), "{message}");
        }
    }
}

#[test]
fn layers_in_compressions_that_are_not_read_are_named() {
    let scratch = Scratch::new();
    let layer = LayerBuilder::new().file("f", 0o644, "x").to_tar().unwrap();
    let id = Digest::sha256_of(&layer);
    let file = scratch.path("layer.tar");
    fs::write(&file, &layer).unwrap();
    run("xz", &["-k", text(&file)]);
    let blob = fs::read(scratch.path("layer.tar.xz")).unwrap();
    let saved = saved_archive(&blob, &id);
    let archive = scratch.path("saved.tar");
    fs::write(&archive, saved).unwrap();
    let reference = format!("docker-archive:{}", text(&archive));
    let message = chain(&scratch.bake(&reference).unwrap_err());
    assert!(message.contains("it is compressed with xz"), "{message}");
    let layout = Layout::new(scratch.path("layout"));
    let manifest = layout.manifest(&blob, &format!("{LAYER}+gzip"), &id);
    layout.index(&[layout.descriptor(MANIFEST, manifest.to_string().as_bytes())]);
    let message = chain(&scratch.bake(&layout.reference()).unwrap_err());
    let wanted = "the media type says gzip and the data is xz";
    assert!(message.contains(wanted), "{message}");
}

/// What `docker save` writes of an image of one layer.
fn saved_archive(layer: &[u8], diff_id: &Digest) -> Vec<u8> {
    let config = serde_json::json!({
        "os": "linux", "architecture": "arm64",
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    });
    let manifest = r#"[{"Config":"config.json","RepoTags":["local/bb:v1"],"Layers":["layer"]}]"#;
    let mut archive = Vec::new();
    for (name, content) in [
        ("manifest.json", manifest.as_bytes()),
        ("config.json", config.to_string().as_bytes()),
        ("layer", layer),
    ] {
        archive.extend(header(name, b'0', content.len(), ""));
        archive.extend(padded(content));
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn saved_images_are_found_by_any_form_of_their_name() {
    let scratch = Scratch::new();
    let layer = LayerBuilder::new().file("f", 0o644, "x").to_tar().unwrap();
    let archive = scratch.path("saved.tar");
    fs::write(&archive, saved_archive(&layer, &Digest::sha256_of(&layer))).unwrap();
    for name in ["local/bb:v1", "bb:v1", "docker.io/local/bb:v1"] {
        let reference = format!("docker-archive:{}:{name}", text(&archive));
        scratch.bake(&reference).unwrap();
    }
}

#[test]
fn wrong_tag_lists_the_tags_there_are() {
    let scratch = Scratch::new();
    let reference = umoci_image(&scratch).replace(":v1", ":v9");
    let error = scratch.bake(&reference).unwrap_err();
    assert!(matches!(
        &error,
        BakeError::Image(ImageError::TagNotFound { .. })
    ));
    assert!(chain(&error).contains("there are: v1"), "{}", chain(&error));
}
