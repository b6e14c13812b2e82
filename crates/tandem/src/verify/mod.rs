//! `tandem verify`: proves what a node says about finality, from a checkpoint that is trusted to the head or to a
//! height. The node is asked for headers, certificates and validators; it is believed nothing that these do not prove.

mod server;

use crate::error::{CliError, CliResult};
use crate::files;
use crate::http::Url;
use light_client::{CHECKPOINT_BYTES_MAX, Checkpoint, LightClient, Proven, Refusal};
use serde_json::json;
use server::{Server, Trouble};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use types::{B256, Epoch, Height, encode};

/// Longest way down by parent hashes: from the certificate that proves a height, or from the checkpoint to what is older.
const ANCESTORS_MAX: u64 = 100_000;

/// Arguments of `tandem verify`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    follow: Option<Follow>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the checkpoint that a genesis file is.
    #[command(
        after_help = "Example:\n  tandem verify checkpoint --genesis genesis.json --out genesis.checkpoint\n\nExit codes: 0 \
        written, 1 not a genesis file, 2 wrong usage"
    )]
    Checkpoint {
        /// The genesis file.
        #[arg(long)]
        genesis: PathBuf,
        /// Where to write the checkpoint; standard output unless given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Follow {
    /// What is trusted: a checkpoint file, or the hash of a final block.
    #[arg(long, value_name = "FILE|HASH")]
    from: From,
    /// REST address of a consensus node, which need not be trusted.
    #[arg(long, alias = "rest", default_value = "http://127.0.0.1:5052")]
    rpc: Url,
    /// Prove this height instead of the head.
    #[arg(long)]
    height: Option<u64>,
    /// A height that is known to be final from elsewhere: a server that shows less withholds.
    #[arg(long, default_value_t = 0)]
    at_least: u64,
    /// How old the head may be, in seconds, by this machine's clock; longer than the chain's longest pause.
    #[arg(long, default_value_t = 600)]
    max_age: u64,
    /// Epochs for which the checkpoint is trusted. Unless given: as long as the chain binds stake (unbonding_epochs in
    /// the checkpoint, from the genesis); a block hash does not say that and is trusted for 4.
    #[arg(long)]
    trust_epochs: Option<u64>,
    /// Trust the checkpoint however old it is, with a warning where stake may be gone.
    #[arg(long, conflicts_with = "trust_epochs")]
    accept_old_checkpoint: bool,
    /// Write what was proven as a new checkpoint, replacing the file.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where to write the proof (borsh) when two histories turn out to be final.
    #[arg(long)]
    fork_out: Option<PathBuf>,
    /// Seconds to wait for each answer.
    #[arg(long, default_value_t = 10)]
    timeout: u64,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Where trust comes from.
#[derive(Clone, Debug)]
enum From {
    File(PathBuf),
    Block(B256),
}

impl std::str::FromStr for From {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::File(text.into()), Self::Block))
    }
}

/// Runs `tandem verify`.
pub fn run(args: &Args) -> CliResult {
    match (&args.command, &args.follow) {
        (Some(Command::Checkpoint { genesis, out }), _) => genesis_checkpoint(genesis, out.as_deref()),
        (None, Some(follow)) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(CliError::while_trying("start the runtime"))?;
            runtime.block_on(follow.run())
        }
        (None, None) => Err(CliError::new("give --from <checkpoint file or block hash>")),
    }
}

fn genesis_checkpoint(genesis: &Path, out: Option<&Path>) -> CliResult {
    let checkpoint = Checkpoint::genesis(&crate::genesis::load(genesis)?);
    let checkpoint = checkpoint.map_err(CliError::while_trying("make a checkpoint of the genesis"))?;
    match out {
        Some(path) => write_checkpoint(path, &checkpoint),
        None => {
            println!("{}", text_of(&checkpoint)?);
            Ok(())
        }
    }
}

fn text_of(checkpoint: &Checkpoint) -> CliResult<String> {
    serde_json::to_string_pretty(checkpoint).map_err(CliError::while_trying("write the checkpoint"))
}

