//! `tandem genesis`: making and checking genesis files.

use crate::accounts::{self, DEV_MNEMONIC};
use crate::error::{CliError, CliResult};
use crate::files;
use crate::keys::PublicKeyFile;
use alloy_primitives::{address, hex};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use types::genesis::{ChainConfig, GenesisAccount, GenesisValidator, Staking, TandemGenesis, Timing};
use types::{Address, Genesis, QuorumRule, Stake, U256};

/// Gas limit of development chains: room for 23,000 transfers per block.
pub const DEV_GAS_LIMIT: u64 = 500_000_000;

/// Chain id that wallets and tools know as the local development chain.
pub const DEV_CHAIN_ID: u64 = 31337;

/// Whole coins of a funded development account.
pub const DEV_BALANCE_COINS: u64 = 10_000;

const WEI_PER_COIN: u64 = 1_000_000_000_000_000_000;
/// Base fee of the first block unless told otherwise: 1 gwei.
pub const BASE_FEE_WEI: u64 = 1_000_000_000;
/// Heights per epoch unless told otherwise.
pub const EPOCH_LENGTH: u64 = 32;
/// Least stake of a validator, unless the first ones have less: one coin.
const MIN_STAKE: u128 = WEI_PER_COIN as u128;
const PAYLOAD_BYTES: u64 = 4 << 20;

/// Subcommands of `tandem genesis`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write a new genesis file.
    #[command(
        after_help = "Example:\n  tandem genesis new --validator a/validator.pub.json --validator b/validator.pub.json \
        --chain-id 4242 --out genesis.json\n\nExit codes: 0 written, 1 refused, 2 wrong usage"
    )]
    New(NewArgs),
    /// Check a genesis file and show its hash, validators and parameters.
    #[command(
        after_help = "Example:\n  tandem genesis check genesis.json\n\nExit codes: 0 valid, 1 unreadable, 2 wrong \
        usage, 3 invalid"
    )]
    Check {
        /// The genesis file.
        file: PathBuf,
    },
}

/// Arguments of `tandem genesis new`.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Public key file of a validator, as written by `tandem keys new` or `tandem keys export`; once per validator.
    #[arg(long = "validator", required = true)]
    validators: Vec<PathBuf>,
    /// EIP-155 chain id.
    #[arg(long)]
    chain_id: u64,
    /// Where to write the file. An existing file is never replaced.
    #[arg(long, default_value = "genesis.json")]
    out: PathBuf,
    /// JSON file with accounts in geth's `alloc` form: {"0xaddress": {"balance": "0x..."}}.
    #[arg(long)]
    alloc: Option<PathBuf>,
    /// Also fund this many accounts of the public development mnemonic. Never on a chain of value.
    #[arg(long, default_value_t = 0)]
    dev_accounts: u32,
    /// Gas limit of every block.
    #[arg(long, default_value_t = DEV_GAS_LIMIT)]
    gas_limit: u64,
    /// Base fee of block 1 in wei; 0 makes a chain without fees.
    #[arg(long, default_value_t = BASE_FEE_WEI)]
    base_fee: u64,
    /// Heights per epoch.
    #[arg(long, default_value_t = EPOCH_LENGTH)]
    epoch_length: u64,
    /// Least time between two blocks.
    #[arg(long, default_value = "250ms", value_parser = crate::duration::parse_ms)]
    block_interval: u64,
    /// Time between blocks when there is nothing to include.
    #[arg(long, default_value = "1s", value_parser = crate::duration::parse_ms)]
    empty_block_interval: u64,
    /// Unix time of block 0 in seconds; now by default.
    #[arg(long)]
    timestamp: Option<u64>,
}

/// What a new chain starts with.
pub struct Parameters {
    pub chain_id: u64,
    pub validators: Vec<GenesisValidator>,
    pub alloc: BTreeMap<Address, GenesisAccount>,
    pub gas_limit: u64,
    pub base_fee: u64,
    pub epoch_length: u64,
    pub timing: Timing,
    pub timestamp: u64,
}

/// Runs `tandem genesis`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::New(args) => new(args),
        Command::Check { file } => check(file),
    }
}

/// Builds and checks a genesis.
pub fn build(parameters: Parameters) -> CliResult<Genesis> {
    let smallest = parameters.validators.iter().map(|validator| validator.stake).min();
    let min_stake = smallest.unwrap_or(Stake::new(MIN_STAKE)).min(Stake::new(MIN_STAKE));
    let genesis = Genesis {
        config: ChainConfig { chain_id: parameters.chain_id, other: BTreeMap::new() },
        timestamp: parameters.timestamp,
        gas_limit: parameters.gas_limit,
        base_fee_per_gas: parameters.base_fee,
        extra_data: Default::default(),
        alloc: parameters.alloc,
        tandem: TandemGenesis {
            validators: parameters.validators,
            quorum: QuorumRule::default(),
            epoch_length: parameters.epoch_length,
            staking: Staking { min_stake, ..Staking::default() },
            timing: parameters.timing,
            payload_bytes_max: PAYLOAD_BYTES,
            forks: BTreeMap::new(),
        },
        other: BTreeMap::new(),
    };
    genesis.check().map_err(|error| CliError::new(error.to_string()))?;
    Ok(genesis)
}

