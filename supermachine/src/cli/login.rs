//! `supermachine login` and `supermachine logout`.

use super::output;
use super::signals::Forwarder;
use super::terminal::HiddenInput;
use crate::Error;
use oci_pull::{ClientConfig, Kept, Secret};
use std::io::{self, BufRead, Read, Write};

/// Longest name or password.
const MAX_SECRET_BYTES: u64 = 64 << 10;
const DOCKER_HUB: &str = "docker.io";

#[derive(clap::Args)]
pub struct LoginArguments {
    /// User; asked for if it is not given
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Registry that may have any certificate, or no TLS; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// The registry
    #[arg(value_name = "HOST[:PORT]", default_value = DOCKER_HUB)]
    registry: String,
}

#[derive(clap::Args)]
pub struct LogoutArguments {
    /// The registry
    #[arg(value_name = "HOST[:PORT]", default_value = DOCKER_HUB)]
    registry: String,
}

/// Keeps credentials that the registry accepts.
pub fn login(arguments: &LoginArguments) -> Result<u8, Error> {
    // A signal puts the terminal back before it ends us.
    let _signals = Forwarder::install()?;
    let mut config = ClientConfig::from_environment()?;
    config.insecure.extend(arguments.insecure_registry.clone());
    let user = match &arguments.username {
        Some(user) => user.clone(),
        None if arguments.password_stdin => {
            return Err(Error::Unsuitable {
                what: "--password-stdin",
                needs: "--username as well",
            });
        }
        None => ask("Username: ")?,
    };
    let password = match arguments.password_stdin {
        true => {
            let mut text = String::new();
            let input = io::stdin().lock().take(MAX_SECRET_BYTES);
            read(input, |input| input.read_to_string(&mut text))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        false => {
            let hidden = HiddenInput::enter().map_err(Error::system("use the terminal"))?;
            if hidden.is_none() {
                return Err(Error::Unsuitable {
                    what: "login without a terminal",
                    needs: "--password-stdin",
                });
            }
            let password = ask("Password: ")?;
            output::complain("\n");
            password
        }
    };
    let kept = oci_pull::login(&config, &arguments.registry, &user, &Secret::new(password))?;
    report("kept", &kept)
}

/// Forgets them.
pub fn logout(arguments: &LogoutArguments) -> Result<u8, Error> {
    let config = ClientConfig::from_environment()?;
    let kept = oci_pull::logout(&config, &arguments.registry)?;
    report("removed", &kept)
}

fn report(done: &str, kept: &Kept) -> Result<u8, Error> {
    let text = match kept {
        Kept::File(path) => format!("{done} in {}", path.display()),
        Kept::Helper(name) => format!("{done} by the credential helper {name}"),
        _ => "nothing was kept".to_owned(),
    };
    output::print(&format!("{text}\n"))?;
    Ok(0)
}

/// A line from the user.
fn ask(prompt: &str) -> Result<String, Error> {
    output::complain(prompt);
    // Nobody is asked who cannot see it.
    let _ = io::stderr().flush();
    let mut line = String::new();
    let input = io::stdin().lock().take(MAX_SECRET_BYTES);
    read(input, |input| input.read_line(&mut line))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read<R>(mut input: R, how: impl FnOnce(&mut R) -> io::Result<usize>) -> Result<(), Error> {
    how(&mut input).map_err(Error::system("read standard input"))?;
    Ok(())
}