fn write_checkpoint(path: &Path, checkpoint: &Checkpoint) -> CliResult {
    let mut text = text_of(checkpoint)?;
    text.push('\n');
    files::replace(path, text.as_bytes(), 0o644)
}

fn read_checkpoint(path: &Path) -> CliResult<Checkpoint> {
    let text = files::read_text_within(path, CHECKPOINT_BYTES_MAX as u64 + 1)?;
    Checkpoint::parse(&text).map_err(|error| CliError::new(format!("{}: {error}", path.display())))
}

impl Follow {
    async fn run(&self) -> CliResult {
        let mut server = Server::new(self.rpc.clone(), Duration::from_secs(self.timeout.max(1)));
        let checkpoint = match &self.from {
            From::File(path) => read_checkpoint(path)?,
            From::Block(hash) => server.checkpoint_of(*hash).await.map_err(|trouble| self.failed(trouble))?,
        };
        let (trusted, bound) = (checkpoint.epoch, checkpoint.unbonding_epochs);
        let period = if self.accept_old_checkpoint { u64::MAX } else { self.trust_epochs.unwrap_or(bound) };
        let client = LightClient::new(checkpoint).map_err(|error| CliError::new(error.to_string()))?;
        let mut client = client.trusting_for(period);
        self.say_start(&client.head());
        let proven = self.prove(&mut client, &mut server).await.map_err(|trouble| self.failed(trouble))?;
        warn_of_age(trusted, bound, client.head().epoch);
        self.say_proven(&proven);
        match &self.out {
            Some(path) => write_checkpoint(path, &client.checkpoint()),
            None => Ok(()),
        }
    }

    async fn prove(&self, client: &mut LightClient, server: &mut Server) -> Result<Proven, Trouble> {
        let target = match self.height {
            Some(height) => Height::new(height),
            // What the server says its head is; whether that is recent shows at the end.
            None => server.finalized_height().await?.max(Height::new(self.at_least)),
        };
        self.cross_epochs(client, server, target).await?;
        if client.head().height < target {
            self.advance(client, server, target).await?;
        }
        let proven = match self.height {
            Some(_) if client.head().height > target => descend(client, server, target).await?,
            _ => client.head(),
        };
        if self.height.is_none() {
            let age_ms_max = self.max_age.saturating_mul(1000);
            client
                .check_recent(Height::new(self.at_least), now_ms(), age_ms_max)
                .map_err(|refusal| server.refused("its head", refusal))?;
        }
        Ok(proven)
    }

    /// One certificate per epoch: the last block of each always has its own.
    async fn cross_epochs(
        &self,
        client: &mut LightClient,
        server: &mut Server,
        target: Height,
    ) -> Result<(), Trouble> {
        let schedule = client.schedule();
        let last = schedule.epoch_of(target);
        let mut epoch = client.set().epoch();
        while epoch < last {
            let boundary = schedule.last(epoch);
            // A checkpoint at the boundary itself has named the next set already.
            if client.head().height < boundary {
                self.advance(client, server, boundary).await?;
            }
            epoch = epoch.next();
        }
        Ok(())
    }

    async fn advance(
        &self,
        client: &mut LightClient,
        server: &mut Server,
        height: Height,
    ) -> Result<(), Trouble> {
        let before = client.set().epoch();
        let update = server.update(height).await?;
        let end = client.schedule().last(client.schedule().epoch_of(height));
        if update.header.height < height || update.header.height > end {
            let found = update.header.height;
            return Err(server.lied(format!("asked to prove height {height}, it proved height {found}")));
        }
        let proven = client.apply(&update).map_err(|refusal| self.keep_fork(server, height, refusal))?;
        let stake = client.set().stake_of(&update.commit.signers);
        self.say_step(client, &proven, stake, (proven.epoch != before).then_some(proven.epoch));
        Ok(())
    }

