//! The user's cache directory: the one place where this crate reads the
//! environment.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::{KernelError, recipe_hash};

/// The directory under which supermachine keeps what it can rebuild.
///
/// `$XDG_CACHE_HOME/supermachine` if that variable holds an absolute path (a
/// relative one is ignored, as the XDG base directory specification asks),
/// otherwise `$HOME/Library/Caches/supermachine` on macOS and
/// `$HOME/.cache/supermachine` elsewhere. Without `HOME`, as services are started,
/// the system's list of users says where that is. The directory need not exist.
///
/// # Errors
/// [`KernelError::NoCacheDir`] if none of these is an absolute path;
/// [`KernelError::NotDirectory`] if something else is there, such as a symbolic
/// link. Directories above it may be links.
pub fn cache_dir() -> Result<PathBuf, KernelError> {
    let dir = resolve(
        env::consts::OS,
        env::var_os("XDG_CACHE_HOME"),
        env::home_dir().map(PathBuf::into_os_string),
    );
    no_link(dir?)
}

/// A directory in the cache directory. It need not exist.
///
/// # Errors
/// As [`cache_dir`], for either of them.
pub fn cached(name: &str) -> Result<PathBuf, KernelError> {
    no_link(cache_dir()?.join(name))
}

fn no_link(dir: PathBuf) -> Result<PathBuf, KernelError> {
    match fs::symlink_metadata(&dir) {
        Ok(found) if !found.is_dir() => Err(KernelError::NotDirectory { path: dir }),
        // One that is not there is made by who needs it, who also learns of what
        // cannot be looked at.
        Ok(_) | Err(_) => Ok(dir),
    }
}

/// The cached assets that belong to this version of the recipe, under the
/// published names `kernel` and `init-oci`.
///
/// # Errors
/// As [`cache_dir`].
pub fn assets_dir() -> Result<PathBuf, KernelError> {
    cached(&format!("assets-{}", recipe_hash()))
}

/// Notes that a directory of the cache is in use, in the time it was last
/// changed: `cargo xtask` removes builds that nobody used for a month. Written
/// once a day at most; a cache that cannot be written has no one to prune it.
pub fn mark_used(dir: &Path) {
    const A_DAY: Duration = Duration::from_secs(24 * 3600);
    let Ok(handle) = File::open(dir) else {
        return;
    };
    let changed = handle.metadata().and_then(|metadata| metadata.modified());
    let now = SystemTime::now();
    let recent = changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|ago| ago < A_DAY));
    if !recent {
        let _ = handle.set_modified(now);
    }
}

fn resolve(
    os: &str,
    xdg: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, KernelError> {
    let absolute =
        |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(dir) = absolute(xdg) {
        return Ok(dir.join("supermachine"));
    }
    let home = absolute(home).ok_or(KernelError::NoCacheDir { variable: "HOME" })?;
    let below = if os == "macos" {
        Path::new("Library/Caches")
    } else {
        Path::new(".cache")
    };
    Ok(home.join(below).join("supermachine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdg_cache_home_wins_over_home() {
        let dir = resolve("linux", Some("/x".into()), Some("/h".into())).unwrap();
        assert_eq!(dir, Path::new("/x/supermachine"));
    }

    #[test]
    fn relative_or_empty_xdg_cache_home_is_ignored() {
        for xdg in ["", "cache"] {
            let dir = resolve("linux", Some(xdg.into()), Some("/h".into())).unwrap();
            assert_eq!(dir, Path::new("/h/.cache/supermachine"));
        }
    }

    #[test]
    fn a_mac_has_its_own_place_below_home() {
        let dir = resolve("macos", None, Some("/h".into())).unwrap();
        assert_eq!(dir, Path::new("/h/Library/Caches/supermachine"));
    }

    #[test]
    fn link_in_place_of_a_directory_of_the_cache_is_not_followed() {
        let dir = env::temp_dir().join(format!("supermachine-cache-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("dangling")).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        for name in ["link", "dangling", "file"] {
            let error = no_link(dir.join(name)).unwrap_err();
            assert!(matches!(error, KernelError::NotDirectory { .. }), "{name}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("remove it"), "{text}");
        }
        for name in ["elsewhere", "absent", "link/below"] {
            assert_eq!(no_link(dir.join(name)).unwrap(), dir.join(name));
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn no_home_is_an_error_that_names_the_variable() {
        let error = resolve("linux", None, None).unwrap_err();
        assert!(error.to_string().contains("HOME"));
        assert!(resolve("linux", None, Some("".into())).is_err());
    }
}
