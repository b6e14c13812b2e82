//! All blocks there could be, and the certificates for them.
//!
//! A block is a [`Point`]: the view it is proposed in and its number among that view's blocks. Whoever may propose in a
//! view is not modelled: anybody proposes any block on any certified one. Hashes, votes and certificates are the
//! project's types, signed with stand-in keys and counted by the project's own books.

use consensus::tally::{Counted, TimeoutBook, VoteBook};
use crypto::SecretKey;
use std::collections::{BTreeMap, BTreeSet};
use types::vote::Signed;
use types::{
    Address, B256, CommitVote, Domain, Epoch, Height, PrepareVote, Qc, QuorumRule, Stake, Tc, Timeout,
    TimeoutReason, TimeoutVote, Validator, ValidatorIndex, ValidatorSet, View,
};

/// Most views a model can have: signed statements are packed into fixed pages.
pub const VIEWS_MAX: u8 = 6;

/// Most validators: their reorderings and choices of signers are gone through.
pub const VALIDATORS_MAX: usize = 8;

/// Most blocks of one view that a page can name.
const NAMES_MAX: usize = 256;

const GENESIS: B256 = B256::repeat_byte(0x11);

/// A block as proposed in a view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    /// View of the proposal; 0 for the epoch's root.
    pub view: u8,
    /// Number among the blocks of that view.
    pub name: u8,
}

/// The epoch's root.
pub const ROOT: Point = Point { view: 0, name: 0 };

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == ROOT { write!(f, "root") } else { write!(f, "{}.{}", self.view, self.name) }
    }
}

/// A prepare vote's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The certified block built on.
    pub source: Point,
    /// The block voted for.
    pub block: Point,
}

/// How blocks name their parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every block has one parent, as headers demand.
    Tree {
        /// Blocks per view and parent. A leader that proposes more than one equivocates.
        variants: u8,
        /// Height of the epoch's last block, if within reach: nothing is built on it, it is proposed again (C-8.3).
        last_height: Option<u8>,
    },
    /// A block may be linked to any certified block of an earlier view: more than headers allow, and small.
    Flat {
        /// Blocks per view.
        variants: u8,
    },
}

#[derive(Clone, Copy, Debug)]
struct Node {
    source: Point,
    /// First proposal of the same block.
    first: Point,
    height: u8,
}

/// Why a model cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Too few or too many views.
    #[error("{views} views, 1 to {VIEWS_MAX} can be modelled")]
    Views {
        /// Views asked for.
        views: u8,
    },
    /// Too many validators.
    #[error("{validators} validators, {VALIDATORS_MAX} can be modelled")]
    Validators {
        /// Validators asked for.
        validators: usize,
    },
    /// Too many blocks in one view.
    #[error("{count} blocks in view {view}, {NAMES_MAX} can be named: fewer views or variants")]
    Blocks {
        /// The view.
        view: u8,
        /// Blocks it would have.
        count: usize,
    },
    /// The validators make no set.
    #[error("no validator set: {0}")]
    Set(#[from] types::ValidatorSetError),
    /// A Byzantine validator that is not in the set.
    #[error("validator {index} is not in a set of {validators}")]
    NoSuchValidator {
        /// The index given.
        index: u32,
        /// Size of the set.
        validators: usize,
    },
    /// The Byzantine validators need nobody else.
    #[error("{byzantine} of stake is Byzantine, and {quorum} make a certificate: nothing is left to check")]
    ByzantineQuorum {
        /// Their stake.
        byzantine: u128,
        /// Stake of a certificate.
        quorum: u128,
    },
    /// The stand-in certificate did not form.
    #[error("the certificate of block {0:?} does not form")]
    NoCertificate(Point),
    /// A property that breaks in a search does not break in a second one.
    #[error("the trace found is not found again")]
    NoTrace,
}

/// Blocks, validators and certificates of one model.
#[derive(Clone, Debug)]
pub struct Universe {
    set: ValidatorSet,
    domain: Domain,
    views: u8,
    shape: Shape,
    /// By view, then name; view 0 holds the root.
    nodes: Vec<Vec<Node>>,
    children: BTreeMap<(Point, u8), Vec<Point>>,
    qcs: BTreeMap<Point, Qc>,
    tcs: BTreeMap<(u8, Point), Tc>,
}

