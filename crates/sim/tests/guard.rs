//! One key, one signer (C-7.6 to C-7.9): what keeps a replica from signing beside the rules of voting.
#![allow(clippy::unwrap_used, missing_docs)]

mod lab;

use consensus::{Copied, EngineReply, Floor, Input, Outbound, Restraint, Silence, StallReason};
use lab::{GENESIS, Lab, ME, OTHERS, STAKES, index, key, view};
use types::{B256, ConsensusMessage, Epoch, EpochSchedule, Height, PublicKey};

fn own_key() -> PublicKey {
    key(ME).public_key()
}

/// Messages that carry a signature of the own key.
fn spoken(lab: &Lab) -> usize {
    use ConsensusMessage::{Commit, Prepare, Proposal, Timeout};
    let signed = |message: &&ConsensusMessage| {
        matches!(message, Proposal(..) | Prepare(..) | Commit(..) | Timeout(..))
    };
    lab.messages().filter(signed).count()
}

/// Leads the replica through `views` views of a chain the others make, a block each.
fn live_chain(lab: &mut Lab, views: u64, pause_ms: u64) {
    for (block, qc) in lab.chain(views) {
        lab.propose(&block);
        lab.pass(pause_ms);
        lab.receive(1, ConsensusMessage::Qc(qc));
        let commit = lab.commit_qc(&block, &OTHERS);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
}

// The start-up wait.

#[test]
fn during_the_start_up_wait_the_node_follows_the_chain_and_signs_nothing() {
    let mut lab = Lab::new();
    lab.wait_views = 8;
    lab.start().unwrap();
    live_chain(&mut lab, 7, 260);
    assert_eq!((spoken(&lab), lab.height()), (0, 7), "it follows and is silent");
    assert!(matches!(
        lab.me().status(lab.now).reasons[..],
        [StallReason::Waiting { wait, .. }] if (wait.views, wait.views_left) == (8, 1) && wait.left_ms > 0
    ));
    assert_eq!(lab.me().silence(), Some(Silence::Waiting));
}

#[test]
fn after_the_views_of_the_wait_the_node_votes() {
    let mut lab = Lab::new();
    lab.wait_views = 8;
    lab.start().unwrap();
    live_chain(&mut lab, 10, 260);
    assert_eq!(lab.me().silence(), None);
    let views: Vec<u64> = lab.prepared().iter().map(|vote| vote.target_view.get()).collect();
    assert_eq!(views, [9, 10], "eight views were entered when the ninth was proposed");
}

#[test]
fn views_that_fly_by_while_catching_up_do_not_shorten_the_wait() {
    let mut lab = Lab::new();
    lab.wait_views = 8;
    lab.start().unwrap();
    live_chain(&mut lab, 12, 0);
    assert_eq!((lab.me().silence(), spoken(&lab)), (Some(Silence::Waiting), 0));
    let interval_ms = lab.settings.timing.block_interval_ms;
    lab.pass(8 * interval_ms);
    assert_eq!(lab.me().silence(), None);
}

#[test]
fn a_wait_in_which_nobody_makes_a_view_ends_by_time() {
    for linked in [true, false] {
        let mut lab = Lab::new();
        lab.wait_views = 8;
        lab.start().unwrap();
        if !linked {
            OTHERS.into_iter().for_each(|other| lab.input(Input::Disconnected(index(other))));
        }
        let timing = lab.settings.timing;
        let most_ms = 8 * (timing.empty_block_interval_ms + 3 * timing.delta_ms + 2 * timing.work_ms);
        let most_ms = if linked { most_ms } else { 4 * most_ms };
        lab.pass(most_ms - 1);
        assert_eq!((lab.me().silence(), spoken(&lab)), (Some(Silence::Waiting), 0), "linked: {linked}");
        lab.pass(1_000);
        assert_eq!(lab.me().silence(), None);
        assert!(!lab.timed_out().is_empty(), "it takes part: it gives the dead view up");
    }
}

#[test]
fn another_holder_of_the_key_makes_the_wait_begin_anew_and_later_ones_are_only_reported() {
    let mut lab = Lab::new();
    lab.wait_views = 2;
    lab.start().unwrap();
    let timing = lab.settings.timing;
    let most_ms = 2 * (timing.empty_block_interval_ms + 3 * timing.delta_ms + 2 * timing.work_ms);
    for _ in 0..5 {
        lab.pass(most_ms - 1);
        lab.input(Input::OwnKeyElsewhere);
    }
    assert_eq!((lab.me().silence(), spoken(&lab)), (Some(Silence::Waiting), 0));
    let reasons = lab.me().status(lab.now).reasons;
    assert!(matches!(&reasons[..], [StallReason::Waiting { seen: Some(_), .. }, ..]), "{reasons:?}");
    lab.pass(most_ms + 1_000);
    assert_eq!(lab.me().silence(), None);
    lab.input(Input::OwnKeyElsewhere);
    assert_eq!(
        (lab.me().silence(), lab.alarms()),
        (None, 0),
        "the older instance is not silenced by a newer one"
    );
}

// Own signatures from elsewhere.

/// What the others know and this node does not: its own signature in a certificate of view 2.
fn sightings(lab: &mut Lab) -> Vec<(ConsensusMessage, Floor)> {
    let chain = lab.chain(2);
    let (block, signers) = (&chain[1].0, [0, 1, ME]);
    let at = Floor { epoch: Epoch::ZERO, ..Floor::default() };
    let prepared = Floor { source: view(1), target: view(2), lock: view(1), ..at };
    vec![
        (ConsensusMessage::Qc(lab.qc(block, &signers)), prepared),
        (
            ConsensusMessage::CommitQc(lab.commit_qc(block, &signers)),
            Floor { commit: view(2), lock: view(2), ..at },
        ),
        (ConsensusMessage::Tc(lab.tc(2, &signers, None, 0)), Floor { timeout: view(2), ..at }),
    ]
}

#[test]
fn an_own_signature_in_a_certificate_above_the_sign_state_stops_signing_for_good() {
    for which in 0..3 {
        let mut lab = Lab::equal();
        let (message, floor) = sightings(&mut lab).remove(which);
        lab.receive(1, message);
        assert_eq!((lab.alarms(), lab.me().silence()), (1, Some(Silence::Alarm)));
        lab.sent.clear();
        lab.pass(20_000);
        assert_eq!(spoken(&lab), 0);
        assert_eq!(lab.disk.restraint.floor_of(&own_key()), floor, "what was seen is remembered");
        assert!(
            lab.disk.restraint.alarm.as_ref().unwrap().contains("view 2"),
            "{:?}",
            lab.disk.restraint.alarm
        );
    }
}

#[test]
fn an_own_proposal_that_this_node_did_not_make_stops_signing() {
    let mut lab = Lab::equal();
    let own = (6..10_000).find(|number| lab.proposer(*number) == ME).unwrap();
    let tc = lab.tc(own - 1, &OTHERS, None, 0);
    let block = lab.block(own, None, Some(tc), b"by a copy");
    let qc = lab.qc(&block, &OTHERS);
    lab.receive(1, ConsensusMessage::Qc(qc));
    assert_eq!((lab.alarms(), lab.me().silence()), (1, Some(Silence::Alarm)));
    assert_eq!(lab.disk.restraint.floor_of(&own_key()).proposal, view(own));
}

#[test]
fn a_validator_silenced_by_an_alarm_of_that_kind_still_follows_the_chain() {
    let mut lab = Lab::equal();
    for (block, _) in lab.chain(3) {
        lab.propose(&block);
        // It never saw the prepare certificates, so it committed to none of them.
        let commit = lab.commit_qc(&block, &[0, 1, ME]);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
    assert_eq!((lab.alarms(), lab.me().silence(), lab.height()), (1, Some(Silence::Alarm), 3));
}

#[test]
fn own_signatures_that_the_sign_state_or_an_import_explains_are_no_alarm() {
    let mut lab = Lab::equal();
    let chain = lab.chain(3);
    for (block, _) in &chain[..2] {
        lab.propose(block);
        let (qc, commit) = (lab.qc(block, &[0, 1, ME]), lab.commit_qc(block, &[0, 1, ME]));
        lab.receive(1, ConsensusMessage::Qc(qc));
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
    assert_eq!((lab.prepared().len(), lab.committed().len(), lab.alarms()), (2, 2, 0), "its own votes");
    let mut lab = Lab::equal();
    for (_, floor) in sightings(&mut lab) {
        lab.disk.restraint.tighten(&Restraint::floor(own_key(), floor));
    }
    lab.start().unwrap();
    for (message, _) in sightings(&mut lab) {
        lab.receive(1, message);
    }
    assert_eq!((lab.alarms(), lab.me().silence()), (0, None), "an imported history");
}

// Copied directories.

fn copied() -> Restraint {
    let copied = Copied { what: "it was copied".into(), noticed_ms: lab::WALL_MS };
    Restraint { copied: Some(copied), ..Restraint::default() }
}

#[test]
fn a_copied_directory_follows_and_signs_nothing_until_its_operator_accepts_it() {
    let mut lab = Lab::new();
    lab.disk.restraint = copied();
    lab.start().unwrap();
    live_chain(&mut lab, 5, 260);
    lab.pass(60_000);
    assert_eq!((spoken(&lab), lab.height()), (0, 5));
    let reasons = lab.me().status(lab.now).reasons;
    assert!(
        matches!(&reasons[0], StallReason::Copied { what, .. } if what.contains("copied")),
        "{reasons:?}"
    );
    lab.disk.restraint.copied = None;
    lab.start().unwrap();
    lab.pass(10_000);
    assert_eq!(lab.me().silence(), None);
    assert!(!lab.timed_out().is_empty());
}

#[test]
fn a_copied_directory_signs_again_in_an_epoch_that_began_after_the_copy_was_noticed() {
    for (too_old_ms, expected) in [(1, None), (0, Some(Silence::Copied))] {
        let mut lab = Lab::new();
        lab.settings.epochs = EpochSchedule::new(4);
        lab.disk = sim::disk::SimDisk::default();
        lab.disk.restraint = copied();
        // The boundary's stamp must be later, by more than clocks may differ.
        let drift_ms = lab.settings.timing.clock_drift_ms_max;
        let noticed_ms = lab::WALL_MS - drift_ms - too_old_ms;
        lab.disk.restraint.copied.as_mut().unwrap().noticed_ms = noticed_ms;
        lab.start().unwrap();
        for (block, _) in lab.chain(4) {
            assert_eq!(lab.me().silence(), Some(Silence::Copied), "not within the epoch");
            lab.propose(&block);
            let commit = lab.commit_qc(&block, &OTHERS);
            lab.receive(1, ConsensusMessage::CommitQc(commit));
        }
        assert_eq!((lab.height(), lab.me().validators().epoch()), (4, Epoch::new(1)));
        assert_eq!(lab.me().silence(), expected, "noticed {too_old_ms} ms before");
        lab.start().unwrap();
        assert_eq!(lab.me().silence(), expected, "also after a restart");
        lab.pass(20_000);
        assert_eq!(spoken(&lab) == 0, expected.is_some());
    }
}

#[test]
fn a_restored_directory_learns_what_it_signed_since_and_never_signs_below_it() {
    let mut lab = Lab::equal();
    lab.disk.restraint = copied();
    lab.start().unwrap();
    let mut expected = Floor::default();
    for (message, floor) in sightings(&mut lab) {
        lab.receive(1, message);
        expected.raise(&floor);
    }
    assert_eq!(lab.alarms(), 0, "it is no surprise in a restored directory");
    assert_eq!(lab.disk.restraint.floor_of(&own_key()), expected);
    lab.disk.restraint.copied = None;
    lab.start().unwrap();
    lab.pass(60_000);
    assert!(lab.timed_out().iter().all(|given_up| *given_up > view(2)), "{:?}", lab.timed_out());
}

// Alarms.

#[test]
fn an_alarm_lasts_over_restarts_until_it_is_cleared() {
    let mut lab = Lab::new();
    let (one, two) = (lab.block(1, None, None, b"one"), lab.block(1, None, None, b"two"));
    for block in [&one, &two] {
        let commit = lab.commit_qc(block, &OTHERS);
        lab.receive(1, ConsensusMessage::CommitQc(commit));
    }
    assert_eq!(lab.alarms(), 1);
    lab.sent.clear();
    lab.start().unwrap();
    lab.pass(60_000);
    assert_eq!((spoken(&lab), lab.me().silence()), (0, Some(Silence::Alarm)));
    let reasons = lab.me().status(lab.now).reasons;
    assert!(matches!(&reasons[0], StallReason::Halted(why) if why.contains("height 1")), "{reasons:?}");
    lab.disk.restraint.alarm = None;
    lab.start().unwrap();
    lab.pass(10_000);
    assert!(!lab.timed_out().is_empty(), "it takes part again");
}

#[test]
fn an_alarm_of_the_executor_is_durable_before_it_is_told() {
    let mut lab = Lab::new();
    let mut head = lab.executor.head();
    (head.height, head.block_hash) = (Height::ZERO, B256::repeat_byte(0xbb));
    assert_ne!(head.block_hash, GENESIS);
    lab.disk.crash = Some(sim::disk::CrashPoint::Before);
    lab.input(Input::Engine(EngineReply::Up(head)));
    assert_eq!((lab.alarms(), lab.disk.restraint.alarm.is_some()), (0, false), "power went before");
    lab.start().unwrap();
    lab.input(Input::Engine(EngineReply::Up(head)));
    assert_eq!((lab.alarms(), lab.disk.restraint.alarm.is_some()), (1, true));
}

// Several nodes at once.

/// Nobody makes views pass while everybody waits: time has to end it.
#[test]
fn four_validators_that_restart_together_with_a_wait_go_on() {
    let mut labs: Vec<Lab> = (0..4)
        .map(|me| {
            let mut lab = Lab::with_seed_of(&STAKES, me);
            lab.wait_views = 8;
            (lab.disk, lab.executor) =
                (sim::disk::SimDisk::default(), sim::executor::SimExecutor::new(GENESIS));
            lab.start().unwrap();
            lab.sent.clear();
            lab
        })
        .collect();
    let mut elapsed_ms = 0;
    while labs.iter().any(|lab| lab.height() < 3) {
        elapsed_ms += 20;
        assert!(elapsed_ms < 60_000, "stuck at {:?}", labs.iter().map(Lab::height).collect::<Vec<_>>());
        for lab in &mut labs {
            lab.pass(20);
        }
        for from in 0..4 {
            for outbound in std::mem::take(&mut labs[from].sent) {
                let (to, message) = match outbound {
                    Outbound::Send(to, message) => (vec![to.get() as usize], message),
                    Outbound::Broadcast(message) => ((0..4).filter(|to| *to != from).collect(), message),
                    _ => continue,
                };
                let timing = labs[0].settings.timing;
                let least_ms = 8 * timing.block_interval_ms;
                assert!(elapsed_ms >= least_ms, "{message:?} was sent after {elapsed_ms} ms");
                to.into_iter().for_each(|to| labs[to].receive(from, message.clone()));
            }
        }
    }
    assert!(labs.iter().all(|lab| lab.alarms() == 0 && lab.me().silence().is_none()));
}
