//! `USER[:GROUP]` resolved in the guest's own account files.

use exec_proto::{ErrorKind, Failure};

use super::failure::shortened;
use crate::sys::Credentials;

/// Who a command runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Ids.
    pub credentials: Credentials,
    /// Home directory.
    pub home: Vec<u8>,
}

/// One usable line of `/etc/passwd`.
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    // The highest id means "leave unchanged" to the kernel.
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// Colon-separated fields; lines with too few are skipped, as libc does.
fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    passwd.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next()?;
        fields.next()?;
        let uid = number(fields.next()?)?;
        let gid = number(fields.next()?)?;
        fields.next()?;
        let home = fields.next()?;
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

/// Name, id and member list of each group.
fn groups(group: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    group.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next()?;
        fields.next()?;
        let gid = number(fields.next()?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn unknown(what: &str, name: &[u8]) -> Failure {
    Failure {
        kind: ErrorKind::UnknownUser,
        errno: 0,
        message: format!("no such {what}: {}", shortened(name)),
    }
}

/// Most supplementary groups the kernel takes (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// Resolves `spec` against the contents of `/etc/passwd` and `/etc/group`. A
/// name wins over a number; a number needs no entry. A group that is named
/// replaces both the account's own and its supplementary groups.
///
/// # Errors
/// [`ErrorKind::UnknownUser`] for a name that has no entry.
pub fn resolve(spec: &[u8], passwd: &[u8], group: &[u8]) -> Result<Identity, Failure> {
    let mut parts = spec.splitn(2, |b| *b == b':');
    let user = parts.next().unwrap_or_default();
    let group_name = parts.next().filter(|g| !g.is_empty());
    let user: &[u8] = if user.is_empty() { b"0" } else { user };
    let account = accounts(passwd)
        .find(|a| a.name == user)
        .or_else(|| accounts(passwd).find(|a| Some(a.uid) == number(user)));
    let mut identity = match &account {
        Some(account) => Identity {
            credentials: Credentials {
                uid: account.uid,
                gid: account.gid,
                groups: Vec::new(),
            },
            home: account.home.to_vec(),
        },
        None => Identity {
            credentials: Credentials {
                uid: number(user).ok_or_else(|| unknown("user", user))?,
                gid: 0,
                groups: Vec::new(),
            },
            home: Vec::new(),
        },
    };
    if let Some(wanted) = group_name {
        identity.credentials.gid = groups(group)
            .find(|(name, ..)| *name == wanted)
            .map(|(_, gid, _)| gid)
            .or_else(|| number(wanted))
            .ok_or_else(|| unknown("group", wanted))?;
    } else if let Some(account) = account {
        identity.credentials.groups = groups(group)
            .filter(|(.., members)| members.split(|b| *b == b',').any(|m| m == account.name))
            .map(|(_, gid, _)| gid)
            .take(MAX_GROUPS)
            .collect();
    }
    if identity.home.is_empty() {
        identity.home = b"/".to_vec();
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        broken line\n\
        www:x:33:33::/var/www:/bin/false\n\
        big:x:4294967295:1::/:\n\
        1000:x:5:6::/odd:\n\
        app:x:1000:100:App:/home/app:/bin/sh";
    const GROUP: &[u8] =
        b"root:x:0:\nwww:x:33:\naudio:x:29:app,www\nvideo:x:44:www,app\nx:x:bad:app\n";

    fn ids(spec: &str) -> (u32, u32, Vec<u32>, String) {
        let identity = resolve(spec.as_bytes(), PASSWD, GROUP).unwrap();
        let c = identity.credentials;
        let home = String::from_utf8(identity.home).unwrap();
        (c.uid, c.gid, c.groups, home)
    }

    #[test]
    fn name_brings_its_groups_and_home() {
        assert_eq!(
            ids("app"),
            (1000, 100, vec![29, 44], "/home/app".to_owned())
        );
        assert_eq!(ids("root"), (0, 0, vec![], "/root".to_owned()));
        assert_eq!(ids(""), (0, 0, vec![], "/root".to_owned()));
    }

    #[test]
    fn explicit_group_replaces_all_groups() {
        assert_eq!(ids("app:audio"), (1000, 29, vec![], "/home/app".to_owned()));
        assert_eq!(ids("app:77"), (1000, 77, vec![], "/home/app".to_owned()));
        assert_eq!(ids("www:").0, 33);
    }

    #[test]
    fn numeric_user_needs_no_entry() {
        assert_eq!(ids("4242"), (4242, 0, vec![], "/".to_owned()));
        assert_eq!(ids("4242:33"), (4242, 33, vec![], "/".to_owned()));
        assert_eq!(ids("33").3, "/var/www");
    }

    #[test]
    fn name_made_of_digits_wins_over_the_number() {
        assert_eq!(ids("1000").0, 5);
    }

    #[test]
    fn unknown_names_are_refused() {
        for spec in ["nobody", "root:nogroup", "big", "-1", "4294967295"] {
            let failure = resolve(spec.as_bytes(), PASSWD, GROUP).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::UnknownUser, "{spec}");
        }
    }
}