impl Universe {
    /// The universe of validators with these stakes over `views` views.
    pub fn new(stakes: &[u128], views: u8, shape: Shape) -> Result<Self, ModelError> {
        if views == 0 || views > VIEWS_MAX {
            return Err(ModelError::Views { views });
        }
        if stakes.len() > VALIDATORS_MAX {
            return Err(ModelError::Validators { validators: stakes.len() });
        }
        let validators = stakes.iter().enumerate().map(|(i, stake)| Validator {
            address: Address::left_padding_from(&(i as u64 + 1).to_be_bytes()),
            public_key: SecretKey::simulated(i as u64).public_key(),
            stake: Stake::new(*stake),
        });
        let set = ValidatorSet::simulated(Epoch::ZERO, validators.collect(), QuorumRule::default())?;
        let domain = Domain { chain_id: 7, genesis_hash: GENESIS, epoch: 0 };
        let root = Node { source: ROOT, first: ROOT, height: 0 };
        let mut universe = Self {
            set,
            domain,
            views,
            shape,
            nodes: vec![vec![root]],
            children: BTreeMap::new(),
            qcs: BTreeMap::new(),
            tcs: BTreeMap::new(),
        };
        universe.add_blocks()?;
        universe.certify_all()?;
        Ok(universe)
    }

    // Blocks.

    fn add_blocks(&mut self) -> Result<(), ModelError> {
        for view in 1..=self.views {
            let sources: Vec<Point> = (0..view).flat_map(|below| self.points(below)).collect();
            let mut nodes = Vec::new();
            match self.shape {
                Shape::Tree { variants, last_height } => {
                    for source in sources {
                        let node = self.node(source);
                        let again = last_height == Some(node.height);
                        let copies = if again { 1 } else { variants };
                        for _ in 0..copies {
                            let block = Point { view, name: nodes.len() as u8 };
                            let (first, height) =
                                if again { (node.first, node.height) } else { (block, node.height + 1) };
                            nodes.push(Node { source, first, height });
                            self.children.entry((source, view)).or_default().push(block);
                        }
                    }
                }
                Shape::Flat { variants } => {
                    for name in 0..variants {
                        let block = Point { view, name };
                        nodes.push(Node { source: ROOT, first: block, height: view });
                        for source in &sources {
                            self.children.entry((*source, view)).or_default().push(block);
                        }
                    }
                }
            }
            if nodes.len() > NAMES_MAX {
                return Err(ModelError::Blocks { view, count: nodes.len() });
            }
            self.nodes.push(nodes);
        }
        Ok(())
    }

    /// Blocks of a view.
    pub fn points(&self, view: u8) -> impl Iterator<Item = Point> + use<> {
        let count = self.nodes.get(usize::from(view)).map_or(0, Vec::len);
        (0..count).map(move |name| Point { view, name: name as u8 })
    }

    fn node(&self, point: Point) -> Node {
        self.nodes[usize::from(point.view)][usize::from(point.name)]
    }

    /// What may be proposed in `view` on `source`.
    pub fn children(&self, source: Point, view: u8) -> &[Point] {
        self.children.get(&(source, view)).map_or(&[], Vec::as_slice)
    }

    /// The certified block that `block` is proposed on. Only trees have it.
    pub fn source(&self, block: Point) -> Point {
        self.node(block).source
    }

