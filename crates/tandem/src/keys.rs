//! `tandem keys`: validator keys. The secret file is for the node alone; the public file goes to whoever makes the
//! genesis.

use crate::error::{CliError, CliResult};
use crate::{files, genesis};
use crypto::{PublicKey, SecretKey, Signature};
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
    #[command(after_help = "Example:\n  tandem keys new --out validator.json --address \
        0x70997970C51812dc3A010C7d01b50e0d17dc79C8\n\nWrites validator.json (secret, mode 0600) and validator.pub.json. \
        Exit codes: 0 written, 1 refused, 2 wrong usage")]
    New {
        /// Where to write the secret key file. An existing file is never replaced.
        #[arg(long, default_value = "validator.json")]
        out: PathBuf,
        #[command(flatten)]
        owner: Owner,
    },
    /// Store an existing secret key, read as 32 bytes of hex from standard input.
    #[command(
        after_help = "Example:\n  tandem keys import --out validator.json --address 0x7099... < secret.hex\n\n\
        A key must never be used by two nodes: both would be slashed. Exit codes: 0 written, 1 refused, 2 wrong usage"
    )]
    Import {
        /// Where to write the secret key file. An existing file is never replaced.
        #[arg(long, default_value = "validator.json")]
        out: PathBuf,
        #[command(flatten)]
        owner: Owner,
    },
    /// Print the public file of a key, for the genesis.
    #[command(
        after_help = "Example:\n  tandem keys export validator.json --address 0x7099... > validator.pub.json\n\n\
        Exit codes: 0 printed, 1 unreadable, 2 wrong usage"
    )]
    Export {
        /// The secret key file.
        file: PathBuf,
        #[command(flatten)]
        owner: Owner,
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
        Command::New { out, owner } => store(out, &SecretKey::generate(), owner),
        Command::Import { out, owner } => store(out, &read_secret()?, owner),
        Command::Export { file, owner } => {
            print!("{}", PublicKeyFile::new(&load(file)?, owner).json()?);
            Ok(())
        }
        Command::List { dir } => list(dir),
    }
}

fn store(out: &Path, key: &SecretKey, owner: &Owner) -> CliResult {
    let public_path = out.with_extension("pub.json");
    if public_path.exists() {
        return Err(CliError::new(format!("{} exists and is not replaced", public_path.display())));
    }
    consensus_node::write_key(out, key).map_err(|error| CliError::new(error.to_string()))?;
    let public = PublicKeyFile::new(key, owner);
    files::write_new(&public_path, public.json()?.as_bytes(), 0o644)?;
    println!("{}", public.public_key);
    eprintln!("secret key in {}, public file in {}", out.display(), public_path.display());
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

fn load(path: &Path) -> CliResult<SecretKey> {
    consensus_node::load_key(path).map_err(|error| CliError::new(error.to_string()))
}

fn list(dir: &Path) -> CliResult {
    let entries =
        std::fs::read_dir(dir).map_err(CliError::while_trying(format!("list {}", dir.display())))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths.iter().filter(|path| may_be_key(path)) {
        match consensus_node::load_key(path) {
            Ok(key) => println!("{}  {}", key.public_key(), path.display()),
            Err(error) => println!("unusable: {error}"),
        }
    }
    Ok(())
}

/// Whether a small file names a secret key, usable or not.
fn may_be_key(path: &Path) -> bool {
    let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= 4096);
    is_small && std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"secret_key\""))
}
