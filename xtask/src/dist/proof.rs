//! That what was made can be installed: each archive as a stranger would, in a system
//! that has nothing of this one and no network.
//!
//! One system is made by debootstrap and stays as it is. What a check writes goes into an
//! overlay of its own, in namespaces of its own, by a user who is not root.

use super::Dist;
use crate::{guest_image, packages, process, workspace};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes systems.
const DEBOOTSTRAP: packages::Set = packages::Set {
    purpose: "installing packages in a system of their own",
    names: &["debootstrap"],
};
/// What a stranger's system has beside what every Debian has.
const INCLUDED: &str = "ca-certificates,nodejs,python3-venv";
/// Raised when the system is made in another way.
const SYSTEM_VERSION: &str = "1";
/// npm, of a version that works with the oldest Node that the package promises. Debian's
/// takes four hundred packages more.
const NPM: (&str, &str) = ("npm", "10.9.2");
const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a check finds what it installs.
const GIVEN: &str = "stranger";

/// Enters the system `$1` over the directory `$2` and runs a script of it.
const ENTER: &str = r#"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/merged"
mount --rbind /dev "$2/merged/dev"
mount -t proc proc "$2/merged/proc"
exec chroot "$2/merged" env -i "$3" sh -eu "/stranger/check"
"#;

/// The start of each script: `as_user` runs what it reads, in a home directory, and
/// `nameless` fails if something in a place names the checkout that it was made of.
const BEGIN: &str = r#"
as_user() {
    cd /home/user
    setpriv --reuid=user --regid=user --init-groups env -i HOME=/home/user "$PATH_SETTING" sh -eu
}
nameless() {
    if grep -rlFf /stranger/checkout "$@"; then
        echo 'these files name the checkout that they were made of' >&2
        exit 1
    fi
}
"#;

const TARBALL: &str = r#"
as_user <<'END'
tar -xf /stranger/supermachine-*.tar.gz
END
nameless /home/user
as_user <<'END'
cd supermachine-*
bin/supermachine doctor >/dev/null
for file in LICENSE NOTICE NOTICE.kernel THIRD-PARTY sbom.cdx.json kernel-source/source-version; do
    test -s "share/doc/supermachine/$file"
done
test -s share/man/man1/supermachine.1
bin/supermachine run oci:/stranger/image echo hello
END
"#;

const DEB: &str = r#"
dpkg -i /stranger/*.deb >/dev/null
dpkg --verify supermachine
nameless /usr/bin/supermachine* /usr/share/supermachine /usr/share/doc/supermachine
as_user <<'END'
supermachine doctor >/dev/null
supermachine run oci:/stranger/image echo hello
END
dpkg -P supermachine >/dev/null
left=$(find /usr /etc /var -name '*supermachine*')
test -z "$left" || { echo "left behind: $left" >&2; exit 1; }
"#;

const NODE: &str = r#"
as_user <<'END'
mkdir app
cd app
echo '{"private": true}' > package.json
node /stranger/npm/bin/npm-cli.js install --offline --no-audit --no-fund /stranger/*.tgz >/dev/null
if node /stranger/first.mjs 2>/dev/null; then
    echo 'it works where nothing is installed' >&2
    exit 1
fi
cp /stranger/first.mjs .
END
nameless /home/user/app/node_modules/@supermachine
as_user <<'END'
cd app
node first.mjs
END
"#;

const PYTHON: &str = r#"
as_user <<'END'
python3 -m venv app
app/bin/python -m pip install --quiet --no-index /stranger/*.whl
END
nameless /home/user/app/lib/python3*/site-packages/supermachine*
as_user <<'END'
app/bin/python /stranger/first.py
END
"#;

/// One archive, or more, what is done with it, and what that says at its end.
struct Check {
    name: &'static str,
    /// How names of its archives end.
    archives: &'static str,
    script: &'static str,
    says: &'static str,
}

const CHECKS: [Check; 4] = [
    Check {
        name: "tarball",
        archives: ".tar.gz",
        script: TARBALL,
        says: "hello",
    },
    Check {
        name: "Debian package",
        archives: ".deb",
        script: DEB,
        says: "hello",
    },
    Check {
        name: "npm packages",
        archives: ".tgz",
        script: NODE,
        says: "0 hello",
    },
    Check {
        name: "wheel",
        archives: ".whl",
        script: PYTHON,
        says: "0 b'hello\\n'",
    },
];

/// Installs everything.
pub fn check(dist: &Dist) -> Result<()> {
    ensure!(
        dist.out.join("SHA256SUMS").is_file(),
        "nothing is there to install: run cargo xtask dist first"
    );
    process::shown(
        Command::new("sha256sum")
            .args(["--quiet", "-c", "SHA256SUMS"])
            .current_dir(&dist.out),
    )?;
    let base = system()?;
    for check in &CHECKS {
        let own = Own::make(workspace::target_dir()?.join("dist-check"))?;
        give(dist, check, &own.0.join("upper").join(GIVEN))?;
        let said = enter(&base, &own.0)
            .with_context(|| format!("installing the {} as a stranger", check.name))?;
        ensure!(
            said.trim() == check.says,
            "the {}: installed, it says {said:?} and not {:?}",
            check.name,
            check.says
        );
        eprintln!("the {}: installed, and a guest ran", check.name);
    }
    Ok(())
}

