//! Places in a guest where something is mounted.

/// Refuses what is no place for a mount; what is wrong with it.
pub(crate) fn check(path: &str) -> Result<(), &'static str> {
    let names = path.split('/').skip(1).filter(|name| !name.is_empty());
    if !path.starts_with('/') || path.contains('\0') || names.clone().any(|name| name == "..") {
        return Err("name its place in the guest by an absolute path without `..`");
    }
    if names.clone().all(|name| name == ".") {
        return Err("name its place in the guest, which cannot be the root");
    }
    Ok(())
}
