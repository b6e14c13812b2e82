//! Passwords asked for at a terminal: a real one, a pseudo-terminal, with this test as the person before it.
#![allow(clippy::unwrap_used)]

use keystore::{Keystore, Password};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

const OWNER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// Where the process finds its terminal, and what it is told; only the processes of these tests have it.
const TERMINAL: &str = "TANDEM_TEST_TERMINAL";
const ARGUMENTS: &str = "TANDEM_TEST_ARGUMENTS";

/// Bound of every wait: nothing is timed, nothing waits for ever.
const PATIENCE: Duration = Duration::from_secs(180);

const INTERRUPT: i32 = rustix::process::Signal::INT.as_raw();

/// Keys as a terminal sends them.
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_U: &str = "\x15";
const CTRL_BACKSLASH: &str = "\x1c";
const BACKSPACE: &str = "\x7f";

/// Becomes `tandem`, with a terminal of its own or with none.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn tandem_at_a_terminal() {
    let (Ok(terminal), Ok(arguments)) = (std::env::var(TERMINAL), std::env::var(ARGUMENTS)) else { return };
    rustix::process::setsid().unwrap();
    let mut tandem = Command::new(env!("CARGO_BIN_EXE_tandem"));
    tandem.args(arguments.split_whitespace());
    if !terminal.is_empty() {
        // The first terminal that the leader of a session opens is its own.
        let terminal = File::options().read(true).write(true).open(terminal).unwrap();
        tandem.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
    }
    panic!("{}", tandem.exec());
}

fn start(home: &Path, terminal: &str, arguments: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "tandem_at_a_terminal"]).current_dir(home);
    command.env(TERMINAL, terminal).env(ARGUMENTS, arguments).stdin(Stdio::null());
    command
}

/// `tandem` at a terminal, and the other end of that.
struct Session {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    /// Keeps the terminal in being, and tells its modes, when the process is gone.
    terminal: OwnedFd,
    before: Termios,
    end: Receiver<ExitStatus>,
}

impl Session {
    fn start(home: &Path, arguments: &str) -> Self {
        Self::start_and_look_until(home, arguments, "\0 is never shown")
    }