    /// The branch of `block` down to the first view, itself first.
    pub fn branch(&self, block: Point) -> impl Iterator<Item = Point> + '_ {
        std::iter::successors(Some(block), |at| Some(self.source(*at))).take_while(|at| *at != ROOT)
    }

    /// Whether two points are proposals of the same block.
    pub fn is_same_block(&self, a: Point, b: Point) -> bool {
        self.node(a).first == self.node(b).first
    }

    /// Whether two blocks are on different branches. A block proposed again is the same block.
    pub fn in_conflict(&self, a: Point, b: Point) -> bool {
        let holds = |tip: Point, block: Point| self.branch(tip).any(|at| self.is_same_block(at, block));
        !holds(a, b) && !holds(b, a)
    }

    /// Views of the model.
    pub fn views(&self) -> u8 {
        self.views
    }

    // What is signed.

    /// Who votes.
    pub fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// What every signature is bound to.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// Hash of a block: the same for every proposal of it.
    pub fn hash(&self, block: Point) -> B256 {
        if block == ROOT {
            return GENESIS;
        }
        let first = self.node(block).first;
        let mut hash = B256::repeat_byte(0xb0);
        (hash.0[0], hash.0[1]) = (first.view, first.name);
        hash
    }

    /// The prepare vote over a link.
    pub fn prepare_vote(&self, link: Link) -> PrepareVote {
        PrepareVote {
            source_view: View::new(link.source.view.into()),
            source_hash: self.hash(link.source),
            target_view: View::new(link.block.view.into()),
            height: Height::new(self.node(link.block).height.into()),
            block_hash: self.hash(link.block),
        }
    }

    /// The commit vote for a block.
    pub fn commit_vote(&self, block: Point) -> CommitVote {
        let height = Height::new(self.node(block).height.into());
        CommitVote { view: View::new(block.view.into()), height, block_hash: self.hash(block) }
    }

    /// The prepare certificate of a block, signed by all: a signer looks at what it certifies, never at who signed.
    /// `None` for the root, which needs none.
    pub fn qc(&self, block: Point) -> Option<&Qc> {
        self.qcs.get(&block)
    }

    /// A timeout certificate of `view` that reports `high` as the highest certificate.
    pub fn tc(&self, view: u8, high: Point) -> Option<&Tc> {
        self.tcs.get(&(view, high))
    }

    fn certify_all(&mut self) -> Result<(), ModelError> {
        for view in 1..=self.views {
            for block in self.points(view) {
                let everyone: BTreeSet<u32> = (0..self.set.len() as u32).collect();
                let link = Link { source: self.node(block).source, block };
                let qc = self.certify(link, &everyone).ok_or(ModelError::NoCertificate(block))?;
                self.qcs.insert(block, qc);
            }
            for high in (0..view).flat_map(|below| self.points(below)).collect::<Vec<_>>() {
                let tc = self.give_up(view, high).ok_or(ModelError::NoCertificate(high))?;
                self.tcs.insert((view, high), tc);
            }
        }
        Ok(())
    }

    /// A prepare certificate by exactly these signers, if they are a quorum.
    pub fn certify(&self, link: Link, signers: &BTreeSet<u32>) -> Option<Qc> {
        let (vote, mut book, mut formed) = (self.prepare_vote(link), VoteBook::default(), None);
        for signer in signers {
            let signed = Signed::new(
                vote,
                ValidatorIndex::new(*signer),
                &SecretKey::simulated((*signer).into()),
                &self.domain,
            );
            let counted = book.at(vote.target_view).add(&self.set, &self.domain, &signed, &mut Vec::new());
            if let Counted::Certified(sum) = counted {
                formed =
                    Some(Qc { epoch: Epoch::ZERO, vote, signers: sum.signers, signature: sum.signature });
            }
        }
        formed.filter(|qc| qc.verify(&self.set, &self.domain).is_ok())
    }

    fn give_up(&self, view: u8, high: Point) -> Option<Tc> {
        let mut book = TimeoutBook::default();
        let statement = TimeoutVote {
            view: View::new(view.into()),
            high_qc_view: View::new(high.view.into()),
            last_prepared_view: View::ZERO,
            reason: TimeoutReason::Expired,
        };
        for signer in self.set.indices() {
            let key = SecretKey::simulated(signer.get().into());
            let signed = Signed::new(statement, signer, &key, &self.domain);
            book.add(Timeout { signed, high_qc: self.qc(high).cloned() });
        }
        book.certify(&self.set, &self.domain, statement.view, &mut Vec::new())
    }
}
