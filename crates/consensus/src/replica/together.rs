//! Working on what has arrived together: votes of one step in one certificate, the signatures of a proposal in one
//! multi-pairing. A batch only fills [`super::VerifiedCache`]: the checks that follow
//! ask for each signature by itself, find it known, and decide. Where the batch fails they find the culprit.

use super::{Input, Replica, VerifiedCache};
use crypto::bls::{Claim, all_hold};
use types::vote::{Signed, randao_bytes};
use types::{
    B256, Commit, CommitVote, ConsensusMessage, Domain, Header, Justify, PrepareVote, ProposalVote,
    Signature, ValidatorIndex, ValidatorSet, View,
};

impl Replica {
    /// Call it before inputs that have arrived together are handled one after the other: certificates of votes among
    /// them then cover all of these votes. Changes nothing else.
    pub fn expect(&mut self, inputs: &[Input]) {
        let (set, own) = (self.set.clone(), self.index());
        for input in inputs {
            let Input::Message { from, message } = input else { continue };
            if message.epoch() != set.epoch() || Some(*from) == own {
                continue;
            }
            match message {
                ConsensusMessage::Prepare(_, vote) if vote.signer == *from => {
                    let PrepareVote { source_view, target_view, .. } = vote.statement;
                    if source_view < target_view && self.in_window(target_view) {
                        self.prepares.at(target_view).hold(&set, vote);
                    }
                }
                ConsensusMessage::Commit(_, Commit { signed, qc }) if signed.signer == *from => {
                    let CommitVote { view, height, block_hash } = signed.statement;
                    let PrepareVote { target_view, .. } = qc.vote;
                    let answers =
                        (target_view, qc.vote.height, qc.vote.block_hash) == (view, height, block_hash);
                    // A vote that answers no valid certificate does not count.
                    let known = self.qcs.get(&view).is_some_and(|known| known.vote == qc.vote);
                    if answers && known && self.in_window(view) {
                        self.commits.at(view).hold(&set, signed);
                    }
                }
                _ => {}
            }
        }
    }

    /// One multi-pairing for the proposer's signature, its RANDAO reveal and the certificates of its header that are
    /// not known yet.
    pub(super) fn verify_together(&mut self, signed: &Signed<ProposalVote>, header: &Header) {
        let (set, domain) = (self.set.clone(), self.domain);
        let reveal = Reveal::of(header);
        let mut asked = vec![
            (VerifiedCache::id(signed), signed.claim(&set, &domain)),
            (VerifiedCache::id(&reveal), reveal.claim(&set, &domain)),
        ];
        if let Justify::Prepare(qc) = &header.justify {
            asked.push((VerifiedCache::id(qc), qc.claim(&set, &domain).ok()));
        }
        if let Some(commit) = &header.last_commit {
            asked.push((VerifiedCache::id(commit), commit.claim(&set, &domain).ok()));
        }
        asked.retain(|(id, _)| !self.verified.knows(id));
        let (ids, claims): (Vec<B256>, Vec<Claim<'_>>) =
            asked.into_iter().filter_map(|(id, claim)| Some((id, claim?))).unzip();
        let expected = self.expected.take_if(|(view, _)| *view <= header.view);
        let expected = expected.map(|(_, expected)| expected);
        if claims.len() > 1 && all_hold(&claims, expected) {
            ids.into_iter().for_each(|id| self.verified.note_id(id));
        }
    }

    /// Whether a header's RANDAO reveal is its proposer's signature over the view.
    pub(super) fn reveal_is_valid(&mut self, header: &Header) -> bool {
        let (set, domain) = (self.set.clone(), self.domain);
        self.verified.check(&Reveal::of(header), |reveal| {
            reveal.claim(&set, &domain).is_some_and(|claim| claim.holds())
        })
    }
}

/// What makes a RANDAO reveal the same one.
#[derive(borsh::BorshSerialize)]
struct Reveal {
    proposer: ValidatorIndex,
    view: View,
    signature: Signature,
}

impl Reveal {
    fn of(header: &Header) -> Self {
        Self { proposer: header.proposer, view: header.view, signature: header.randao_reveal }
    }

    fn claim<'a>(&self, set: &'a ValidatorSet, domain: &Domain) -> Option<Claim<'a>> {
        let keys = vec![set.key(self.proposer)?];
        Some(Claim { keys, message: randao_bytes(domain, self.view), signature: self.signature })
    }
}
