//! `cargo run --release -p model -- --help`: bounds beyond those of the tests, with progress.

use clap::{Args, Parser, Subcommand};
use model::network::{FINALITY, FORK, NEVER_SLASHABLE, ONE_CHAIN, PAID_FOR, PASSED_OVER};
use model::search::{Trace, shortest};
use model::{Alphabet, Court, Lone, ModelError, Network, Rule, Settings, Shape, Timeouts, Universe};
use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Goes through every state of small networks with the project's own voting rules. Exit code 0 when every property holds,
/// 1 with the shortest trace against one, 2 when the settings make no model or a bound was reached before the end.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  model network                                 n = 4, f = 1, 3 views\n  model network --timeouts free --views 4       one view more, timeouts for nothing\n  model network --without prepare-guard,timeout-guard   the fork that the guard prevents\n  model network --byzantine 2,3                 n = 4, f = 2: every fork leaves evidence\n  model validator --views 4                     one validator against everything\n  model evidence --stakes 4,1,1,1 --views 4     every conflict with every choice of signers"
)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Honest validators against an adversary that signs everything.
    Network(NetworkArgs),
    /// One honest validator, shown every certificate there could be.
    Validator(ValidatorArgs),
    /// Every conflict of final blocks, with every choice of signers.
    Evidence(EvidenceArgs),
}

#[derive(Args)]
struct Bounds {
    /// Threads to search with.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Stop after so many states, counted with repetitions.
    #[arg(long)]
    states_max: Option<usize>,
}

#[derive(Args)]
struct NetworkArgs {
    /// Stakes of all validators.
    #[arg(long, value_delimiter = ',', default_value = "1,1,1,1")]
    stakes: Vec<u128>,
    /// Indices of the Byzantine validators.
    #[arg(long, value_delimiter = ',', default_value = "3", conflicts_with = "all_honest")]
    byzantine: Vec<u32>,
    /// No Byzantine validator.
    #[arg(long)]
    all_honest: bool,
    /// Views.
    #[arg(long, default_value_t = 3)]
    views: u8,
    /// Different blocks per view and parent.
    #[arg(long, default_value_t = 2)]
    variants: u8,
    /// Height of the epoch's last block, which is proposed again until it is final.
    #[arg(long)]
    last_height: Option<u8>,
    /// Whether timeouts have to be signed.
    #[arg(long, value_enum, default_value_t = Timeouts::Signed)]
    timeouts: Timeouts,
    /// Rules to take away.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Rule>,
    #[command(flatten)]
    bounds: Bounds,
}

#[derive(Args)]
struct ValidatorArgs {
    /// Views.
    #[arg(long, default_value_t = 3)]
    views: u8,
    /// Proposals instead of votes.
    #[arg(long)]
    proposals: bool,
    /// Rules to take away.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Rule>,
    #[command(flatten)]
    bounds: Bounds,
}

#[derive(Args)]
struct EvidenceArgs {
    /// Stakes of all validators.
    #[arg(long, value_delimiter = ',', default_value = "1,1,1,1")]
    stakes: Vec<u128>,
    /// Views.
    #[arg(long, default_value_t = 3)]
    views: u8,
    /// Different blocks per view and parent.
    #[arg(long, default_value_t = 2)]
    variants: u8,
    /// Height of the epoch's last block, which is proposed again until it is final.
    #[arg(long)]
    last_height: Option<u8>,
}

/// Progress every few seconds, and traces step by step.
struct Progress;

impl<M: Model> Reporter<M> for Progress
where
    M::State: Debug,
{
    fn report_checking(&mut self, data: ReportData) {
        let ReportData { total_states, unique_states, max_depth, duration, .. } = data;
        println!("{total_states} states, {unique_states} distinct, depth {max_depth}, {duration:.1?}");
    }

    fn report_discoveries(&mut self, model: &M, discoveries: BTreeMap<&'static str, ReportDiscovery<M>>)
    where
        M::Action: Debug + PartialEq,
        M::State: Debug + Hash + PartialEq,
    {
        for (name, ReportDiscovery { path, .. }) in discoveries {
            let breaks = model.property(name).expectation.discovery_is_failure();
            println!("{}: {name}, as in {:?}", if breaks { "BROKEN" } else { "reached" }, path.last_state());
        }
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// Searches until all is seen or an "always" property breaks (all of them, when rules are taken away); then for the
/// shortest traces against those.
fn check<M>(
    make: impl Fn() -> Result<M, ModelError>,
    without: &[Rule],
    bounds: &Bounds,
) -> Result<ExitCode, ModelError>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let until = if without.is_empty() { HasDiscoveries::AnyFailures } else { HasDiscoveries::AllFailures };
    let mut search: CheckerBuilder<M> = make()?.checker().threads(bounds.threads.max(1)).finish_when(until);
    if let Some(states) = bounds.states_max {
        search = search.target_state_count(states);
    }
    let found = search.spawn_bfs().join_and_report(&mut Progress);
    let fails = |name: &&'static str| found.model().property(name).expectation.discovery_is_failure();
    let broken: Vec<&'static str> = found.discoveries().into_keys().filter(fails).collect();
    for name in &broken {
        let Trace { actions, end } = shortest(&make, name)?.ok_or(ModelError::NoTrace)?;
        println!("shortest trace against \"{name}\": {} steps", actions.len());
        actions.iter().for_each(|action| println!("    {action:?}"));
        println!("  ends in {end:?}");
    }
    if !broken.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if bounds.states_max.is_some_and(|most| found.state_count() >= most) {
        println!("stopped at the bound: not all states were seen");
        return Ok(ExitCode::from(2));
    }
    println!("all states seen, every property holds");
    Ok(ExitCode::SUCCESS)
}

fn network(args: NetworkArgs) -> Result<ExitCode, ModelError> {
    let byzantine = if args.all_honest { Vec::new() } else { args.byzantine };
    let NetworkArgs { stakes, views, variants, last_height, timeouts, without, bounds, .. } = args;
    let settings = Settings { stakes, byzantine, views, variants, last_height, timeouts, without };
    println!("{settings:?}");
    let (always, sometimes) = match Network::new(settings.clone())?.within_assumption() {
        true => (ONE_CHAIN, String::new()),
        false => (PAID_FOR, format!("; {FORK}")),
    };
    println!("always: {always}; {NEVER_SLASHABLE}");
    println!("sometimes: {FINALITY}; {PASSED_OVER}{sometimes}");
    check(|| Network::new(settings.clone()), &settings.without, &bounds)
}

fn evidence(args: EvidenceArgs) -> Result<ExitCode, ModelError> {
    let started = Instant::now();
    let shape = Shape::Tree { variants: args.variants, last_height: args.last_height };
    let universe = Universe::new(&args.stakes, args.views, shape)?;
    match Court::new(&args.stakes, universe.set().quorum().get()).every_conflict(&universe) {
        Ok(searched) => {
            println!(
                "{} conflicts, {} choices of signers, each convicts a third of stake; {:.1?}",
                searched.conflicts,
                searched.choices,
                started.elapsed()
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(acquitted) => {
            println!("BROKEN: {acquitted}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().what {
        What::Network(args) => network(args),
        What::Validator(args) => {
            let alphabet = if args.proposals { Alphabet::Proposals } else { Alphabet::Votes };
            check(|| Lone::new(args.views, alphabet, &args.without), &args.without, &args.bounds)
        }
        What::Evidence(args) => evidence(args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}