    /// A refusal as the user sees it; a proof of two histories is written down.
    fn keep_fork(&self, server: &Server, height: Height, refusal: Refusal) -> Trouble {
        if let (Refusal::Forked(fork), Some(path)) = (&refusal, &self.fork_out)
            && let Err(error) = files::replace(path, &encode(&**fork), 0o644)
        {
            eprintln!("warning: {error}");
        }
        if let Refusal::TrustExpired { .. } = refusal {
            // Not the server's fault.
            return Trouble::Refused(format!(
                "height {height} is not proven: {refusal} (or pass --accept-old-checkpoint to trust this one all the same)"
            ));
        }
        server.refused(&format!("its update for height {height}"), refusal)
    }

    fn failed(&self, trouble: Trouble) -> CliError {
        match trouble {
            Trouble::Unreachable(text) => CliError::new(text),
            Trouble::Refused(text) => CliError::problem(text),
        }
    }

    fn say_start(&self, head: &Proven) {
        let Proven { epoch, height, block_hash, .. } = head;
        if self.json {
            println!("{}", json!({"trusted": {"epoch": epoch, "height": height, "block_hash": block_hash}}));
        } else {
            println!("trusted  epoch {epoch}, height {height}, block {block_hash}");
        }
    }

    fn say_step(&self, client: &LightClient, at: &Proven, stake: types::Stake, entered: Option<Epoch>) {
        let (total, members) = (client.set().total(), client.set().len());
        let Proven { epoch, height, block_hash, .. } = at;
        if self.json {
            println!(
                "{}",
                json!({"step": {"epoch": epoch, "height": height, "block_hash": block_hash, "stake": stake,
                    "total_stake": total, "validators": members, "validator_set_id": client.set().id()}})
            );
            return;
        }
        if entered.is_some() {
            println!("epoch {epoch}  {members} validators, set {}", client.set().id());
        }
        println!("         height {height}, block {block_hash}, signed by {stake} of {total}");
    }

    fn say_proven(&self, proven: &Proven) {
        let Proven { epoch, height, block_hash, state_hash, timestamp_ms, .. } = proven;
        if self.json {
            println!(
                "{}",
                json!({"proven": {"epoch": epoch, "height": height, "block_hash": block_hash,
                    "state_hash": state_hash, "timestamp_ms": timestamp_ms}})
            );
            return;
        }
        let state = state_hash.map_or_else(|| "of the genesis".to_owned(), |hash| hash.to_string());
        println!("proven   epoch {epoch}, height {height}, block {block_hash}, state {state}");
    }
}

/// Says when more was trusted than the chain's stake stands for.
fn warn_of_age(trusted: Epoch, bound: u64, reached: Epoch) {
    let age = reached.get().saturating_sub(trusted.get());
    if age > bound {
        eprintln!(
            "warning: the checkpoint is of epoch {trusted}, {age} epochs before epoch {reached}, and stake is known to stay \
             bound for {bound}: whoever voted then may have taken it out and lose nothing by signing another history"
        );
    }
}

/// Down to an older block by parent hashes.
async fn descend(client: &LightClient, server: &mut Server, target: Height) -> Result<Proven, Trouble> {
    let head = client.head();
    let steps = head.height.get().saturating_sub(target.get());
    if steps > ANCESTORS_MAX {
        return Err(Trouble::Unreachable(format!(
            "height {target} is {steps} blocks below what is proven, at most {ANCESTORS_MAX} are followed: start from an \
             older checkpoint"
        )));
    }
    if target == Height::ZERO {
        return Err(Trouble::Unreachable("height 0 is the genesis file, which its hash proves".into()));
    }
    let header = match client.header() {
        Some(header) => header.clone(),
        None => server.header(head.block_hash).await?,
    };
    let what = |height| format!("its header of height {height}");
    let mut down =
        client.ancestors_of_head(&header).map_err(|refusal| server.refused(&what(head.height), refusal))?;
    loop {
        let (height, hash) = down.wanted();
        let header = server.header(hash).await?;
        let proven = down.step(&header).map_err(|refusal| server.refused(&what(height), refusal))?;
        if height <= target {
            return Ok(proven);
        }
    }
}

fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
