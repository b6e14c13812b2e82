//! `tandem keys`: validator keys. The secret file is for the node alone; the public file goes to whoever makes the
//! genesis.

use crate::error::{CliError, CliResult};
use crate::{files, genesis, prompt, protection};
use crypto::{PublicKey, SecretKey, Signature};
use keystore::Kdf;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use types::genesis::GenesisValidator;
use types::{Address, Stake};

/// Stake of a validator unless told otherwise: one million coins.
pub const DEFAULT_STAKE: u128 = 1_000_000 * 1_000_000_000_000_000_000;

/// Subcommands of `tandem keys`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a new validator key.
    #[command(
        after_help = "Examples:\n  tandem keys new --out validator.json --password-file password --address \
        0x70997970C51812dc3A010C7d01b50e0d17dc79C8\n  tandem keys new --plain --address 0x7099...\n\nWrites \
        validator.json (secret, mode 0600), a keystore (EIP-2335), and validator.pub.json. On a terminal the password is \
        asked for. Exit codes: 0 written, 1 refused, 2 wrong usage"
    )]
    New {
        /// Where to write the secret key file. An existing file is never replaced.
        #[arg(long, default_value = "validator.json")]
        out: PathBuf,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        storage: Storage,
    },
    /// Store an existing key: a keystore of any staking tool, or 32 bytes of hex from standard input.
    #[command(
        after_help = "Examples:\n  tandem keys import --keystore keystore.json --keystore-password-file old \
        --password-file new --address 0x7099...\n  tandem keys import --plain --address 0x7099... < secret.hex\n\nA key \
        must never be used by two nodes: both would be slashed. Bring its history along with `tandem keys protection \
        export` and `import`. Exit codes: 0 written, 1 refused, 2 wrong usage"
    )]
    Import {
        /// Where to write the secret key file. An existing file is never replaced.
        #[arg(long, default_value = "validator.json")]
        out: PathBuf,
        /// The keystore to import. Without it the secret is read from standard input.
        #[arg(long)]
        keystore: Option<PathBuf>,
        /// File with that keystore's password, mode 0600; asked for on a terminal without it.
        #[arg(long, requires = "keystore")]
        keystore_password_file: Option<PathBuf>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        storage: Storage,
    },
    /// Print the public file of a key, for the genesis.
    #[command(
        after_help = "Example:\n  tandem keys export validator.json --password-file password --address 0x7099... > \
        validator.pub.json\n\nIt holds a proof that the secret is known, so a keystore's password is needed. Exit \
        codes: 0 printed, 1 unreadable, 2 wrong usage"
    )]
    Export {
        /// The secret key file.
        file: PathBuf,
        /// File with the keystore's password, mode 0600; asked for on a terminal without it.
        #[arg(long)]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Show what a key file says; with a password file, also whether the password opens it.
    #[command(
        after_help = "Example:\n  tandem keys inspect validator.json\n\nExit codes: 0 shown, 1 unreadable or wrong \
        password, 2 wrong usage"
    )]
    Inspect {
        /// The secret key file.
        file: PathBuf,
        /// File with the keystore's password, mode 0600.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
    /// List the key files in a directory.
    #[command(
        after_help = "Example:\n  tandem keys list ./devnet/node-0\n\nExit codes: 0 listed, 1 unreadable, 2 wrong \
        usage"
    )]
    List {
        /// Where to look.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// What keeps a stopped node's key from signing: export, import, accept a restored directory, clear an alarm.
    #[command(subcommand, after_help = "Example:\n  tandem keys protection status --dir node")]
    Protection(protection::Command),
}

/// How a secret key is stored.
#[derive(Clone, Debug, clap::Args)]
pub struct Storage {
    /// File with the new keystore's password, mode 0600; asked for on a terminal without it.
    #[arg(long, conflicts_with = "plain")]
    password_file: Option<PathBuf>,
    /// Key derivation of the keystore.
    #[arg(long, value_enum, default_value_t = KdfName::Scrypt)]
    kdf: KdfName,
    /// Store the key unencrypted: for development chains.
    #[arg(long)]
    plain: bool,
}

/// Key derivation functions of EIP-2335.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KdfName {
    /// Memory-hard: 256 MiB and about a second at every start.
    Scrypt,
    /// Little memory.
    Pbkdf2,
}

/// What the public file says beside the key.
#[derive(Clone, Debug, clap::Args)]
pub struct Owner {
    /// Account that owns the validator and earns its fees.
    #[arg(long)]
    address: Address,
    /// Stake in wei.
    #[arg(long, default_value_t = DEFAULT_STAKE)]
    stake: u128,
}

/// The public file of a validator: an entry of the genesis.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKeyFile {
    address: Address,
    public_key: PublicKey,
    proof_of_possession: Signature,
    stake: Stake,
}

impl PublicKeyFile {
    fn new(key: &SecretKey, owner: &Owner) -> Self {
        let GenesisValidator { address, public_key, proof_of_possession, stake } =
            genesis::validator(key, owner.address, Stake::new(owner.stake));
        Self { address, public_key, proof_of_possession, stake }
    }

    /// Reads a public file.
    pub fn load(path: &Path) -> CliResult<Self> {
        serde_json::from_str(&files::read_text(path)?).map_err(|error| {
            CliError::new(format!("{} is no public validator file: {error}", path.display()))
        })
    }

