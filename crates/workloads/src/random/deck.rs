//! Weighted choice with weights that are drawn themselves ("swarm"): what is drawn often in one world is missing
//! in another, so that rare combinations come up which even weights would never give.

use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// Things to choose from.
#[derive(Clone, Debug)]
pub(super) struct Deck<T> {
    cards: Vec<T>,
}

impl<T: Copy> Deck<T> {
    /// Each thing is missing (one in three), or there 1, 2, 4 or 8 times. At least one is there.
    pub(super) fn draw_weights(rng: &mut ChaCha8Rng, all: &[T]) -> Self {
        let mut cards = Vec::new();
        for card in all {
            if rng.random_ratio(2, 3) {
                cards.extend(std::iter::repeat_n(*card, 1 << rng.random_range(0..4)));
            }
        }
        if cards.is_empty() {
            cards.extend_from_slice(all);
        }
        Self { cards }
    }

    /// Puts a thing in `count` times more.
    pub(super) fn add(mut self, card: T, count: usize) -> Self {
        self.cards.extend(std::iter::repeat_n(card, count));
        self
    }

    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> T {
        *self.cards.choose(rng).expect("a deck is never empty")
    }
}
