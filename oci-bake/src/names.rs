//! Names of images inside a layout or archive, as different tools write them.
//!
//! skopeo and umoci annotate an image with what the user typed, often a bare
//! tag; containerd and BuildKit with the whole name, `docker.io/local/bb:v1`;
//! `docker save` writes `local/bb:v1`. A user means the same by all of them.

/// The `items` that `wanted` names: those that are called exactly that, or
/// else those it is a short or a long form for.
pub(crate) fn choose<T>(items: Vec<T>, wanted: &str, names: impl Fn(&T) -> Vec<String>) -> Vec<T> {
    let called = |item: &T| names(item).iter().any(|name| name == wanted);
    let exact = items.iter().any(called);
    let chosen = |item: &T| match exact {
        true => called(item),
        false => names(item).iter().any(|name| is_form_of(name, wanted)),
    };
    items.into_iter().filter(chosen).collect()
}

/// Whether `wanted` stands for `name`: both in full are the same, or it is the
/// end of `name` from a slash or colon on.
fn is_form_of(name: &str, wanted: &str) -> bool {
    let is_end = |end: &str| {
        name.strip_suffix(end)
            .is_some_and(|rest| rest.ends_with(['/', ':']))
    };
    in_full(name) == in_full(wanted)
        || is_end(wanted)
        || (!wanted.contains(':') && is_end(&format!("{wanted}:latest")))
}

/// `[HOST/]NAME[:TAG]` with what Docker adds where nothing is said.
fn in_full(name: &str) -> String {
    let tagged = match name.rsplit('/').next() {
        Some(last) if !last.contains([':', '@']) => format!("{name}:latest"),
        _ => name.to_owned(),
    };
    match tagged.split_once('/') {
        None => format!("docker.io/library/{tagged}"),
        Some(("docker.io", rest)) if !rest.contains('/') => format!("docker.io/library/{rest}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => tagged,
        Some(_) => format!("docker.io/{tagged}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], wanted: &str) -> Vec<String> {
        let items = names.iter().map(|name| (*name).to_owned()).collect();
        choose(items, wanted, |name: &String| vec![name.clone()])
    }

    #[test]
    fn short_and_long_forms_name_the_same_image() {
        let name = "docker.io/local/bb:v1";
        for wanted in [name, "local/bb:v1", "bb:v1", "v1"] {
            assert_eq!(chosen(&["other:v2", name], wanted), [name], "{wanted}");
        }
        for wanted in [
            "docker.io/library/bb:v1",
            "library/bb:v1",
            "docker.io/bb:v1",
        ] {
            assert_eq!(chosen(&["bb:v1"], wanted), ["bb:v1"], "{wanted}");
        }
        for (name, wanted) in [
            ("docker.io/library/bb:latest", "bb"),
            ("localhost:5000/a/bb:latest", "a/bb"),
            ("ghcr.io/o/i", "ghcr.io/o/i:latest"),
            ("bb", "latest"),
        ] {
            let expected = if name == "bb" { vec![] } else { vec![name] };
            assert_eq!(chosen(&[name], wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn parts_of_a_component_name_nothing() {
        for wanted in [
            "b:v1",
            "1",
            "ocal/bb:v1",
            "bb",
            "local/bb",
            "",
            "ghcr.io/local/bb:v1",
        ] {
            let found = chosen(&["docker.io/local/bb:v1"], wanted);
            assert!(found.is_empty(), "{wanted}");
        }
    }

    #[test]
    fn the_exact_name_comes_before_its_forms() {
        let names = ["docker.io/local/bb:v1", "v1"];
        assert_eq!(chosen(&names, "v1"), ["v1"]);
        assert_eq!(chosen(&names, "bb:v1"), ["docker.io/local/bb:v1"]);
        assert_eq!(chosen(&["a/b:v1", "c/b:v1"], "b:v1").len(), 2);
    }
}
