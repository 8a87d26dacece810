//! `cargo xtask services`: servers of Debian as workloads of their images, captured when
//! they listen, copied, and asked by their clients. Too large for the tests: some need a
//! gigabyte of packages and minutes of preparation. Two of them are tests, too.

use crate::packages::{self, SERVICE_CLIENTS};
use crate::{assets, guest_image, test};
use anyhow::{Result, bail};

/// A service and the packages of its image.
const SERVICES: &[(&str, &[&str])] = &[
    ("nginx", &["nginx-light", "curl"]),
    ("redis", &["redis-server", "redis-tools"]),
    ("memcached", &["memcached"]),
    ("postgresql", &["postgresql-15", "util-linux"]),
    ("apache2", &["apache2-bin"]),
    ("mariadb", &["mariadb-server", "mariadb-server-core"]),
    ("python3", &["python3"]),
    ("nodejs", &["nodejs"]),
    ("openjdk", &["openjdk-17-jdk-headless"]),
];

pub fn run(arguments: &[String]) -> Result<()> {
    let is_wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|word| word == name);
    for word in arguments {
        if !SERVICES.iter().any(|(name, _)| name == word) {
            let names: Vec<&str> = SERVICES.iter().map(|(name, _)| *name).collect();
            bail!("no service {word}; there are {}", names.join(", "));
        }
    }
    packages::ensure(&[&SERVICE_CLIENTS])?;
    assets::ensure()?;
    let mut words = Vec::new();
    for (name, packages) in SERVICES.iter().filter(|(name, _)| is_wanted(name)) {
        let layout = guest_image::ensure_with(name, packages)?;
        words.push(format!("{name}={}", layout.display()));
    }
    test::program("services", words)
}