    /// Looks at the screen no longer than until it shows `last`.
    fn start_and_look_until(home: &Path, arguments: &str, last: &'static str) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&*name, flags, Mode::empty()).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        assert!(before.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
        let mut process =
            start(home, &name, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let keyboard = File::from(keyboard);
        let (mut output, (to_screen, screen)) = (keyboard.try_clone().unwrap(), channel());
        std::thread::spawn(move || {
            let (mut all, mut bytes) = (Vec::new(), [0; 1024]);
            // Reading ends with an error when nobody has the terminal any more.
            while !all.ends_with(last.as_bytes())
                && let Ok(count @ 1..) = output.read(&mut bytes)
            {
                all.extend_from_slice(&bytes[..count]);
                let _ = to_screen.send(bytes[..count].to_vec());
            }
        });
        let (at_end, end) = channel();
        std::thread::spawn(move || at_end.send(process.wait().unwrap()));
        Self { keyboard, screen, seen: String::new(), terminal, before, end }
    }

    /// Reads the screen until it shows a question, which comes with the terminal hidden.
    fn asked(&mut self, question: &str) {
        while !self.seen.ends_with(question) {
            let more = self.screen.recv_timeout(PATIENCE);
            let more = more.unwrap_or_else(|_| panic!("{question:?} is never asked: {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&more);
        }
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        assert!(!modes.contains(LocalModes::ECHO), "{question:?} is asked on a terminal that shows keys");
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Answers a question, and the next one.
    fn answers(&mut self, questions_and_keys: &[(&str, &str)]) {
        for (question, keys) in questions_and_keys {
            self.asked(question);
            self.types(keys);
        }
    }

    /// Waits for the end of the process; gives how it ended and everything it showed. The terminal must be as it was.
    fn ends(mut self) -> (ExitStatus, String) {
        let status = self.end.recv_timeout(PATIENCE).expect("the process never ends");
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes, "{}", self.seen);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(format!("{:?}", after.special_codes), format!("{:?}", self.before.special_codes));
        drop((self.terminal, self.keyboard));
        while let Ok(more) = self.screen.recv_timeout(PATIENCE) {
            self.seen += &String::from_utf8_lossy(&more);
        }
        (status, self.seen)
    }
}

/// Makes a key with these answers; how that ended, and what was shown.
fn new_key_with(home: &Path, answers: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut session = Session::start(home, &format!("keys new --kdf pbkdf2 --address {OWNER}"));
    session.answers(answers);
    session.ends()
}

/// Whether the keystore in a directory opens with a password.
fn opens_with(home: &Path, password: &str) -> bool {
    let keystore = Keystore::parse(&std::fs::read(home.join("validator.json")).unwrap()).unwrap();
    keystore.decrypt(&Password::new(password).unwrap()).is_ok()
}

fn is_empty(home: &Path) -> bool {
    std::fs::read_dir(home).unwrap().next().is_none()
}

#[test]
fn a_password_that_is_typed_is_never_shown_and_opens_what_was_made_with_it() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    let answers = [("New password: ", "pässword one\n"), ("Again: ", "pässword one\r")];
    let (status, shown) = new_key_with(home, &answers);
    assert!(status.success() && shown.contains("keystore in validator.json"), "{shown}");
    assert!(!shown.contains("ssword one"), "{shown}");
    assert!(opens_with(home, "pässword one"));

    let export = format!("keys export validator.json --address {OWNER}");
    let question = "Password of validator.json: ";
    let mut session = Session::start(home, &export);
    session.answers(&[(question, "pässword one\n")]);
    let (status, shown) = session.ends();
    assert!(status.success() && shown.contains("proof_of_possession"), "{shown}");
    let mut session = Session::start(home, &export);
    session.answers(&[(question, "password one\n")]);
    let (status, shown) = session.ends();
    assert_eq!(status.code(), Some(1));
    assert!(shown.contains("wrong password") && !shown.contains("password one"), "{shown}");
}

#[test]
fn what_is_taken_back_while_typing_is_no_part_of_the_password() {
    let home = TempDir::new().unwrap();
    let typed =
        format!("nonsense{CTRL_U}sec{BACKSPACE}{BACKSPACE}{BACKSPACE}{BACKSPACE}öä{BACKSPACE}lx\x08\n");
    let (status, shown) = new_key_with(home.path(), &[("New password: ", &typed), ("Again: ", "öl\n")]);
    assert!(status.success(), "{shown}");
    assert!(opens_with(home.path(), "öl") && !opens_with(home.path(), "oel"));
}

#[test]
fn two_passwords_that_differ_and_empty_ones_are_refused_and_nothing_is_written() {
    let home = TempDir::new().unwrap();
    for (answers, reason) in [
        (
            &[("New password: ", "one\n"), ("Again: ", "two\n")][..],
            "the two passwords differ; nothing was written",
        ),
        (
            &[("New password: ", "one\n"), ("Again: ", "\n")][..],
            "the two passwords differ; nothing was written",
        ),
        (&[("New password: ", "\n")][..], "the password is empty"),
    ] {
        let (status, shown) = new_key_with(home.path(), answers);
        assert_eq!(status.code(), Some(1), "{shown}");
        assert!(shown.contains(reason) && is_empty(home.path()), "{shown}");
    }
}

#[test]
fn the_end_of_input_at_any_question_is_refused_and_nothing_is_written() {
    let home = TempDir::new().unwrap();
    let half = &*format!("half{CTRL_D}");
    for answers in [
        &[("New password: ", CTRL_D)][..],
        &[("New password: ", half)][..],
        &[("New password: ", "half\n"), ("Again: ", CTRL_D)][..],
        // Not even where it would have been complete.
        &[("New password: ", "half\n"), ("Again: ", half)][..],
    ] {
        let (status, shown) = new_key_with(home.path(), answers);
        assert_eq!(status.code(), Some(1), "{shown}");
        assert!(shown.contains("the input ended") && is_empty(home.path()), "{shown}");
    }
}

#[test]
fn ctrl_c_at_any_question_ends_the_process_as_everywhere_and_nothing_is_written() {
    let home = TempDir::new().unwrap();
    let half = &*format!("half{CTRL_C}");
    for answers in [
        &[("New password: ", CTRL_C)][..],
        &[("New password: ", half)][..],
        &[("New password: ", CTRL_BACKSLASH)][..],
        &[("New password: ", "half\n"), ("Again: ", CTRL_C)][..],
    ] {
        let (status, shown) = new_key_with(home.path(), answers);
        if interrupts_are_ignored() {
            assert_eq!(status.code(), Some(1), "{shown}");
            assert!(shown.contains("interrupted; nothing was written"), "{shown}");
        } else {
            assert_eq!(status.signal(), Some(INTERRUPT), "{shown}");
        }
        assert!(is_empty(home.path()), "{shown}");
    }
}

/// Whether who started these tests has them ignore interrupts, as shells do for what they run in the background. What
/// the tests start inherits that.
fn interrupts_are_ignored() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() >> (INTERRUPT - 1) & 1 == 1
}

#[test]
fn a_password_longer_than_any_is_refused_with_the_limit_while_it_is_typed() {
    let home = TempDir::new().unwrap();
    let endless = "x".repeat(keystore::PASSWORD_BYTES_MAX + 1);
    let (status, shown) = new_key_with(home.path(), &[("New password: ", &endless)]);
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(shown.contains("more than 4096 bytes") && is_empty(home.path()), "{shown}");
}

#[test]
fn a_terminal_that_hangs_up_leaves_no_file() {
    let home = TempDir::new().unwrap();
    let arguments = format!("keys new --kdf pbkdf2 --address {OWNER}");
    let mut session = Session::start_and_look_until(home.path(), &arguments, "Again: ");
    session.answers(&[("New password: ", "half\n")]);
    session.asked("Again: ");
    // The terminal hangs up when nobody has its other end; whoever looked at the screen has gone.
    let Session { keyboard, terminal, end, .. } = session;
    drop((keyboard, terminal));
    let status = end.recv_timeout(PATIENCE).expect("the process never ends");
    assert!(!status.success() && is_empty(home.path()), "{status}");
}

#[test]
fn where_there_is_no_terminal_the_answer_says_what_to_pass_instead() {
    let home = TempDir::new().unwrap();
    let arguments = format!("keys new --kdf pbkdf2 --address {OWNER}");
    let output = start(home.path(), "", &arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("--password-file FILE") && is_empty(home.path()), "{errors}");
}
