//! `tandem evidence`: proof that validators signed what no honest validator signs, checked by anybody who knows
//! their set.

use crate::error::{CliError, CliResult};
use crate::files;
use alloy_primitives::hex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use types::{B256, Domain, Epoch, Evidence, Genesis, Validator, ValidatorSet, encode};

/// Subcommands of `tandem evidence`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Check a piece of evidence with nothing but the validator set, and say who is guilty.
    #[command(
        after_help = "Examples:\n  tandem evidence verify evidence.json --genesis genesis.json\n  tandem evidence \
        verify evidence.json --genesis genesis.json --validators set.json\n\nThe file is one that `tandem db audit \
        --evidence DIR` wrote, or the hex of one entry of a node's /consensus/v1/evidence. Exit codes: 0 it proves what \
        it says, 1 unreadable, 2 wrong usage, 3 it proves nothing"
    )]
    Verify(VerifyArgs),
}

/// Arguments of `tandem evidence verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The evidence: a JSON file or hex.
    file: PathBuf,
    /// The chain's genesis file.
    #[arg(long)]
    genesis: PathBuf,
    /// The validators of the evidence's epoch, as a node's /consensus/v1/validators shows them. Without it the
    /// genesis' validators are taken, who are the set of epochs 0 and 1.
    #[arg(long)]
    validators: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A piece of evidence with what it says, as files hold it. Only the bytes count.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvidenceFile {
    /// Chain it is of.
    pub chain_id: Option<u64>,
    /// Genesis of that chain.
    pub genesis_hash: Option<B256>,
    /// Epoch of both statements.
    pub epoch: Epoch,
    /// Which rule was broken.
    pub offence: String,
    /// Indices in the epoch's set.
    pub offenders: Vec<u32>,
    /// Canonical bytes, as hex.
    pub evidence: String,
}

impl EvidenceFile {
    /// The file of a piece of evidence.
    pub fn of(evidence: &Evidence, chain_id: Option<u64>, genesis_hash: Option<B256>) -> Self {
        let said = evidence.accusation().ok();
        Self {
            chain_id,
            genesis_hash,
            epoch: evidence.epoch(),
            offence: said.as_ref().map_or(String::new(), |said| said.offence.name().to_owned()),
            offenders: evidence.offenders().into_iter().map(types::ValidatorIndex::get).collect(),
            evidence: hex::encode_prefixed(encode(evidence)),
        }
    }

    /// Writes it into a directory under a name of its own; one that is there already is the same finding.
    pub fn write_into(&self, dir: &Path) -> CliResult<PathBuf> {
        let who: Vec<String> = self.offenders.iter().take(4).map(u32::to_string).collect();
        let name = format!("evidence-epoch-{}-{}-validator-{}.json", self.epoch, self.offence, who.join("-"));
        let path = dir.join(name);
        let text = serde_json::to_string_pretty(self).map_err(CliError::while_trying("write evidence"))?;
        if !path.exists() {
            files::create_dir(dir)?;
            files::write_new(&path, format!("{text}\n").as_bytes(), 0o644)?;
        }
        Ok(path)
    }
}

/// The part of a node's list of validators that makes a set.
#[derive(Deserialize)]
struct SetFile {
    validators: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    address: types::Address,
    public_key: types::PublicKey,
    stake: types::Stake,
}

#[derive(Serialize)]
struct Verdict {
    epoch: Epoch,
    offence: String,
    views: [types::View; 2],
    validator_set_id: B256,
    guilty: Vec<Guilty>,
}

#[derive(Serialize)]
struct Guilty {
    index: types::ValidatorIndex,
    address: Option<types::Address>,
    public_key: Option<types::PublicKey>,
}

/// Runs `tandem evidence`.
pub fn run(command: &Command) -> CliResult {
    match command {
        Command::Verify(args) => verify(args),
    }
}

fn verify(args: &VerifyArgs) -> CliResult {
    let evidence = read(&args.file)?;
    let text = files::read_text(&args.genesis)?;
    let genesis = Genesis::parse(&text).map_err(|error| CliError::new(error.to_string()))?;
    let set = set_for(&genesis, evidence.epoch(), args.validators.as_deref())?;
    let domain = Domain {
        chain_id: genesis.config.chain_id,
        genesis_hash: genesis.hash(),
        epoch: evidence.epoch().get(),
    };
    let verdict = judge(&evidence, &set, &domain)?;
    if args.json {
        println!("{}", serde_json::to_string(&verdict).map_err(CliError::while_trying("write the verdict"))?);
        return Ok(());
    }
    let Verdict { epoch, offence, views: [first, second], validator_set_id, guilty } = &verdict;
    println!("epoch {epoch}, {offence}, views {first} and {second}");
    println!("validator set {validator_set_id}: headers of epoch {epoch} must name it");
    for Guilty { index, address, .. } in guilty {
        println!(
            "GUILTY: validator {index} {}",
            address.map_or(String::new(), |address| address.to_string())
        );
    }
    Ok(())
}

