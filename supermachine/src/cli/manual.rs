//! `supermachine completions` and `man`: the command line, described to shells and
//! to people. Both are made of what parses it, so that they say what is true.

use super::output;
use super::{Arguments as Whole, EXIT_HELP};
use crate::Error;
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct CompletionsArguments {
    /// Shell to complete for
    shell: clap_complete::Shell,
}

#[derive(clap::Args)]
pub struct ManArguments {
    /// Write the pages of all commands to this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["markdown", "command"])]
    dir: Option<PathBuf>,
    /// Print all commands as one Markdown text instead of a page
    #[arg(long, conflicts_with = "command")]
    markdown: bool,
    /// Command to print the page of, as `snapshot verify`; by default that of the
    /// tool
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints a script for a shell.
pub fn completions(arguments: &CompletionsArguments) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Whole::command(),
        "supermachine",
        &mut script,
    );
    output::print_bytes(&script)?;
    Ok(0)
}

/// Prints or writes pages.
pub fn man(arguments: &ManArguments) -> Result<u8, Error> {
    let mut whole = Whole::command();
    whole.build();
    if arguments.markdown {
        output::print_bytes(markdown(&whole).as_bytes())?;
        return Ok(0);
    }
    if let Some(dir) = &arguments.dir {
        std::fs::create_dir_all(dir).map_err(Error::host("cannot make", dir))?;
        for (name, command) in all(&whole) {
            let path = dir.join(format!("{}.1", name.replace(' ', "-")));
            std::fs::write(&path, page(command)?).map_err(Error::host("cannot write", &path))?;
        }
        return Ok(0);
    }
    let wanted = ["supermachine"]
        .into_iter()
        .chain(arguments.command.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ");
    let all = all(&whole);
    let Some((_, command)) = all.into_iter().find(|(name, _)| *name == wanted) else {
        return Err(Error::Unsuitable {
            what: "a manual page",
            needs: "the name of a command, as `supermachine help` lists them",
        });
    };
    output::print_bytes(&page(command)?)?;
    Ok(0)
}

/// The tool and its commands, by the words that call them.
fn all(whole: &Command) -> Vec<(String, &Command)> {
    fn add<'a>(name: &str, command: &'a Command, into: &mut Vec<(String, &'a Command)>) {
        into.push((name.to_owned(), command));
        for below in command.get_subcommands() {
            // `help` and its like describe what is described here.
            if !below.is_hide_set() && below.get_name() != "help" {
                add(&format!("{name} {}", below.get_name()), below, into);
            }
        }
    }
    let mut found = Vec::new();
    add("supermachine", whole, &mut found);
    found
}

fn page(command: &Command) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut text)
        .map_err(Error::system("write a manual page"))?;
    Ok(text)
}

/// Everything that `--help` says, command by command.
fn markdown(whole: &Command) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, command) in all(whole) {
        let _ = writeln!(text, "### {name}\n");
        if let Some(about) = command.get_about() {
            let _ = writeln!(text, "{about}.\n");
        }
        let usage = command.clone().render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
        let _ = writeln!(text, "```text\n{usage}\n```\n");
        let shown =
            |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
        let below = command
            .get_subcommands()
            .filter(|below| !below.is_hide_set());
        let below: Vec<&Command> = below.filter(|below| below.get_name() != "help").collect();
        if !below.is_empty() {
            let _ = writeln!(text, "| command | what it does |\n|---|---|");
            for below in below {
                let about = below.get_about().map(ToString::to_string);
                let alias: Vec<String> = below
                    .get_visible_aliases()
                    .map(|alias| format!(", `{alias}`"))
                    .collect();
                let _ = writeln!(
                    text,
                    "| `{}`{} | {} |",
                    below.get_name(),
                    alias.concat(),
                    cell(&about.unwrap_or_default())
                );
            }
            let _ = writeln!(text);
        }
        let mut arguments = command.get_arguments().filter(shown).peekable();
        if arguments.peek().is_some() {
            let _ = writeln!(text, "| option | meaning |\n|---|---|");
            for argument in arguments {
                let _ = writeln!(text, "| `{}` | {} |", spelling(argument), meaning(argument));
            }
            let _ = writeln!(text);
        }
    }
    let _ = writeln!(text, "### Exit status\n\n```text\n{EXIT_HELP}\n```");
    text
}

/// An option with its value, or the name of an argument.
fn spelling(argument: &Arg) -> String {
    let values: Vec<String> = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let value = values.join(" ");
    let long = argument.get_long().map(|long| format!("--{long}"));
    let alias = argument.get_visible_aliases().unwrap_or_default();
    let words = argument
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .chain(long)
        .chain(alias.into_iter().map(|alias| format!("--{alias}")))
        .collect::<Vec<_>>()
        .join(", ");
    match (words.is_empty(), value.is_empty()) {
        (true, _) => value,
        (false, true) => words,
        (false, false) => format!("{words} {value}"),
    }
}

fn meaning(argument: &Arg) -> String {
    let mut text = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let listed = |values: Vec<String>| values.join(", ");
    if argument.get_action().takes_values() {
        let possible = argument.get_possible_values();
        let possible = possible
            .iter()
            .map(|value| format!("`{}`", value.get_name()));
        let possible: Vec<String> = possible.collect();
        if !possible.is_empty() {
            let _ = write!(text, "; one of {}", listed(possible));
        }
        let defaults = argument.get_default_values().iter();
        let defaults: Vec<String> = defaults
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        if !defaults.is_empty() {
            let _ = write!(text, "; by default {}", listed(defaults));
        }
    }
    cell(&text)
}

/// Text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_has_a_page_and_a_meaning() {
        let mut whole = Whole::command();
        whole.build();
        whole.clone().debug_assert();
        let all = all(&whole);
        assert!(all.len() > 20, "{}", all.len());
        for (name, command) in all {
            assert!(
                command.get_about().is_some() || name == "supermachine",
                "{name}"
            );
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{name} {}",
                    argument.get_id()
                );
            }
            let page = String::from_utf8(page(command).unwrap()).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
        }
    }

    #[test]
    fn options_are_spelt_with_what_they_take() {
        let mut whole = Whole::command();
        whole.build();
        let text = markdown(&whole);
        for line in [
            "### supermachine snapshot verify",
            "| `-m, --memory <MIB>` |",
            "| `--vcpus, --cpus <N>` |",
            "one of `auto`, `hvf`, `soft`; by default `auto`",
        ] {
            assert!(text.contains(line), "no {line:?} in {text}");
        }
        // What is hidden is for nobody to read.
        assert!(!text.contains("--supervise"));
    }
}
