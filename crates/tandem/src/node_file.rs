//! node.toml: the settings of one node, a `[consensus]` and an `[execution]` section.

use crate::error::{CliError, CliResult};
use crate::files;
use engine_api::Endpoint;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A parsed node.toml. A section may be missing where the other process runs elsewhere.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    consensus: Option<consensus_node::Config>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<execution_node::Config>,
}

impl NodeFile {
    /// A file with both sections.
    pub fn new(consensus: consensus_node::Config, execution: execution_node::Config) -> Self {
        Self { consensus: Some(consensus), execution: Some(execution) }
    }

    /// Lets every web page use the JSON-RPC, as the usual development chains do: an app under development is a page.
    pub fn open_to_web_pages(mut self) -> Self {
        if let Some(execution) = &mut self.execution {
            execution.rpc.cors_origins = vec!["*".into()];
        }
        self
    }

    /// How consensusd opens its key, and how long it listens before it signs.
    pub fn guarded(mut self, password_file: Option<PathBuf>, doppelganger_views: u64) -> Self {
        if let Some(consensus) = &mut self.consensus {
            (consensus.password_file, consensus.doppelganger_views) = (password_file, doppelganger_views);
        }
        self
    }

    /// Reads a file. Paths in it become relative to its directory.
    pub fn load(path: &Path) -> CliResult<Self> {
        let text = files::read_text(path)?;
        let refuse = |error: String| CliError::new(format!("{}: {error}", path.display()));
        let file: Self = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let consensus = file.consensus.map(|config| config.resolved(base));
        let execution = file.execution.map(|config| resolve_execution(config, base));
        if let Some(config) = &consensus {
            config.check().map_err(|error| refuse(error.to_string()))?;
        }
        if let Some(config) = &execution {
            config.check().map_err(|error| refuse(error.to_string()))?;
        }
        Ok(Self { consensus, execution })
    }

    /// The text of the file, after some lines of comment.
    pub fn text(&self, comment: &str) -> CliResult<String> {
        let comment: String = comment.lines().map(|line| format!("# {line}\n")).collect();
        let toml = toml::to_string(self).map_err(CliError::while_trying("write the configuration"))?;
        Ok(format!("{comment}\n{toml}"))
    }

    /// The settings of consensusd.
    pub fn into_consensus(self, path: &Path) -> CliResult<consensus_node::Config> {
        self.consensus.ok_or_else(|| CliError::new(format!("{} has no [consensus] section", path.display())))
    }

    /// The settings of executord.
    pub fn into_execution(self, path: &Path) -> CliResult<execution_node::Config> {
        self.execution.ok_or_else(|| CliError::new(format!("{} has no [execution] section", path.display())))
    }
}

fn resolve_execution(mut config: execution_node::Config, base: &Path) -> execution_node::Config {
    for path in [&mut config.genesis, &mut config.data_dir, &mut config.jwt_secret] {
        *path = base.join(&*path);
    }
    if let Endpoint::Unix(path) = &mut config.engine_endpoint {
        *path = base.join(&*path);
    }
    config
}

/// Names in a node's directory.
pub struct NodePaths {
    /// The directory itself.
    pub dir: PathBuf,
}

impl NodePaths {
    /// Paths under `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Settings.
    pub fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// The validator's secret key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("validator.json")
    }

    /// The secret both processes share.
    pub fn jwt(&self) -> PathBuf {
        self.dir.join("jwt.hex")
    }

    /// Directory of the log files.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn both() -> NodeFile {
        let endpoint = Endpoint::Unix("engine.sock".into());
        let execution = execution_node::Config::new("genesis.json", "execution", endpoint, "jwt.hex");
        NodeFile::new(consensus_node::Config::default(), execution)
    }

    #[test]
    fn a_written_file_reads_back_with_paths_relative_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        std::fs::write(&path, both().text("one\ntwo").unwrap()).unwrap();
        let loaded = NodeFile::load(&path).unwrap();
        assert_eq!(loaded.into_execution(&path).unwrap().data_dir, dir.path().join("execution"));
        let consensus = NodeFile::load(&path).unwrap().into_consensus(&path).unwrap();
        assert_eq!(consensus, consensus_node::Config::default().resolved(dir.path()));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        for (text, expected) in [
            ("[consensus]\nkeyfile = 'x'\n", "keyfile"),
            ("[consens]\n", "consens"),
            ("[consensus]\nrest_listen = 'x'\n", "rest_listen"),
            ("[execution]\n", "genesis"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = NodeFile::load(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("node.toml"), "{error}");
        }
        std::fs::write(&path, "").unwrap();
        let error = NodeFile::load(&path).unwrap().into_consensus(&path).unwrap_err();
        assert!(error.to_string().contains("no [consensus] section"));
    }
}
