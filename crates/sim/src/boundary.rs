//! Faults around the last block of an epoch: power losses exactly one block before it, at it and after it, of one node
//! or of all at once, and partitions that begin just before it. Random faults hardly ever hit these moments, and nothing
//! else in a chain's life is as delicate.

use crate::disk::CrashPoint;
use crate::world::World;
use rand::Rng;
use types::Height;

/// Of the nodes that make a height near a boundary final, in thousandths: those that lose power with it.
const CRASH_PERMILLE: u32 = 250;
/// Of the crashes, in thousandths: those that hit all nodes.
const BLACKOUT_PERMILLE: u32 = 100;
/// Of the boundaries, in thousandths: those that a partition begins before.
const PARTITION_PERMILLE: u32 = 500;

impl World {
    /// A node made a height final.
    pub(crate) fn near_boundary(&mut self, node: usize, height: Height) {
        let schedule = self.sets.schedule();
        let before = schedule.is_boundary(height.next());
        let place = match (before, schedule.is_boundary(height)) {
            (true, _) => "crashes one block before a boundary",
            (_, true) => "crashes at a boundary",
            _ if height.previous().is_some_and(|previous| schedule.is_boundary(previous)) => {
                "crashes one block after a boundary"
            }
            _ => return,
        };
        if !self.faults {
            return;
        }
        if self.plan.boundary_crashes && self.rng.random_ratio(CRASH_PERMILLE, 1000) {
            let all = self.rng.random_ratio(BLACKOUT_PERMILLE, 1000);
            self.coverage.note(if all { "blackouts around a boundary" } else { place });
            let hit = if all { 0..self.nodes.len() } else { node..node + 1 };
            hit.for_each(|node| self.lose_power_soon(node));
        }
        let news = self.seen.boundaries.insert(height);
        if before && news && self.plan.boundary_partitions && self.rng.random_ratio(PARTITION_PERMILLE, 1000)
        {
            self.coverage.note("partitions over a boundary");
            self.partition(false);
        }
    }

    /// The power goes in one of the next writes.
    fn lose_power_soon(&mut self, node: usize) {
        let point = match self.rng.random_range(0..4) {
            0 => CrashPoint::Before,
            1 => CrashPoint::Complete,
            count => CrashPoint::After(count - 1),
        };
        let spared = self.rng.random_range(0..2);
        self.nodes[node].storage.arm(point, spared);
        self.tell(|| format!("n{node} will lose power near a boundary: {point:?}, {spared} writes spared"));
    }
}