/// The first `count` development accounts with their coins.
pub fn dev_alloc(count: u32) -> CliResult<BTreeMap<Address, GenesisAccount>> {
    let balance = U256::from(DEV_BALANCE_COINS) * U256::from(WEI_PER_COIN);
    let funded = || GenesisAccount { balance, ..Default::default() };
    Ok(accounts::derive(DEV_MNEMONIC, count)?
        .into_iter()
        .map(|account| (account.address, funded()))
        .collect())
}

/// The CREATE2 factory that `forge script` and others expect on every chain, with the code it has elsewhere. Its
/// usual deployment is a transaction without a chain id, which pools refuse.
/// Source: <https://github.com/Arachnid/deterministic-deployment-proxy>.
pub fn create2_factory() -> (Address, GenesisAccount) {
    let code = hex!(
        "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f5801515"
        "6039578182fd5b8082525050506014600cf3"
    );
    let account = GenesisAccount { nonce: 1, code: code.to_vec().into(), ..Default::default() };
    (address!("0x4e59b44847b379578588920cA78FbF26c0B4956C"), account)
}

/// The file's text: indented JSON.
pub fn to_json(genesis: &Genesis) -> CliResult<String> {
    serde_json::to_string_pretty(genesis)
        .map(|json| json + "\n")
        .map_err(CliError::while_trying("write the genesis"))
}

/// Reads and checks a genesis file.
pub fn load(path: &Path) -> CliResult<Genesis> {
    let json = files::read_text(path)?;
    Genesis::parse(&json).map_err(|error| CliError::problem(format!("{}: {error}", path.display())))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

fn new(args: &NewArgs) -> CliResult {
    let mut validators = Vec::with_capacity(args.validators.len());
    for path in &args.validators {
        validators.push(PublicKeyFile::load(path)?.into_validator());
    }
    let mut alloc = dev_alloc(args.dev_accounts)?;
    if let Some(path) = &args.alloc {
        let json = files::read_text(path)?;
        let given: BTreeMap<Address, GenesisAccount> = serde_json::from_str(&json)
            .map_err(|error| CliError::new(format!("{} is no alloc: {error}", path.display())))?;
        alloc.extend(given);
    }
    let timing = Timing {
        block_interval_ms: args.block_interval,
        empty_block_interval_ms: args.empty_block_interval.max(args.block_interval),
        ..Timing::default()
    };
    let genesis = build(Parameters {
        chain_id: args.chain_id,
        validators,
        alloc,
        gas_limit: args.gas_limit,
        base_fee: args.base_fee,
        epoch_length: args.epoch_length,
        timing,
        timestamp: args.timestamp.unwrap_or_else(now),
    })?;
    files::write_new(&args.out, to_json(&genesis)?.as_bytes(), 0o644)?;
    println!("{} written, genesis hash {}", args.out.display(), genesis.hash());
    Ok(())
}

fn check(path: &Path) -> CliResult {
    let genesis = load(path)?;
    let set = genesis.validator_set().map_err(|error| CliError::problem(error.to_string()))?;
    let section = &genesis.tandem;
    println!("genesis hash    {}", genesis.hash());
    println!("chain id        {}", genesis.config.chain_id);
    println!("accounts        {}", genesis.alloc.len());
    println!("gas limit       {}", genesis.gas_limit);
    println!("epoch length    {}", section.epoch_length);
    let staking = &section.staking;
    println!(
        "staking         at most {} validators of {} candidates, at least {} wei each, {} epochs unbonding",
        staking.max_validators, staking.max_candidates, staking.min_stake, staking.unbonding_epochs
    );
    println!(
        "block interval  {} ms, empty {} ms",
        section.timing.block_interval_ms, section.timing.empty_block_interval_ms
    );
    println!("validators      {} with stake {}, quorum {}", set.len(), set.total(), set.quorum());
    for (index, validator) in set.validators().iter().enumerate() {
        println!("  {index:>4}  {}  stake {}  {}", validator.address, validator.stake, validator.public_key);
    }
    Ok(())
}

/// One validator of a new chain.
pub fn validator(key: &crypto::SecretKey, address: Address, stake: Stake) -> GenesisValidator {
    GenesisValidator {
        address,
        public_key: key.public_key(),
        proof_of_possession: key.prove_possession(),
        stake,
    }
}
