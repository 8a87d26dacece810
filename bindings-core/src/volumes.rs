//! The volumes of a directory.

use std::path::PathBuf;
use std::sync::Arc;

use supermachine::{Error, VolumeInfo};

use crate::Result;
use crate::blocking::blocking;
use crate::numbers::whole;

/// A directory of volumes. Nothing is read or made before it is asked for something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeStore(Option<PathBuf>);

impl VolumeStore {
    /// That of this user.
    #[must_use]
    pub fn of_user() -> Self {
        Self(None)
    }

    /// That in a directory, which is made when the first volume is.
    #[must_use]
    pub fn at(dir: PathBuf) -> Self {
        Self(Some(dir))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(supermachine::VolumeStore) -> std::result::Result<T, Error> + Send + 'static,
    ) -> Result<T> {
        let dir = self.0.clone();
        // Dropped with the call.
        let call = Arc::new(());
        let asked = Arc::downgrade(&call);
        let done = blocking(move || {
            let store = match dir {
                Some(dir) => supermachine::VolumeStore::at(dir),
                None => supermachine::VolumeStore::of_user()?,
            };
            work(store.while_wanted(move || asked.strong_count() > 0))
        });
        let done = done.await;
        drop(call);
        done
    }

    /// Makes an empty volume, with a file system.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::create`].
    pub async fn create(&self, name: String, size_mib: f64) -> Result<()> {
        let size_mib = whole("sizeMib", size_mib, 1)?;
        self.with(move |store| store.create(&name, size_mib)).await
    }

    /// All volumes, by their names.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::list`].
    pub async fn list(&self) -> Result<Vec<VolumeInfo>> {
        self.with(|store| store.list()).await
    }

    /// What is known of a volume.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::inspect`].
    pub async fn inspect(&self, name: String) -> Result<VolumeInfo> {
        self.with(move |store| store.inspect(&name)).await
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::remove`].
    pub async fn remove(&self, name: String) -> Result<()> {
        self.with(move |store| store.remove(&name)).await
    }

    /// Removes what was left of volumes that were never finished, and if `all` is set
    /// every volume that no machine has; the names of these.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::prune`].
    pub async fn prune(&self, all: bool) -> Result<Vec<String>> {
        self.with(move |store| store.prune(all)).await
    }

    /// Grows a volume that no machine has.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::grow`].
    pub async fn grow(&self, name: String, size_mib: f64) -> Result<()> {
        let size_mib = whole("sizeMib", size_mib, 1)?;
        self.with(move |store| store.grow(&name, size_mib)).await
    }

    /// Copies what a volume holds to a file.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::export`].
    pub async fn export(&self, name: String, file: PathBuf) -> Result<()> {
        self.with(move |store| store.export(&name, file)).await
    }

    /// Makes a volume of what was exported.
    ///
    /// # Errors
    /// As [`supermachine::VolumeStore::import`].
    pub async fn import(&self, name: String, file: PathBuf) -> Result<()> {
        self.with(move |store| store.import(&name, file)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn volumes_are_made_looked_at_grown_copied_and_removed() {
        let name = format!("supermachine-volumes-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let store = VolumeStore::at(dir.clone());
        assert!(store.list().await.unwrap().is_empty());
        let one = || "one".to_owned();
        store.create(one(), 16.0).await.unwrap();
        let again = store.create(one(), 16.0).await.unwrap_err();
        assert_eq!((again.code, again.kind), ("volume", "configuration"));
        store.grow(one(), 32.0).await.unwrap();
        let file = dir.join("one.image");
        store.export(one(), file.clone()).await.unwrap();
        store.import("two".into(), file).await.unwrap();
        let sizes = store.list().await.unwrap().into_iter();
        let sizes: Vec<_> = sizes.map(|info| (info.name, info.size_bytes)).collect();
        assert_eq!(sizes, [("one".into(), 32 << 20), ("two".into(), 32 << 20)]);
        store.remove(one()).await.unwrap();
        assert!(store.inspect(one()).await.is_err());
        assert_eq!(store.prune(true).await.unwrap(), ["two"]);
        for bad in [0.0, -1.0, 0.5, f64::NAN] {
            let error = store.create(one(), bad).await.unwrap_err();
            assert_eq!(error.code, "invalid-argument", "{error}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
