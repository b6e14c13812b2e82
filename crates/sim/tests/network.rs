//! Simulated networks as tests. CI also runs the binary over thousands of seeds.
#![allow(clippy::unwrap_used, missing_docs)]

use sim::byzantine::{BEHAVIOURS, Behaviour};
use sim::plan::CLASSES;
use sim::{Coverage, Plan, World, run};

fn check(plan: &Plan) -> sim::Report {
    run(plan).unwrap_or_else(|failure| {
        let tail = failure.log.len().saturating_sub(40);
        let tail = failure.log[tail..].join("\n");
        panic!("seed {}: {}\n{tail}\n{plan:?}", plan.seed, failure.what)
    })
}

#[test]
fn quiet_networks_of_one_three_four_and_seven_finalize_one_chain() {
    for stakes in [&[1][..], &[1, 1, 1], &[1, 1, 1, 1], &[1; 7], &[4, 1, 1, 1], &[34, 33, 33]] {
        let report = check(&Plan::quiet(1, stakes));
        assert!(report.height.get() > 10, "{stakes:?}: {report:?}");
        // Nothing went wrong, so no view was wasted; the last one is still open.
        assert!(report.views <= report.height.get() + 2, "{stakes:?}: {report:?}");
    }
}

/// A lone validator makes a block every few milliseconds; a follower far away learns an epoch of four in a round trip.
#[test]
fn a_follower_that_falls_thousands_of_blocks_behind_gets_there_as_fast_as_its_link_allows() {
    let slow = Plan { epoch_length: 4, pace_ms: (0, 0), delay_us: (40_000, 90_000), ..Plan::quiet(1, &[1]) };
    let report = check(&Plan { followers: 1, ..slow });
    assert!(report.height.get() > 2_000 && report.recovery_ms > 10_000, "it was not behind: {report:?}");
}

/// One of four signs everything twice and shows the second signatures when the epoch is over.
#[test]
fn second_signatures_shown_when_the_epoch_is_over_are_known_to_everybody_and_end_in_blocks() {
    for (seed, epoch_length) in [(1, 4), (2, 5), (3, 12)] {
        let mut plan = Plan { epoch_length, faults_ms: 40_000, ..Plan::quiet(seed, &[1; 4]) };
        plan.byzantine = vec![(2, Behaviour::LateDoubler)];
        let mut world = World::new(plan);
        let report = world.run().unwrap();
        let late = report.coverage.of("offences received late");
        assert!(late >= 3, "each honest node hears both signatures itself: {}", report.coverage);
        for node in [0, 1, 3] {
            let replica = world.replica(node).unwrap();
            let named = replica.evidence_included();
            // Epochs that a block may hold evidence of are remembered; the last one's may still be on its way.
            let now = replica.epoch();
            let every = sim::EVIDENCE_PERIOD.oldest(now).get()..now.get().saturating_sub(1);
            assert!(!every.is_empty(), "node {node} is in epoch {now} only");
            let guilty = types::ValidatorIndex::new(2);
            let missing: Vec<_> =
                every.filter(|epoch| !named.contains_key(&(types::Epoch::new(*epoch), guilty))).collect();
            assert!(missing.is_empty(), "node {node}, epochs {missing:?}: {named:?}");
            assert!(named.keys().all(|(_, index)| index.get() == 2), "node {node}: {named:?}");
        }
    }
    let quiet = check(&Plan { epoch_length: 4, ..Plan::quiet(1, &[1; 4]) });
    assert_eq!(quiet.coverage.of("evidence found"), 0);
}

#[test]
fn networks_with_random_faults_stay_safe_and_recover() {
    for seed in 100_000..100_150 {
        check(&Plan::from_seed(seed));
    }
}

#[test]
fn larger_networks_with_random_faults_stay_safe_and_recover() {
    let uneven: Vec<u128> = (1..=13).map(|i| i * i).collect();
    for seed in 0..4 {
        check(&Plan::with_stakes(seed, &uneven));
    }
    check(&Plan::with_stakes(1, &[1; 31]));
}

/// What the runs of the tests below exercised, all together.
fn exercised(seeds: std::ops::Range<u64>) -> Coverage {
    let mut sum = Coverage::default();
    seeds.for_each(|seed| sum.merge(&check(&Plan::from_seed(seed)).coverage));
    sum
}

