//! Passwords typed by a person: never shown, never empty.

use crate::error::{CliError, CliResult};
use keystore::{PASSWORD_BYTES_MAX, Password};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// What to do where nobody can be asked.
const HOW_ELSE: &str =
    "there is no terminal to ask for the password on: pass --password-file FILE (mode 0600)";

/// The password in `file`, or else asked for.
pub fn password(file: Option<&Path>, what: &str) -> CliResult<Password> {
    match file {
        Some(file) => consensus_node::read_password(file).map_err(|error| CliError::new(error.to_string())),
        None => checked(&ask(&format!("Password of {what}: "))?),
    }
}

/// The same for a new keystore: what is typed is typed twice.
pub fn new_password(file: Option<&Path>) -> CliResult<Password> {
    if file.is_some() {
        return password(file, "");
    }
    let typed = ask("New password: ")?;
    let password = checked(&typed)?;
    if *ask("Again: ")? != *typed {
        return Err(CliError::new("the two passwords differ; nothing was written"));
    }
    Ok(password)
}

fn checked(text: &str) -> CliResult<Password> {
    Password::new(text).map_err(|error| CliError::new(error.to_string()))
}

/// A line from the terminal, which does not show it.
fn ask(question: &str) -> CliResult<Zeroizing<String>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| CliError::new(HOW_ELSE))?;
    let failed = CliError::while_trying("ask for a password");
    let line = ask_on(&mut terminal, question).map_err(failed)?;
    let text =
        String::from_utf8(line.to_vec()).map_err(|_| CliError::new("the password is not UTF-8 text"))?;
    Ok(Zeroizing::new(text))
}

fn ask_on(terminal: &mut File, question: &str) -> std::io::Result<Zeroizing<Vec<u8>>> {
    terminal.write_all(question.as_bytes())?;
    let shown = tcgetattr(&*terminal)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&*terminal, OptionalActions::Flush, &hidden)?;
    let line = read_line(terminal);
    restore(terminal, &shown)?;
    terminal.write_all(b"\n")?;
    line
}

fn restore(terminal: &File, shown: &Termios) -> std::io::Result<()> {
    Ok(tcsetattr(terminal, OptionalActions::Flush, shown)?)
}

/// Byte by byte, without a buffer that would keep a copy.
fn read_line(terminal: &mut File) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    let mut byte = Zeroizing::new([0]);
    while terminal.read(&mut *byte)? == 1 && byte[0] != b'\n' {
        if line.len() > PASSWORD_BYTES_MAX {
            return Err(std::io::Error::other(format!("more than {PASSWORD_BYTES_MAX} bytes")));
        }
        line.push(byte[0]);
    }
    Ok(line)
}
