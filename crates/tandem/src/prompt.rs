//! Passwords typed by a person: never shown, never empty, never half of what was meant.
//!
//! While it asks, the terminal hands every key over at once and makes no signal of any: so whatever ends the question,
//! Ctrl-C included, the terminal is first made what it was. Only a signal from elsewhere can end the process before.

use crate::error::{CliError, CliResult};
use keystore::{PASSWORD_BYTES_MAX, Password};
use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
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

/// How a question ended.
enum Answer {
    /// With a line.
    Line(Zeroizing<Vec<u8>>),
    /// With Ctrl-D, or with the terminal itself.
    Ended,
    /// With Ctrl-C or Ctrl-\.
    Interrupted,
}

/// A line from the terminal, which does not show it.
fn ask(question: &str) -> CliResult<Zeroizing<String>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| CliError::new(HOW_ELSE))?;
    let failed = CliError::while_trying("ask for a password");
    match ask_on(&mut terminal, question).map_err(failed)? {
        Answer::Line(line) => match std::str::from_utf8(&line) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(CliError::new("the password is not UTF-8 text")),
        },
        Answer::Ended => {
            Err(CliError::new("the input ended before the password was complete; nothing was written"))
        }
        Answer::Interrupted => {
            // What the terminal would have done by itself: a script that waits for this process ends as well.
            kill_current_process_group(Signal::INT).map_err(CliError::while_trying("end"))?;
            // Whoever has the signal ignored gets here.
            Err(CliError::new("interrupted; nothing was written"))
        }
    }
}

/// Whoever sees the question finds the terminal hidden already: nothing typed in answer is shown or lost.
fn ask_on(terminal: &mut File, question: &str) -> io::Result<Answer> {
    let keys = terminal.try_clone()?;
    let hidden = Hidden::new(terminal)?;
    (&*hidden.terminal).write_all(question.as_bytes())?;
    let answer = read_answer(keys, &hidden.shown)?;
    (&*hidden.terminal).write_all(b"\n")?;
    Ok(answer)
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    /// As it was before.
    shown: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let shown = tcgetattr(terminal)?;
        let mut modes = shown.clone();
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        let hidden = Self { terminal, shown };
        // What was typed before the question was not meant for it.
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(hidden)
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored, and needs not be.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.shown);
    }
}

/// Key by key, without a buffer that would keep a copy.
fn read_answer(mut keys: impl Read, shown: &Termios) -> io::Result<Answer> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSWORD_BYTES_MAX + 1));
    let mut key = Zeroizing::new([0]);
    // A code of 0 is a function that this terminal does not have.
    let is = |key: u8, code: SpecialCodeIndex| key != 0 && key == shown.special_codes[code];
    loop {
        match keys.read(&mut *key) {
            Ok(0) => return Ok(Answer::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match key[0] {
            b'\n' | b'\r' => return Ok(Answer::Line(line)),
            key if is(key, SpecialCodeIndex::VEOF) => return Ok(Answer::Ended),
            key if is(key, SpecialCodeIndex::VINTR) || is(key, SpecialCodeIndex::VQUIT) => {
                return Ok(Answer::Interrupted);
            }
            key if is(key, SpecialCodeIndex::VKILL) => line.clear(),
            key if is(key, SpecialCodeIndex::VERASE) || key == 0x08 || key == 0x7f => erase(&mut line),
            _ if line.len() >= PASSWORD_BYTES_MAX => {
                return Err(io::Error::other(format!("more than {PASSWORD_BYTES_MAX} bytes")));
            }
            key => line.push(key),
        }
    }
}

/// Takes one character back: in UTF-8, up to its first byte.
fn erase(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}