    /// The genesis entry.
    pub fn into_validator(self) -> GenesisValidator {
        let Self { address, public_key, proof_of_possession, stake } = self;
        GenesisValidator { address, public_key, proof_of_possession, stake }
    }

    fn json(&self) -> CliResult<String> {
        serde_json::to_string_pretty(self)
            .map(|json| json + "\n")
            .map_err(CliError::while_trying("write JSON"))
    }
}

/// Runs `tandem keys`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::New { out, owner, storage } => store(out, &SecretKey::generate(), owner, storage),
        Command::Import { out, keystore, keystore_password_file, owner, storage } => {
            let key = match keystore {
                Some(file) => load(file, keystore_password_file.as_deref())?,
                None => read_secret()?,
            };
            store(out, &key, owner, storage)
        }
        Command::Export { file, password_file, owner } => {
            print!("{}", PublicKeyFile::new(&load(file, password_file.as_deref())?, owner).json()?);
            Ok(())
        }
        Command::Inspect { file, password_file } => inspect(file, password_file.as_deref()),
        Command::List { dir } => list(dir),
        Command::Protection(command) => protection::run(command),
    }
}

fn store(out: &Path, key: &SecretKey, owner: &Owner, storage: &Storage) -> CliResult {
    let public_path = out.with_extension("pub.json");
    if let Some(there) = [out, public_path.as_path()].into_iter().find(|path| path.exists()) {
        return Err(CliError::new(format!("{} exists and is not replaced", there.display())));
    }
    let failed = |error: consensus_node::Error| CliError::new(error.to_string());
    if storage.plain {
        consensus_node::write_key(out, key).map_err(failed)?;
    } else {
        let password = prompt::new_password(storage.password_file.as_deref())?;
        let kdf = match storage.kdf {
            KdfName::Scrypt => Kdf::scrypt(),
            KdfName::Pbkdf2 => Kdf::pbkdf2(),
        };
        let kdf = kdf.map_err(|error| CliError::new(error.to_string()))?;
        consensus_node::write_keystore(out, key, &password, kdf).map_err(failed)?;
    }
    let public = PublicKeyFile::new(key, owner);
    files::write_new(&public_path, public.json()?.as_bytes(), 0o644)?;
    println!("{}", public.public_key);
    let kind = if storage.plain { "plain secret key" } else { "keystore" };
    eprintln!("{kind} in {}, public file in {}", out.display(), public_path.display());
    Ok(())
}

/// A key of either kind; the password of a keystore is asked for when no file has it.
pub fn load(path: &Path, password_file: Option<&Path>) -> CliResult<SecretKey> {
    let failed = |error: consensus_node::Error| CliError::new(error.to_string());
    match consensus_node::read_keystore(path).map_err(failed)? {
        Some(keystore) => {
            let password = prompt::password(password_file, &path.display().to_string())?;
            consensus_node::open_keystore(&keystore, &password)
                .map_err(|problem| CliError::new(format!("{}: {problem}", path.display())))
        }
        None => consensus_node::load_key(path).map_err(failed),
    }
}

fn inspect(path: &Path, password_file: Option<&Path>) -> CliResult {
    let failed = |error: consensus_node::Error| CliError::new(error.to_string());
    let Some(keystore) = consensus_node::read_keystore(path).map_err(failed)? else {
        println!("kind         plain, not encrypted");
        println!("public key   {}", consensus_node::load_key(path).map_err(failed)?.public_key());
        return Ok(());
    };
    let details = keystore.details();
    println!("kind         keystore (EIP-2335)");
    println!("public key   {}", details.public_key.as_deref().unwrap_or("not named"));
    println!("uuid         {}", keystore.uuid());
    println!("path         {}", if details.path.is_empty() { "none" } else { &details.path });
    println!("description  {}", details.description.as_deref().unwrap_or("none"));
    println!("derivation   {}", keystore.kdf());
    if password_file.is_some() {
        let key = load(path, password_file)?;
        println!("password     opens it; the secret's public key is {}", key.public_key());
    }
    Ok(())
}

fn read_secret() -> CliResult<SecretKey> {
    let mut text = String::new();
    std::io::stdin()
        .take(256)
        .read_to_string(&mut text)
        .map_err(CliError::while_trying("read the secret key from standard input"))?;
    let mut bytes = [0; 32];
    // The text is a secret: the error must not repeat it.
    alloy_primitives::hex::decode_to_slice(text.trim(), &mut bytes)
        .map_err(|_| CliError::new("standard input must hold 32 bytes of hex, the secret key"))?;
    SecretKey::from_bytes(&bytes).map_err(|error| CliError::new(error.to_string()))
}

fn list(dir: &Path) -> CliResult {
    let entries =
        std::fs::read_dir(dir).map_err(CliError::while_trying(format!("list {}", dir.display())))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|path| may_be_key(path)) {
        match consensus_node::public_key_of(path) {
            Ok(key) => println!("{key}  {}", path.display()),
            Err(error) => println!("unusable: {error}"),
        }
    }
    Ok(())
}

/// Whether a small file names a secret key, usable or not.
fn may_be_key(path: &Path) -> bool {
    let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= 4096);
    let has_key = |text: String| text.contains("\"secret_key\"") || text.contains("\"crypto\"");
    is_small && std::fs::read_to_string(path).is_ok_and(has_key)
}
