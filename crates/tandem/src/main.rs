//! The `tandem` command: a whole network on one machine, the two processes of a node, and the tools around them.
//!
//! This crate never takes part in consensus or execution: it reads settings, starts the processes, and shows what
//! they say.

mod accounts;
mod db;
mod devnet;
mod duration;
mod error;
mod evidence;
mod files;
mod genesis;
mod http;
mod init;
mod keys;
mod lanes;
mod load;
mod node;
mod node_file;
mod procfs;
mod prompt;
mod protection;
mod rpc;
mod status;
mod verify;

const _: () = assert!(!types::mutation::POSSIBLE, "a node must not be built with injected bugs");

use clap::{Parser, Subcommand};
use error::CliResult;
use std::io::Write;
use std::process::ExitCode;

/// Tandem: an EVM chain with stake-weighted finality in under a second. A node is two processes: executord owns
/// transactions and state, consensusd owns order and finality.
#[derive(Debug, Parser)]
#[command(
    name = "tandem",
    version,
    after_help = "Start here:\n  tandem devnet\n\nExit codes of all commands: 0 done, 1 \
    failed (the reason is on standard error), 2 wrong usage, 3 the command found a problem in what it examined"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole network on this machine: N validators, 2N processes, supervised.
    #[command(
        after_help = "Examples:\n  tandem devnet\n  tandem devnet --validators 3 --fresh --json\n\nStops with \
        Ctrl-C; started again in the same directory, the chain goes on. Exit codes: 0 stopped by the user, 1 could not \
        start or gave up, 2 wrong usage"
    )]
    Devnet(devnet::Args),
    /// Make the directory of one node.
    #[command(
        after_help = "Example:\n  tandem init --dir node --genesis genesis.json --key validator.json --peer \
        10.0.0.2:9000 --tx-peer 10.0.0.2:30303\n\nExit codes: 0 made, 1 refused, 2 wrong usage"
    )]
    Init(init::Args),
    /// Make and check genesis files.
    #[command(subcommand, after_help = "Example:\n  tandem genesis check genesis.json")]
    Genesis(genesis::Command),
    /// Make, store and show validator keys.
    #[command(
        subcommand,
        after_help = "Example:\n  tandem keys new --out validator.json --address 0x7099..."
    )]
    Keys(keys::Command),
    /// Run the consensus process of a node.
    #[command(
        after_help = "Example:\n  tandem consensusd --config node/node.toml\n\nRUST_LOG sets what is logged. Exit \
        codes: 0 stopped by a signal, 1 could not start or go on, 2 wrong usage"
    )]
    Consensusd(node::Args),
    /// Run the execution process of a node.
    #[command(
        after_help = "Example:\n  tandem executord --config node/node.toml\n\nRUST_LOG sets what is logged. Exit \
        codes: 0 stopped by a signal, 1 could not start or go on, 2 wrong usage"
    )]
    Executord(node::Args),
    /// Show how nodes are doing and, when one does not move, why.
    #[command(
        after_help = "Example:\n  tandem status --rest http://127.0.0.1:5052,http://127.0.0.1:5053\n\nExit codes: 0 \
        all healthy, 1 a node does not answer, 2 wrong usage, 3 a node is not healthy"
    )]
    Status(status::Args),
    /// Prove what a node says is final, from a checkpoint you trust, with headers and certificates only.
    #[command(
        after_help = "Examples:\n  tandem verify checkpoint --genesis genesis.json --out trusted.json\n  tandem verify \
        --from trusted.json --rpc http://127.0.0.1:5052 --out trusted.json\n  tandem verify --from 0x5f1c... --height \
        1200\n\nExit codes: 0 proven, 1 no answer, 2 wrong usage, 3 the node's answers prove nothing or the contrary"
    )]
    Verify(verify::Args),
    /// Send transactions as fast as a chain takes them, and measure it. Works with any Ethereum JSON-RPC node.
    #[command(
        after_help = "Examples:\n  tandem load --txs 60000 --connections 32\n  tandem load --rate 500 --duration 300 \
        --rpc http://127.0.0.1:8545,http://127.0.0.1:8546\n  tandem load --idle-latency 100\n\nExit codes: 0 everything \
        accepted became final, 1 could not run, 2 wrong usage, 3 something accepted was lost"
    )]
    Load(load::Args),
    /// Draw what ran beside what in a block, as bars.
    #[command(
        after_help = "Examples:\n  tandem lanes\n  tandem lanes --rpc http://127.0.0.1:8546 1200\n\nA lane is marked \
        hot when it was cut into segments or holds more than twice its share of the gas. Exit codes: 0 drawn, 1 no \
        answer or no such block, 2 wrong usage"
    )]
    Lanes(lanes::Args),
    /// Check proof that validators signed what no honest validator signs.
    #[command(
        subcommand,
        after_help = "Example:\n  tandem evidence verify evidence.json --genesis genesis.json"
    )]
    Evidence(evidence::Command),
    /// Look at a stopped node's consensus journal.
    #[command(subcommand, after_help = "Example:\n  tandem db check ./devnet/node-0/consensus")]
    Db(db::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // On a full disk even this may not be writable; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.code())
        }
    }
}

fn run(command: &Command) -> CliResult {
    match command {
        Command::Devnet(args) => devnet::run(args),
        Command::Init(args) => init::run(args),
        Command::Genesis(command) => genesis::run(command),
        Command::Keys(command) => keys::run(command),
        Command::Consensusd(args) => node::consensusd(args),
        Command::Executord(args) => node::executord(args),
        Command::Status(args) => status::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Load(args) => load::run(args),
        Command::Lanes(args) => lanes::run(args),
        Command::Evidence(command) => evidence::run(command),
        Command::Db(command) => db::run(command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
