use super::*;

fn problem(result: Result<impl Sized, Error>) -> String {
    match result {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn tags_and_places_that_no_guest_could_use_are_refused() {
    let long = "t".repeat(37);
    for tag in ["", "a b", "a:b", "a=b", "ü", ".", "..", long.as_str()] {
        let error = problem(validate(&[MountSpec::new("/", tag)]));
        assert!(error.contains("choose a tag"), "{tag:?}: {error}");
    }
    for at in ["", "work", "/", "//", "/.", "/a/../b", "/a\0"] {
        let error = problem(validate(&[MountSpec::new("/", "a").at(at)]));
        assert!(error.contains("in the guest"), "{at:?}: {error}");
    }
    let twice = [MountSpec::new("/a", "tag"), MountSpec::new("/b", "tag")];
    assert!(problem(validate(&twice)).contains("of its own"));
    assert_eq!(problem(validate(&twice[..1])), "");
}

#[test]
fn place_becomes_one_word_of_the_command_line() {
    let mounts = [
        MountSpec::new("/a", "a").at("/work dir/\"x\"=%"),
        MountSpec::new("/b", "b"),
        MountSpec::new("/c", "c").at("/c").read_only(true),
    ];
    assert_eq!(
        kernel_arguments(&mounts),
        " sm.mount=a:rw:/work%20dir/%22x%22%3d%25 sm.mount=c:ro:/c"
    );
}

#[test]
fn copy_gets_the_mounts_of_its_snapshot_in_their_order() {
    let mounts = [
        MountSpec::new("/a", "a").at("/a"),
        MountSpec::new("/b", "b"),
    ];
    let baked = points(&mounts);
    let other = [mounts[1].clone(), mounts[0].clone()];
    let found = for_copy(&other, &baked).unwrap();
    assert_eq!(found, mounts);
    assert!(problem(for_copy(&mounts[..1], &baked)).contains("give it a directory"));
    assert!(problem(for_copy(&mounts, &baked[..1])).contains("bake the image"));
    let elsewhere = [MountSpec::new("/a", "a").at("/z")];
    assert!(problem(for_copy(&elsewhere, &baked[..1])).contains("another place"));
    let anywhere = [MountSpec::new("/z", "a")];
    assert_eq!(for_copy(&anywhere, &baked[..1]).unwrap(), anywhere);
    let read_only = [anywhere[0].clone().read_only(true)];
    assert!(for_copy(&read_only, &baked[..1]).is_ok());
    let baked = points(&read_only);
    assert!(problem(for_copy(&anywhere, &baked)).contains("read-only"));
    let covered = [MountSpec::new("/a", "a").at("/a").copy_on_write()];
    assert_eq!(covered[0].kernel_argument().unwrap(), "sm.mount=a:cow:/a");
    assert!(covered[0].order().read_only);
    let baked = points(&[anywhere[0].clone().at("/a")]);
    assert!(problem(for_copy(&covered, &baked)).contains("copy-on-write"));
    let file = [MountSpec::file("/a", "a").at("/f")];
    assert_eq!(kernel_arguments(&file), " sm.mount=a:rw-file:/f");
    let points_of_file = points(&file);
    assert_eq!(for_copy(&file, &points_of_file).unwrap(), file);
    assert!(problem(for_copy(&anywhere, &points_of_file)).contains("one file"));
    assert!(problem(for_copy(&file, &points(&anywhere))).contains("a directory"));
    let covered_file = [file[0].clone().copy_on_write()];
    assert!(problem(validate(&covered_file)).contains("file's directory"));
    let no_file = open(&[MountSpec::file("/dev", "a")]);
    assert!(no_file.is_err());
    let device = problem(open(&[MountSpec::file("/dev/null", "a")]));
    assert!(device.contains("no file"), "{device}");
    let nowhere = [MountSpec::new("/a", "a").copy_on_write()];
    assert!(problem(validate(&nowhere)).contains("name its place"));
}

#[test]
fn windows_for_files_fit_and_copies_have_those_of_their_snapshot() {
    let plain = MountSpec::new("/a", "a");
    let mapped = plain.clone().with_dax(DaxPolicy::Always);
    assert_eq!(problem(validate(std::slice::from_ref(&mapped))), "");
    for mib in [0, 3] {
        let odd = mapped.clone().with_dax_window_mib(mib);
        assert!(problem(validate(&[odd])).contains("multiple of 2 MiB"));
    }
    assert_eq!(
        problem(validate(&[plain.clone().with_dax_window_mib(3)])),
        ""
    );
    let half = |tag| MountSpec::new("/", tag).with_dax(DaxPolicy::LargeFiles);
    let half = |tag| half(tag).with_dax_window_mib(4096);
    assert_eq!(problem(validate(&[half("a"), half("b")])), "");
    let more = [
        half("a"),
        half("b"),
        MountSpec::new("/", "c"),
        mapped.clone(),
    ];
    assert!(problem(validate(&more[..3])).is_empty());
    let more = [half("x"), half("y"), mapped.clone()];
    assert!(problem(validate(&more)).contains("8192 MiB"));

    let baked = points(&[mapped.clone().with_dax_window_mib(64)]);
    let copy = for_copy(std::slice::from_ref(&plain), &baked).unwrap();
    assert_eq!(copy[0].window(), baked[0].dax);
    let other = mapped.clone().with_dax(DaxPolicy::LargeFiles);
    let copy = for_copy(&[other], &baked).unwrap();
    let dax = copy[0].window().unwrap();
    assert_eq!(
        (dax.policy, dax.window_bytes),
        (DaxPolicy::LargeFiles, 64 << 20)
    );
    let without = points(&[plain]);
    assert!(problem(for_copy(&[mapped], &without)).contains("no window"));
}