fn judge(evidence: &Evidence, set: &ValidatorSet, domain: &Domain) -> CliResult<Verdict> {
    let nothing = |error: types::EvidenceError| CliError::problem(format!("this proves nothing: {error}"));
    let guilty = evidence.verify(set, domain).map_err(nothing)?;
    let said = evidence.accusation().map_err(nothing)?;
    let member = |index| {
        let validator = set.get(index);
        Guilty { index, address: validator.map(|v| v.address), public_key: validator.map(|v| v.public_key) }
    };
    Ok(Verdict {
        epoch: evidence.epoch(),
        offence: said.offence.to_string(),
        views: [said.views.0, said.views.1],
        validator_set_id: set.id(),
        guilty: guilty.into_iter().map(member).collect(),
    })
}

fn read(path: &Path) -> CliResult<Evidence> {
    let text = files::read_text(path)?;
    let text = text.trim();
    let hexadecimal = match serde_json::from_str::<EvidenceFile>(text) {
        Ok(file) => file.evidence,
        Err(_) => text.trim_matches('"').to_owned(),
    };
    let unreadable = || CliError::new(format!("{} is neither an evidence file nor hex", path.display()));
    let bytes = hex::decode(hexadecimal).map_err(|_| unreadable())?;
    Evidence::decode(&bytes).map_err(|error| CliError::problem(format!("this proves nothing: {error}")))
}

fn set_for(genesis: &Genesis, epoch: Epoch, validators: Option<&Path>) -> CliResult<ValidatorSet> {
    let first = genesis.validator_set().map_err(|error| CliError::new(error.to_string()))?;
    let members = match validators {
        None if epoch.get() <= 1 => first.validators().to_vec(),
        None => {
            return Err(CliError::new(format!(
                "the evidence is of epoch {epoch}, whose validators the genesis does not name: pass --validators"
            )));
        }
        Some(path) => {
            let file: SetFile = serde_json::from_str(&files::read_text(path)?)
                .map_err(CliError::while_trying(format!("read {}", path.display())))?;
            let member = |Member { address, public_key, stake }| Validator { address, public_key, stake };
            file.validators.into_iter().map(member).collect()
        }
    };
    first.successor(epoch, members).map_err(|error| CliError::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crypto::SecretKey;
    use types::vote::Signed;
    use types::{QuorumRule, Stake, ValidatorIndex, View, Witness};

    fn set() -> ValidatorSet {
        let member = |i: u8| Validator {
            address: types::Address::repeat_byte(i),
            public_key: SecretKey::from_seed(&[i; 32]).public_key(),
            stake: Stake::new(1),
        };
        ValidatorSet::new(Epoch::ZERO, (1..=4).map(member).collect(), QuorumRule::default()).unwrap()
    }

    fn domain() -> Domain {
        Domain { chain_id: 7, genesis_hash: B256::repeat_byte(7), epoch: 0 }
    }

    fn double_proposal() -> Evidence {
        let signed = |block: u8| {
            let vote = types::ProposalVote { view: View::new(5), block_hash: B256::repeat_byte(block) };
            Witness::Proposal(Signed::new(
                vote,
                ValidatorIndex::new(2),
                &SecretKey::from_seed(&[3; 32]),
                &domain(),
            ))
        };
        Evidence::new(Epoch::ZERO, signed(1), signed(2)).unwrap()
    }

    #[test]
    fn a_written_file_is_read_back_and_names_the_guilty() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = double_proposal();
        let file = EvidenceFile::of(&evidence, Some(7), Some(domain().genesis_hash));
        let path = file.write_into(dir.path()).unwrap();
        assert_eq!(path, file.write_into(dir.path()).unwrap(), "the same finding is one file");
        assert_eq!(read(&path).unwrap(), evidence);
        let verdict = judge(&evidence, &set(), &domain()).unwrap();
        assert_eq!(verdict.guilty[0].address, Some(types::Address::repeat_byte(3)));
        let hex_only = dir.path().join("bytes");
        files::write_new(&hex_only, file.evidence.as_bytes(), 0o600).unwrap();
        assert_eq!(read(&hex_only).unwrap(), evidence);
    }

    #[test]
    fn evidence_of_another_chain_proves_nothing_here_and_says_so_with_exit_code_three() {
        let elsewhere = Domain { chain_id: 8, ..domain() };
        let error = judge(&double_proposal(), &set(), &elsewhere).err().unwrap();
        assert_eq!((error.code(), error.to_string().contains("signature")), (3, true), "{error}");
    }
}