/// A Debian as it is fresh from its archive, with a user.
fn system() -> Result<PathBuf> {
    let base = workspace::target_dir()?.join(format!("dist-system-{SYSTEM_VERSION}"));
    let complete = base.join("complete");
    if complete.is_file() {
        return Ok(base);
    }
    packages::ensure(&[&DEBOOTSTRAP])?;
    process::shown(packages::root_command("rm")?.arg("-rf").arg(&base))?;
    let release = Command::new("sh")
        .args(["-c", ". /etc/os-release; echo $VERSION_CODENAME $ID"])
        .output()?;
    let release = String::from_utf8_lossy(&release.stdout).into_owned();
    let (codename, id) = release.trim().split_once(' ').context("which release?")?;
    let mut make = packages::root_command("debootstrap")?;
    make.args(["--variant=minbase", "--include", INCLUDED]);
    if id == "ubuntu" {
        make.arg("--components=main,universe");
    }
    make.arg(codename).arg(&base).args(mirror()?);
    process::output(&mut make)?;
    let mut user = packages::root_command("chroot")?;
    process::output(user.arg(&base).args(["useradd", "--create-home", "user"]))?;
    process::output(packages::root_command("touch")?.arg(&complete))?;
    Ok(base)
}

/// Where this host's packages come from, so that the system's come from there too.
fn mirror() -> Result<Option<String>> {
    let uris = packages::lists("$(REPO_URI)")?;
    let mut uris = uris.lines();
    Ok(uris
        .find(|uri| uri.starts_with("http") && !uri.contains("security"))
        .map(str::to_owned))
}

/// Puts what a check needs where it looks for it.
fn give(dist: &Dist, check: &Check, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    let mut archives = 0;
    for name in super::names(&dist.out)? {
        if name.ends_with(check.archives) {
            super::put(&dist.out.join(&name), &to.join(&name))?;
            archives += 1;
        }
    }
    ensure!(archives > 0, "there is no {}", check.name);
    let copy = |from: &Path, name: &str| {
        let mut copy = Command::new("cp");
        process::shown(copy.arg("-rL").arg(from).arg(to.join(name)))
    };
    copy(&guest_image::busybox()?, "image")?;
    copy(&packages::from_npm(NPM.0, NPM.1)?, "npm")?;
    let readme = |package: &str, language: &str| {
        let path = dist.root.join(package).join("README.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        first_program(&text, language).with_context(|| path.display().to_string())
    };
    fs::write(to.join("first.mjs"), readme("node", "js")?)?;
    fs::write(to.join("first.py"), readme("python", "python")?)?;
    // Where it was made, and whose cargo it was made with.
    let mut places = vec![dist.root.display().to_string()];
    if let Some(home) = std::env::home_dir() {
        places.push(home.join(".cargo").display().to_string());
    }
    fs::write(to.join("checkout"), places.join("\n") + "\n")?;
    fs::write(
        to.join("check"),
        format!("PATH_SETTING={PATH}\n{BEGIN}\n{}", check.script),
    )?;
    // Whoever made it: what is given can be read by all.
    process::shown(Command::new("chmod").args(["-R", "a+rX"]).arg(to))
}

/// The first program of a README, with an image that is there without a network.
fn first_program(readme: &str, language: &str) -> Result<String> {
    let fence = format!("```{language}\n");
    let (_, rest) = readme.split_once(&fence).context("no program in it")?;
    let (program, _) = rest.split_once("```").context("a program without an end")?;
    ensure!(
        program.contains("alpine:latest"),
        "its first program has another image than alpine:latest"
    );
    Ok(program.replace("alpine:latest", &format!("oci:/{GIVEN}/image")))
}

/// Runs the script of a check; the last line that it wrote something on.
fn enter(base: &Path, own: &Path) -> Result<String> {
    let said = process::output(
        packages::root_command("unshare")?
            .args([
                "--mount",
                "--net",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["sh", "-euc", ENTER, "enter"])
            .args([base, own])
            .arg(PATH),
    )?;
    let mut lines = said.lines().rev();
    Ok(lines
        .find(|line| !line.is_empty())
        .unwrap_or_default()
        .to_owned())
}

/// A directory that root may write to, for the time of a check.
struct Own(PathBuf);

impl Own {
    fn make(path: PathBuf) -> Result<Self> {
        let own = Self(path);
        own.remove();
        for name in ["upper", "work", "merged"] {
            let dir = own.0.join(name);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        Ok(own)
    }

    fn remove(&self) {
        if let Ok(mut rm) = packages::root_command("rm") {
            let _ = process::shown(rm.arg("-rf").arg(&self.0));
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_program_of_a_readme_gets_the_image_that_is_there() {
        let readme = "# x\n```sh\nnpm i\n```\n```js\nbuild('alpine:latest')\n```\n```js\nno\n```\n";
        assert_eq!(
            first_program(readme, "js").unwrap(),
            "build('oci:/stranger/image')\n"
        );
        assert!(first_program(readme, "python").is_err());
        assert!(first_program("```js\nbuild('x')\n```", "js").is_err());
    }
}