#[test]
fn every_kind_of_liar_really_lies_and_every_kind_of_fault_really_happens() {
    let sum = exercised(200_000..200_250);
    for behaviour in BEHAVIOURS {
        assert!(sum.of(&format!("{behaviour:?} acts")) >= 5, "{behaviour:?}: {sum}");
    }
    for what in [
        "slashable pairs of liars",
        "offences received",
        "offences received late",
        "power losses in writes",
        "writes without space",
        "fsyncs lost",
        "disks with flipped bits",
        "disks lost",
        "starts refused for damage",
        "damaged disks replaced",
        "partitions",
        "one-way partitions",
        "slow nodes",
        "slow links",
        "replayed messages",
        "clock jumps",
        "executor deaths",
        "views entered by TC",
        "late QCs",
        "guard refusals (prepared later)",
        "guard refusals (given up)",
        "lock refusals",
        "re-proposals",
        "payloads built ahead and proposed",
        "payloads built ahead and dropped",
        "empty payloads built ahead, and again",
        "epochs entered",
        "validators that joined or left",
        "boundary proposals of liars",
        "crashes one block before a boundary",
        "crashes at a boundary",
        "crashes one block after a boundary",
        "blackouts around a boundary",
        "partitions over a boundary",
    ] {
        assert!(sum.of(what) > 0, "{what}: {sum}");
    }
}

#[test]
fn runs_on_real_journals_with_torn_sectors_and_flipped_bits_stay_safe_and_recover() {
    let mut sum = Coverage::default();
    for seed in 300_000..300_030 {
        sum.merge(&check(&Plan { journals: true, ..Plan::from_seed(seed) }).coverage);
    }
    for what in
        ["power losses in writes", "fsyncs lost", "disks with flipped bits", "starts refused for damage"]
    {
        assert!(sum.of(what) > 0, "{what}: {sum}");
    }
}

#[test]
fn plans_draw_every_class_and_never_a_third_of_faulty_stake() {
    let plans: Vec<Plan> = (0..500).map(Plan::from_seed).collect();
    for class in CLASSES {
        let with = plans.iter().filter(|plan| plan.classes.contains(&class)).count();
        assert!((100..400).contains(&with), "{class:?} in {with} of 500");
    }
    for plan in &plans {
        assert!(plan.faulty_stake() * 3 < plan.stakes.iter().sum(), "{plan:?}");
    }
    for n in [1, 3, 4, 7, 10, 16, 31] {
        assert!(plans.iter().any(|plan| plan.stakes.len() == n), "no set of {n}");
    }
    let blocks = |plan: &&Plan| plan.stakes.iter().any(|s| s * 3 > plan.stakes.iter().sum());
    assert!(plans.iter().filter(|plan| plan.stakes.len() > 1).filter(blocks).count() > 50, "heavy ones");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 77] {
        let plan = Plan::from_seed(seed);
        assert_eq!(check(&plan).trace, check(&plan).trace);
        // The secrets of real journals are drawn anew; nothing else may depend on them.
        let plan = Plan { journals: true, ..plan };
        assert_eq!(check(&plan).trace, check(&plan).trace);
    }
    assert_ne!(check(&Plan::from_seed(3)).trace, check(&Plan::from_seed(4)).trace);
}

#[test]
fn a_lying_executors_blocks_are_refused_at_once_and_the_others_go_on() {
    let mut world = World::new(Plan::quiet(5, &[1, 1, 1, 1]));
    world.executor(2).lies = true;
    let report = world.run().unwrap_or_else(|what| panic!("{what}"));
    assert!(report.height.get() > 8, "{report:?}");
    assert!(report.views > report.height.get() + 1, "the liar's views fail: {report:?}");
}

#[test]
fn three_equal_validators_survive_the_loss_of_one() {
    let mut plan = Plan::quiet(9, &[1, 1, 1]);
    plan.faults_ms = 600_000;
    let mut world = World::new(plan);
    world.executor(1).alive = false;
    let mut heights = Vec::new();
    while world.step().unwrap() {
        heights = (0..3).filter_map(|i| world.replica(i)).map(|r| r.finalized().0.get()).collect();
        if heights.first().is_some_and(|h| *h >= 8) {
            break;
        }
    }
    assert!(heights[0] >= 8, "{heights:?}");
    // Its executor is away: the validator itself says why it does not vote.
    let now = consensus::Now { mono_ms: 0, wall_ms: 0 };
    let reasons = world.replica(1).unwrap().status(now).reasons;
    assert!(reasons.iter().any(|r| matches!(r, consensus::StallReason::Executor(_))), "{reasons:?}");
    assert!(world.replica(1).unwrap().sign_state().last_prepare.is_none(), "no answer, no vote");
}
